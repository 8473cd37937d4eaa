//! A conversion from a recipe.

use std::path::{Path, PathBuf};

use transmla_core::Residency;

use crate::output::room::DiskNeeds;
use crate::setup::Setup;
use crate::solve::work::TextSize;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;
use crate::spec::recipe::Recipe;
use crate::spec::report::{Observer, Report};
use crate::sweep::{PlannedSweep, plan_all};
use crate::text::plan::TextPlan;

/// A conversion of a model by a recipe, before anything was looked at.
///
/// It finds model and text, and writes what the recipe says with the recipe itself and a model card:
///
/// ```no_run
/// use transmla_convert::{Conversion, Recipe, Silent};
///
/// let recipe = Recipe { model_path: "./model".into(), kv_lora_rank: Some(256), ..Recipe::default() };
/// let plan = Conversion::new(recipe)?.plan(&mut Silent)?;
/// let report = plan.run("converted".as_ref(), &mut Silent)?;
/// assert!(report.mla.is_some());
/// # Ok::<(), transmla_convert::ConvertError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Conversion {
    recipe: Recipe,
    setup: Setup,
}

impl Conversion {
    /// A conversion on the default device, without the hub; see [`Self::with`].
    ///
    /// # Errors
    /// [`ConvertError::Recipe`] for a recipe without a model, or with a count of zero.
    pub fn new(recipe: Recipe) -> Result<Self, ConvertError> {
        recipe.check()?;
        let setup = Setup::default();
        Ok(Self { recipe, setup })
    }

    /// The same in another setup.
    pub fn with(self, setup: Setup) -> Self {
        Self { setup, ..self }
    }

    /// Finds the model and plans, from its configuration and the headers of its weights; reads files of token ids, and no
    /// dataset. A model without weights can be planned for.
    ///
    /// # Errors
    /// The model cannot be found or is not supported; a choice that does not fit it; text that cannot be used.
    pub fn plan(self, observer: &mut dyn Observer) -> Result<PlannedConversion, ConvertError> {
        Ok(PlannedConversion(plan_all(&self.setup, vec![self.recipe], observer)?))
    }

    /// Plans and runs.
    ///
    /// # Errors
    /// As for [`Self::plan`] and [`PlannedConversion::run`].
    pub fn run(self, save_path: &Path, observer: &mut dyn Observer) -> Result<Report, ConvertError> {
        self.plan(observer)?.run(save_path, observer)
    }
}

/// A conversion that is known to fit its model.
#[derive(Debug)]
pub struct PlannedConversion(PlannedSweep);

impl PlannedConversion {
    /// What will be done; its recipe says all that the given one left to the model.
    pub fn plan(&self) -> &Plan {
        &self.0.plans()[0]
    }

    /// What it is calibrated and evaluated on.
    pub fn texts(&self) -> &TextPlan {
        self.0.texts(0)
    }

    /// How much text it goes through; one window where it is not known yet how many are evaluated.
    pub fn text_size(&self) -> TextSize {
        self.0.text_size(0)
    }

    /// Bytes of the source's weights, if they are there.
    pub fn source_bytes(&self) -> Option<u64> {
        self.0.source_bytes()
    }

    /// Whether the source's weights will be kept in memory.
    pub fn residency(&self) -> Residency {
        self.0.residency()
    }

    /// Estimated peak of memory in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.0.peak_bytes(0)
    }

    /// Bytes on disk while the model is made, at most.
    pub fn disk_needs(&self) -> DiskNeeds {
        self.0.disk_needs_of(0)
    }

    /// Converts the model and writes it, with `transmla.toml` and `README.md`; see [`convert()`](crate::convert()).
    ///
    /// # Errors
    /// Those of [`convert()`](crate::convert()), and text that cannot be had.
    pub fn run(&self, save_path: &Path, observer: &mut dyn Observer) -> Result<Report, ConvertError> {
        let places: [PathBuf; 1] = [save_path.to_path_buf()];
        Ok(self.0.run_all(&places, true, observer)?.swap_remove(0))
    }
}
