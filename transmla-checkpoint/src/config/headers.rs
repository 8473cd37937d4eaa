//! Corrections of config.json by the headers of the weights, as transformers makes them.

use super::attention::AttentionConfig;
use super::model::ModelConfig;
use crate::checkpoint::names::{EMBEDDING, HEAD};
use crate::checkpoint::reader::Checkpoint;
use crate::error::CheckpointError;

/// Rows of two matrices that are compared at once.
const ROWS: usize = 512;

impl ModelConfig {
    /// The configuration of these weights: what config.json says, but for what their headers say better.
    ///
    /// | config.json says | the weights have | what counts |
    /// | --- | --- | --- |
    /// | embeddings are tied | an output head of its own, which differs | the head |
    /// | a vocabulary | an embedding with more rows | the rows |
    /// | biases | none of a kind in any layer | none: transformers starts them at zero |
    /// | multi-token-prediction layers | none | none |
    ///
    /// # Errors
    /// An output head of another shape than the embedding it is said to be; weights that cannot be compared.
    pub fn with_headers(mut self, checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        self.take_vocabulary(checkpoint);
        self.take_head(checkpoint)?;
        self.take_biases(checkpoint);
        self.take_mtp_layers(checkpoint);
        Ok(self)
    }

    fn take_vocabulary(&mut self, checkpoint: &Checkpoint) {
        let rows = match checkpoint.shape(EMBEDDING) {
            Ok([rows, columns]) if *columns == self.hidden_size && *rows > self.vocab_size => *rows,
            _ => return,
        };
        self.notes.push(format!(
            "the embedding has {rows} rows, config.json says vocab_size {}: {rows} are taken",
            self.vocab_size
        ));
        self.vocab_size = rows;
    }

    fn take_head(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        if !self.tie_word_embeddings || !checkpoint.contains(HEAD) || !checkpoint.contains(EMBEDDING) {
            return Ok(());
        }
        let shape = [self.vocab_size, self.hidden_size];
        checkpoint.check(EMBEDDING, &shape)?;
        checkpoint.check(HEAD, &shape)?;
        let (mut embedding, mut head) = (Vec::new(), Vec::new());
        for start in (0..self.vocab_size).step_by(ROWS) {
            let rows = start..(start + ROWS).min(self.vocab_size);
            embedding.clear();
            head.clear();
            checkpoint.rows(EMBEDDING, shape, rows.clone(), &mut embedding)?;
            checkpoint.rows(HEAD, shape, rows, &mut head)?;
            if embedding != head {
                self.tie_word_embeddings = false;
                self.notes.push(
                    "config.json ties the output head to the embedding, the weights have a head that differs: it is taken"
                        .into(),
                );
                break;
            }
        }
        Ok(())
    }

    fn take_biases(&mut self, checkpoint: &Checkpoint) {
        let AttentionConfig::Grouped(grouped) = &mut self.attention else {
            return;
        };
        let has = |kinds: &[&str]| {
            let ends: Vec<String> = kinds.iter().map(|kind| format!(".self_attn.{kind}.bias")).collect();
            let mut layers = checkpoint.names().filter(|name| name.starts_with("model.layers."));
            layers.any(|name| ends.iter().any(|end| name.ends_with(end)))
        };
        for (expected, kinds) in [
            (&mut grouped.qkv_bias, &["q_proj", "k_proj", "v_proj"][..]),
            (&mut grouped.output_bias, &["o_proj"]),
        ] {
            if *expected && !has(kinds) {
                *expected = false;
                self.notes.push(format!(
                    "config.json wants biases on {}, the weights have none: they are zero",
                    kinds.join(", ")
                ));
            }
        }
    }

    fn take_mtp_layers(&mut self, checkpoint: &Checkpoint) {
        let (Some(mtp), Some(prefix)) = (self.mtp, self.family.mtp_prefix) else {
            return;
        };
        if !checkpoint.names().any(|name| name.starts_with(prefix)) {
            self.notes.push(format!(
                "config.json names {}, the weights have none",
                if mtp.layers == 1 {
                    "a multi-token-prediction layer".into()
                } else {
                    format!("{} multi-token-prediction layers", mtp.layers)
                }
            ));
            self.mtp = None;
        }
    }
}
