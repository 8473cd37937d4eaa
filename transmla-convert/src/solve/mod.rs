//! How the latent attention of every layer is found: a method for each folder, and what methods have in common.

pub mod coherent;
pub mod evaluation;
pub mod kept;
pub mod memory;
pub mod method;
pub mod probe;
pub mod published;
pub mod queries;
pub mod work;

use self::coherent::Coherent;
use self::method::Method;
use self::published::Published;
use self::work::{StageWork, TextSize, evaluation, writing};
use crate::spec::options::MethodName;
use crate::spec::plan::Plan;
use crate::spec::recipe::Recipe;
use crate::spec::report::Stage;

/// Every method.
const METHODS: [&dyn Method; 2] = [&Published, &Coherent];

/// The method of a name.
pub(crate) fn method(name: MethodName) -> &'static dyn Method {
    let named = |method: &&&dyn Method| method.name() == name;
    METHODS.iter().find(named).copied().unwrap_or(&Coherent)
}

/// Steps of layer-wise reconstruction that a recipe comes to: its own, or the default of its method.
pub fn refinement(recipe: &Recipe) -> usize {
    method(recipe.method).refinement(recipe)
}

/// Steps of layer-wise reconstruction where a recipe does not say it; 0 for a method without.
pub fn default_refinement(name: MethodName) -> usize {
    method(name).refinement(&Recipe::default())
}

/// Whether a method has layer-wise reconstruction.
pub fn has_refinement(name: MethodName) -> bool {
    default_refinement(name) > 0
}

/// The method of a recipe and its steps, in a few words.
pub(crate) fn summary(recipe: &Recipe) -> String {
    method(recipe.method).summary(recipe)
}

/// What a model card says of a recipe's method.
pub(crate) fn credits(recipe: &Recipe) -> &'static str {
    method(recipe.method).credits()
}

/// The method of a plan and how it will go about it, for people.
pub fn describe_method(plan: &Plan) -> String {
    method(plan.recipe().method).describe(plan)
}

/// Share of the calibration samples with random words in them, by method where a recipe does not say it.
pub fn default_noise(name: MethodName) -> f64 {
    method(name).noise()
}

/// Estimated peak of memory in bytes for `samples` calibration sequences of `tokens` tokens.
///
/// Hidden states of all tokens, one layer in f32, a batch's activations, the layer's attention and what its
/// factorisation works with in f64, and what the method adds; not the weights of a loaded model, and no evaluation.
pub fn peak_bytes(plan: &Plan, samples: usize, tokens: usize) -> u64 {
    method(plan.recipe().method).peak_bytes(plan, samples, tokens)
}

/// Bytes on disk of the statistics that are kept until a model stands, at most, for `samples` calibration sequences of `tokens`
/// tokens.
pub(crate) fn statistics_bytes(plan: &Plan, samples: usize, tokens: usize) -> u64 {
    method(plan.recipe().method).statistics_bytes(plan, samples, tokens)
}

/// The arithmetic of a conversion by stage, in their order, for so much text.
///
/// Of the foldings that `freqfold = "auto"` may try, all count; it stops at the first that is worse.
pub fn conversion_work(plan: &Plan, text: &TextSize) -> Vec<StageWork> {
    let of = |stage, config| StageWork {
        stage,
        work: evaluation(config, text),
    };
    let written = (text.written > 0).then(|| StageWork {
        stage: Stage::WriteText,
        work: writing(plan.source(), text),
    });
    let evaluated = text.windows > 0;
    let before = evaluated.then(|| of(Stage::EvaluateOriginal, plan.source()));
    let after = evaluated.then(|| of(Stage::EvaluateConverted, plan.converted()));
    let between = method(plan.recipe().method).work(plan, text);
    written.into_iter().chain(before).chain(between).chain(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_the_name_of_its_method() {
        for name in [MethodName::Transmla, MethodName::Coherent] {
            assert_eq!(method(name).name(), name);
        }
    }
}
