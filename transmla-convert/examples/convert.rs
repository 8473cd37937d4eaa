//! Converts a model to multi-head latent attention, as `transmla convert` does.

use std::path::PathBuf;

use transmla_convert::{Conversion, ConvertError, Recipe, Silent};

fn main() -> Result<(), ConvertError> {
    let mut arguments = std::env::args().skip(1);
    let models = "transmla-cli/models";
    let mut recipe = Recipe {
        model_path: arguments.next().unwrap_or(format!("./{models}/stories260k")),
        qk_mqa_dim: Some(8),
        kv_lora_rank: Some(28),
        refine: Some(2),
        ..Recipe::default()
    };
    recipe.calibration.cal_dataset = Some(arguments.next().unwrap_or(format!("./{models}/stories")));
    recipe.calibration.cal_nsamples = Some(16);
    recipe.evaluation.eval_max_windows = Some(4);
    let save_path = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("mla-{}", std::process::id())),
        PathBuf::from,
    );
    let planned = Conversion::new(recipe)?.plan(&mut Silent)?;
    let (before, after) = planned.plan().cache_numbers();
    println!(
        "{before} -> {after} numbers per token and layer, {} bytes",
        planned.plan().output_bytes()
    );
    let report = planned.run(&save_path, &mut Silent)?;
    for (name, measured) in [("original", report.original), ("converted", report.mla)] {
        println!("{name}: perplexity {:?}", measured.map(|it| it.perplexity));
    }
    Ok(())
}
