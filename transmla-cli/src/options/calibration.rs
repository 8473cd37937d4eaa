//! Options on the text of a calibration.

use std::path::PathBuf;

use clap::Args;
use transmla_convert::{Recipe, TextMix};

use super::set::set;
use super::values;
use crate::setup::parse_mix;

/// Which text is calibrated on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Calibration text")]
pub struct CalibrationArguments {
    /// wikitext2, ptb, c4, alpaca, stories, a file or folder, self (what the original writes), or several with weights, such
    /// as wikitext2:2,self:1,notes.txt [default: wikitext2, for models with a chat template wikitext2:1,self:1; embedded:
    /// stories]
    ///
    /// Files are parquet, JSON (a record on each line, or a list) or plain text, as they are or with .gz or .zst; chats
    /// (messages, conversations) are written in the model's chat template. A path that exists is taken as it is, commas and
    /// colons and all; in a list it may also stand in double quotes, or have a backslash before each comma and colon:
    /// '"a, b:2.txt":3,ptb'.
    ///
    /// For self the original model writes its calibration text: chats in its own template if it has one, else free text,
    /// from --seed. The ids are kept in calibration/self.safetensors, and are not written again by a run that would write
    /// the same.
    #[arg(long, value_name = "NAME|PATH", value_parser = parse_mix)]
    cal_dataset: Option<TextMix>,

    /// Column that is the text, in files that have columns, for calibration and evaluation [default: text, sentence,
    /// content, messages, conversations, or the only one of strings]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,

    /// Exact token ids instead: `input_ids` [samples, seq] of a safetensors file
    #[arg(long, value_name = "FILE")]
    cal_tokens: Option<PathBuf>,

    /// Number of samples [default: 128 for each text, or all of --cal-tokens]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    cal_nsamples: Option<usize>,

    /// Tokens per sample; --method coherent joins shorter ones to 512, and sees no distances beyond [default: 256, or as in
    /// --cal-tokens]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    cal_max_seqlen: Option<usize>,

    /// Share of the samples that contain random words, which other kinds of text need [default: 25%;
    /// --method transmla and --cal-tokens: none]
    #[arg(long, value_name = "SHARE", value_parser = values::share, conflicts_with = "cal_tokens")]
    cal_noise: Option<f64>,

    /// Samples per batch, up to 4096 tokens [default: 8]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    cal_batch_size: Option<usize>,

    /// Seed for drawing samples [default: 42]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl CalibrationArguments {
    /// Sets the fields whose options are given.
    pub fn apply(&self, recipe: &mut Recipe) {
        let text = &mut recipe.calibration;
        if let Some(dataset) = &self.cal_dataset {
            text.cal_dataset = Some(dataset.to_string());
            text.cal_tokens = None;
        }
        set(&mut text.text_column, self.text_column.clone().map(Some));
        set(&mut text.cal_tokens, self.cal_tokens.clone().map(Some));
        set(&mut text.cal_nsamples, self.cal_nsamples.map(Some));
        set(&mut text.cal_max_seqlen, self.cal_max_seqlen.map(Some));
        set(&mut text.cal_noise, self.cal_noise.map(Some));
        set(&mut text.cal_batch_size, self.cal_batch_size);
        set(&mut text.seed, self.seed);
    }
}
