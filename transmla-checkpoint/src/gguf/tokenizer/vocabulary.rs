//! The tokenizer's keys of a file.

use std::collections::HashMap;

use super::super::model::Model;
use crate::error::CheckpointError;

/// What a token is (ggml's `llama_token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    fn of_number(number: f64) -> Option<Self> {
        [
            Self::Normal,
            Self::Unknown,
            Self::Control,
            Self::UserDefined,
            Self::Unused,
            Self::Byte,
        ]
        .into_iter()
        .zip(1..)
        .find_map(|(kind, known)| (f64::from(known) == number).then_some(kind))
    }
}

/// The tokens of a file, by id.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub tokens: Vec<String>,
    pub kinds: Vec<Kind>,
}

impl Vocabulary {
    /// Reads and checks the tokens.
    ///
    /// # Errors
    /// There are none, more than the model has, or tokens without a kind.
    pub fn read(model: &Model) -> Result<Self, CheckpointError> {
        let tokens = model.main().texts("tokenizer.ggml.tokens")?;
        let tokens = tokens.filter(|tokens| !tokens.is_empty());
        let tokens = tokens.ok_or_else(|| no_tokenizer(model, "the file has no list of tokens"))?;
        let rows = model.vocabulary()?;
        if tokens.len() > rows {
            return Err(no_tokenizer(
                model,
                format!("the file has {} tokens for {rows} rows of the embedding", tokens.len()),
            ));
        }
        let kinds = match model.main().numbers("tokenizer.ggml.token_type")? {
            None => vec![Kind::Normal; tokens.len()],
            Some(numbers) => {
                let kinds: Option<Vec<Kind>> = numbers.into_iter().map(Kind::of_number).collect();
                kinds
                    .filter(|kinds| kinds.len() == tokens.len())
                    .ok_or_else(|| no_tokenizer(model, "the kinds of the tokens are not those of so many tokens"))?
            }
        };
        Ok(Self { tokens, kinds })
    }

    /// Tokens with their ids, but for what only fills the vocabulary up.
    pub fn entries(&self) -> impl Iterator<Item = (&str, u32, Kind)> {
        let tokens = self.tokens.iter().zip(&self.kinds).zip(0..);
        tokens
            .map(|((token, kind), id)| (token.as_str(), id, *kind))
            .filter(|(token, id, kind)| *kind != Kind::Unused || *token != format!("[PAD{id}]"))
    }

    /// Ids by token.
    ///
    /// # Errors
    /// A token is there twice.
    pub fn ids(&self, model: &Model) -> Result<HashMap<&str, u32>, CheckpointError> {
        let mut ids = HashMap::new();
        for (token, id, kind) in self.entries() {
            match ids.contains_key(token) {
                true if kind == Kind::Unused => {}
                true => return Err(no_tokenizer(model, format!("the token {token:?} is there twice"))),
                false => drop(ids.insert(token, id)),
            }
        }
        Ok(ids)
    }

    /// The token of a key such as `bos_token_id`, with its id.
    pub fn named(&self, model: &Model, key: &str) -> Option<(&str, u32)> {
        let id = model.main().integer(&format!("tokenizer.ggml.{key}_token_id"))?;
        let token = self.tokens.get(usize::try_from(id).ok()?)?;
        Some((token, u32::try_from(id).ok()?))
    }
}

/// The error of a file of whose keys no tokenizer is made.
pub(super) fn no_tokenizer(model: &Model, problem: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::File {
        path: model.main().path().to_path_buf(),
        problem: format!(
            "no tokenizer can be made of its keys: {problem}; put the tokenizer.json of the model that it was made from beside it"
        ),
    }
}
