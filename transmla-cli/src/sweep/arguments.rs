//! The options of `transmla sweep`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use transmla_convert::{ConvertError, Hint, MethodName, Recipe, default_refinement, has_refinement, shapes_for_budget};
use transmla_core::ModelConfig;

use crate::options::budget::budget;
use crate::options::compute::ComputeArguments;
use crate::options::conversion::ConversionArguments;
use crate::options::output::OutputArguments;
use crate::options::source::SourceArguments;
use crate::options::values::{self, Expected};
use crate::output_file::OutputFile;

/// Convert a model to several sizes of the KV cache and show what each costs in perplexity.
///
/// The picture has perplexity against KV numbers per token and layer for each method, to choose a budget by. Work that the
/// conversions have in common is done once. Every perplexity is that of a converted model read back from its files,
/// the same that `transmla convert` reports; the files are temporary (in TMPDIR) unless --save-path is given.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SweepArguments {
    #[command(flatten)]
    model: SourceArguments,

    /// Widths of the rotary key and of the latent, such as 8+28, or shares of the original KV cache, such as 25%
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "75%,50%,25%")]
    pub budgets: Vec<Budget>,

    /// How the latent models are found
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "transmla,coherent"
    )]
    methods: Vec<MethodName>,

    /// Steps of layer-wise reconstruction in the coherent method; a curve for each number [default: 100]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    refine: Vec<usize>,

    /// Folder for sweep.svg, sweep.json and report.html
    #[arg(long, value_name = "FOLDER", default_value = "sweep", conflicts_with_all = ["svg", "figures", "report"])]
    output: PathBuf,

    /// File for the picture, instead of --output
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// File for the figures as JSON, instead of --output
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,

    /// File for the page with picture, table and recipe, instead of --output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Keep the converted models, in folders such as transmla-8-28 of this folder
    #[arg(long, value_name = "FOLDER")]
    pub save_path: Option<PathBuf>,

    /// Replace the picture, the figures and the page, and models that are in the folders of --save-path
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    conversion: ConversionArguments,

    #[command(flatten, next_help_heading = "Computation and output")]
    pub compute: ComputeArguments,

    #[command(flatten)]
    pub printing: OutputArguments,
}

const EXAMPLES: &str = "\
Examples:
  transmla sweep --budgets 8+28,8+12,4+28,4+12 --refine 0,100
  transmla sweep --model-path org/model --budgets 50%,25%,12.5% --freqfold 4 --eval-max-windows 20
  transmla sweep --model-path ./model --budgets 32+128,32+64 --methods coherent --save-path models";

/// A size of the KV cache as a user asks for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Widths of the rotary key and of the latent.
    Shapes(usize, usize),
    /// A share of the original.
    Share(f64),
}

impl FromStr for Budget {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text.split_once('+') {
            Some((rope, rank)) => match (values::positive(rope.trim()), values::positive(rank.trim())) {
                (Ok(rope), Ok(rank)) => Some(Self::Shapes(rope, rank)),
                _ => None,
            },
            None => budget(text).ok().map(Self::Share),
        }
        .ok_or(Expected(
            "two widths such as 8+28 (rotary key + latent) or a share of the KV cache such as 25%",
        ))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shapes(rope, rank) => write!(f, "{rope}+{rank}"),
            Self::Share(share) => write!(f, "{}%", 100.0 * share),
        }
    }
}

impl Budget {
    /// Widths of the rotary key and of the latent; `beside` are more numbers of a token that are part of a share.
    pub fn shapes(self, config: &ModelConfig, beside: usize) -> Result<(usize, usize), ConvertError> {
        match self {
            Self::Shapes(rope, rank) => Ok((rope, rank)),
            Self::Share(share) => shapes_for_budget(config, share, beside),
        }
    }

    /// Why it does not fit a model, and what would, as --budgets has it.
    pub fn refused(self, error: ConvertError) -> anyhow::Error {
        let told = |hint: &Hint, instead: String| {
            let allowed = &hint.allowed;
            anyhow!("--budgets {self} does not fit this model: {allowed}; try --budgets {instead}")
        };
        match (&error, self) {
            (ConvertError::Option(hint @ Hint { field: "kv_budget", .. }), _) => told(hint, hint.suggestion.clone()),
            (
                ConvertError::Option(
                    hint @ Hint {
                        field: "qk_mqa_dim", ..
                    },
                ),
                Self::Shapes(_, rank),
            ) => told(hint, format!("{}+{rank}", hint.suggestion)),
            (
                ConvertError::Option(
                    hint @ Hint {
                        field: "kv_lora_rank", ..
                    },
                ),
                Self::Shapes(rope, _),
            ) => told(hint, format!("{rope}+{}", hint.suggestion)),
            _ => anyhow::Error::new(error).context(format!("cannot use --budgets {self}")),
        }
    }
}

/// What is drawn in one colour: a method, and how far it refines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Curve {
    /// How models are found.
    pub method: MethodName,
    /// Steps of reconstruction.
    pub refine: usize,
}

impl Curve {
    /// For people.
    pub fn label(self) -> String {
        match self.refine {
            0 => self.method.to_string(),
            steps => format!("{}, refine {steps}", self.method),
        }
    }

    /// For names of folders.
    pub fn slug(self) -> String {
        match self.refine {
            0 => self.method.to_string(),
            steps => format!("{}-refine{steps}", self.method),
        }
    }
}

/// Where results are written beside stdout.
#[derive(Debug)]
pub struct Files {
    /// Whether existing files may be replaced.
    pub force: bool,
    /// The option that says where both are, if one does.
    pub folder: Option<&'static str>,
    /// The picture.
    pub svg: Option<PathBuf>,
    /// The figures.
    pub figures: Option<PathBuf>,
    /// The page.
    pub report: Option<PathBuf>,
}

impl Files {
    /// The picture.
    pub fn picture(&self) -> Option<OutputFile<'_>> {
        self.file("--svg", self.svg.as_deref())
    }

    /// The figures.
    pub fn figures(&self) -> Option<OutputFile<'_>> {
        self.file("--figures", self.figures.as_deref())
    }

    /// The page.
    pub fn page(&self) -> Option<OutputFile<'_>> {
        self.file("--report", self.report.as_deref())
    }

    /// All of them.
    pub fn all(&self) -> Vec<OutputFile<'_>> {
        let all = [self.picture(), self.figures(), self.page()];
        all.into_iter().flatten().collect()
    }

    fn file<'a>(&self, option: &'static str, path: Option<&'a Path>) -> Option<OutputFile<'a>> {
        Some(OutputFile {
            option: self.folder.unwrap_or(option),
            path: path?,
            force: self.force,
        })
    }

    /// Makes the folders that they are in.
    ///
    /// # Errors
    /// A folder that cannot be made or written to, one file for two of them, or a file that may not be replaced.
    pub fn check(&self) -> anyhow::Result<()> {
        let all = self.all();
        for (index, output) in all.iter().enumerate() {
            if let Some(same) = all[..index].iter().find(|other| other.is_same(output.path)) {
                let (one, other, path) = (same.option, output.option, output.path.display());
                bail!("{one} and {other} are one file, {path}; give each its own");
            }
        }
        for output in all {
            output.check_free()?;
            let (file, path) = (output.path, output.path.display());
            let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let probe = std::fs::create_dir_all(parent).and_then(|()| tempfile::tempfile_in(parent).map(drop));
            probe.with_context(|| format!("cannot write {path}"))?;
        }
        Ok(())
    }
}

impl SweepArguments {
    /// What all conversions have in common: defaults, then the options given.
    ///
    /// # Errors
    /// An option is for something that there is not.
    pub fn recipe(&self) -> anyhow::Result<Recipe> {
        let mut recipe = self.model.defaults();
        self.model.apply(&mut recipe);
        self.conversion.apply(&mut recipe)?;
        Ok(recipe)
    }

    /// The curves in the order of the options, each once.
    ///
    /// # Errors
    /// Refinement of a method that has none.
    pub fn curves(&self) -> anyhow::Result<Vec<Curve>> {
        let refines = self.methods.iter().any(|method| has_refinement(*method));
        if self.refine.iter().any(|steps| *steps > 0) && !refines {
            bail!("--refine is part of the coherent method, which --methods leaves out; add it, or leave out --refine");
        }
        let mut curves: Vec<Curve> = Vec::new();
        for method in &self.methods {
            let default = [default_refinement(*method)];
            let steps = match has_refinement(*method) && !self.refine.is_empty() {
                true => &self.refine[..],
                false => &default,
            };
            for refine in steps {
                let curve = Curve {
                    method: *method,
                    refine: *refine,
                };
                if !curves.contains(&curve) {
                    curves.push(curve);
                }
            }
        }
        Ok(curves)
    }

    /// The files to write.
    pub fn files(&self) -> Files {
        match (&self.svg, &self.figures, &self.report) {
            (None, None, None) => Files {
                force: self.force,
                folder: Some("--output"),
                svg: Some(self.output.join("sweep.svg")),
                figures: Some(self.output.join("sweep.json")),
                report: Some(self.output.join("report.html")),
            },
            (svg, figures, report) => Files {
                force: self.force,
                folder: None,
                svg: svg.clone(),
                figures: figures.clone(),
                report: report.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_widths_or_shares() {
        assert_eq!("8+28".parse(), Ok(Budget::Shapes(8, 28)));
        assert_eq!("12.5%".parse(), Ok(Budget::Share(0.125)));
        assert_eq!(
            ("50".parse(), "0.5".parse()),
            (Ok(Budget::Share(0.5)), Ok(Budget::Share(0.5)))
        );
        assert_eq!(Budget::Share(0.125).to_string(), "12.5%");
        for wrong in ["half", "8+", "+28", "0+28", "8+28+1", "8-28", ""] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
    }
}
