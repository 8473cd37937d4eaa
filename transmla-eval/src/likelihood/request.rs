//! What is asked for, and what comes of it.

use std::collections::HashMap;

use transmla_core::CacheFormat;

use crate::error::EvalError;

/// A continuation to score after a context, both as token ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// At least one token, that which starts a text where there is nothing else.
    pub context: Vec<u32>,
    /// At least one token.
    pub continuation: Vec<u32>,
}

/// What a model says to a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// Sum over the continuation's tokens of log p(token | everything before it), in nats.
    pub log_likelihood: f64,
    /// Whether each of them is the most likely token in its place.
    pub is_greedy: bool,
}

impl Likelihood {
    /// Of no token.
    pub(super) const NONE: Self = Self {
        log_likelihood: 0.0,
        is_greedy: true,
    };
}

/// How scoring trades memory for time; the results are the same but for rounding.
#[derive(Debug, Clone, Copy)]
pub struct ScoringOptions {
    /// Tokens that go through a layer together, padding included; a longer sequence goes alone.
    pub batch_tokens: usize,
    /// Bytes of hidden states held at once: as many requests as fit share one reading of the layers.
    pub state_bytes: u64,
    /// Longest sequence in tokens, without the last token of the continuation, which is only predicted; the model's context if
    /// nothing is given.
    pub max_length: Option<usize>,
    /// Whether what requests have in common is computed once.
    pub share: bool,
    /// Tokens attend to what a KV cache of this format keeps of them and of those before them, if there is one. A model for it is
    /// made by [`Decoder::for_cache`](transmla_core::Decoder::for_cache).
    pub cache: Option<CacheFormat>,
}

impl Default for ScoringOptions {
    fn default() -> Self {
        Self {
            batch_tokens: 512,
            state_bytes: 256 << 20,
            max_length: None,
            share: true,
            cache: None,
        }
    }
}

impl ScoringOptions {
    /// Of tokens that take so many bytes each.
    pub(super) fn tokens_at_once(&self, per_token: u64) -> usize {
        ((self.state_bytes / per_token.max(1)) as usize).max(1)
    }
}

/// A request as the model reads it: every token but the last, of which the last few predict the continuation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Sequence {
    pub input: Vec<u32>,
    pub targets: Vec<u32>,
}

impl Sequence {
    /// Cut from the left to `longest` tokens.
    pub fn of(index: usize, request: &Request, longest: usize, vocabulary: usize) -> Result<Self, EvalError> {
        let fail = |problem: String| Err(EvalError::Request { index, problem });
        let (context, continuation) = (&request.context, &request.continuation);
        if context.is_empty() || continuation.is_empty() {
            let what = if context.is_empty() { "context" } else { "continuation" };
            return fail(format!("its {what} has no token"));
        }
        if continuation.len() > longest {
            let found = continuation.len();
            return fail(format!(
                "its continuation has {found} tokens, the model reads {longest}"
            ));
        }
        let foreign = |id: &&u32| **id as usize >= vocabulary;
        if let Some(id) = context.iter().chain(continuation).find(foreign) {
            return fail(format!("token id {id} is not in the vocabulary of {vocabulary}"));
        }
        let mut input = [context.as_slice(), continuation].concat();
        input.pop();
        let cut = input.len().saturating_sub(longest);
        input.drain(..cut);
        Ok(Self {
            input,
            targets: continuation.clone(),
        })
    }

    /// Tokens that all continuations of the context have in front of them.
    pub fn stem(&self) -> usize {
        self.input.len() + 1 - self.targets.len()
    }
}

/// Each sequence once, and where each of the given ones is among them.
pub(super) fn distinct(sequences: Vec<Sequence>) -> (Vec<Sequence>, Vec<usize>) {
    let mut known: HashMap<Sequence, usize> = HashMap::new();
    let mut kept = Vec::new();
    let places = sequences.into_iter().map(|sequence| {
        *known.entry(sequence).or_insert_with_key(|sequence| {
            kept.push(sequence.clone());
            kept.len() - 1
        })
    });
    let places = places.collect();
    (kept, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(context: &[u32], continuation: &[u32]) -> Request {
        Request {
            context: context.to_vec(),
            continuation: continuation.to_vec(),
        }
    }

    #[test]
    fn long_sequences_lose_their_beginning() {
        let asked = request(&[1, 2, 3, 4], &[5, 6]);
        let whole = Sequence::of(0, &asked, 9, 50).unwrap();
        assert_eq!((whole.input.as_slice(), whole.stem()), (&[1, 2, 3, 4, 5][..], 4));
        let cut = Sequence::of(0, &asked, 3, 50).unwrap();
        assert_eq!((cut.input.as_slice(), cut.stem()), (&[3, 4, 5][..], 2));
        assert_eq!(cut.targets, [5, 6]);
        // A continuation that fills everything is read behind nothing but the last token of its context.
        let full = Sequence::of(0, &asked, 2, 50).unwrap();
        assert_eq!((full.input.as_slice(), full.stem()), (&[4, 5][..], 1));
    }

    #[test]
    fn what_cannot_be_scored_is_named() {
        for (asked, word) in [
            (request(&[], &[1]), "context has no token"),
            (request(&[1], &[]), "continuation has no token"),
            (request(&[1], &[1, 2, 3]), "3 tokens, the model reads 2"),
            (request(&[1], &[50]), "token id 50 is not in the vocabulary of 50"),
        ] {
            let error = Sequence::of(7, &asked, 2, 50).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains('7'), "{error}");
        }
    }

    #[test]
    fn equal_sequences_are_one() {
        let one = Sequence::of(0, &request(&[1], &[2]), 9, 50).unwrap();
        let other = Sequence::of(0, &request(&[1], &[3]), 9, 50).unwrap();
        let (kept, places) = distinct(vec![one.clone(), other.clone(), one.clone()]);
        assert_eq!((kept, places), (vec![one, other], vec![0, 1, 0]));
    }
}
