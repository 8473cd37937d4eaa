//! Calibration samples from the train split of a dataset, evaluation windows from its test split.

use transmla_calib::transmla_checkpoint::hub::HubOptions;
use transmla_calib::{CalibError, DatasetSource, SampleSpec, Split, TextTokenizer, evaluation_windows, load, sample};

fn main() -> Result<(), CalibError> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or("transmla-cli/models/stories260k".into());
    let text = arguments.next().unwrap_or("transmla-cli/models/stories".into());
    let tokenizer = TextTokenizer::from_folder(model.as_ref())?;
    let source: DatasetSource = text.parse()?; // a path, or a name such as wikitext2
    let hub = HubOptions::default();

    let train = load(&source, Split::Train, &hub)?;
    let spec = SampleSpec {
        samples: 8,
        sequence: 64,
        seed: 42,
    };
    let tokens = sample(&train.rows, &tokenizer, &spec)?.tokens; // [8, 64]
    println!("{} samples from {}", tokens.batch(), train.origin);
    let first: Vec<u32> = tokens.row(0).iter().map(|&id| id as u32).collect();
    println!("the first: {}", tokenizer.decode(&first, true)?);

    let test = load(&source, Split::Test, &hub)?;
    let windows = evaluation_windows(&test.rows, &tokenizer, 512, Some(12))?; // [12, 512]
    println!("{} windows from {}", windows.batch(), test.origin);
    Ok(())
}
