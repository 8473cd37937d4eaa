//! A context and its continuation as token ids.

use transmla_calib::{CalibError, TextTokenizer};

use crate::likelihood::Request;
use crate::tasks::python_text::split_end;
use crate::tasks::spec::PairRule;

/// What cuts texts into tokens.
pub(super) struct Pairs<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// The token that starts a text, and how it is spelled.
    pub start: Option<(u32, String)>,
}

impl Pairs<'_> {
    /// The token ids of a context and a continuation; nothing where an empty context has no token to start with.
    ///
    /// White space at the end of the context belongs to the continuation, and both are cut as one text.
    pub fn encode(&self, context: &str, continuation: &str, rule: PairRule) -> Result<Option<Request>, CalibError> {
        if context.is_empty() {
            return self.after_nothing(continuation);
        }
        let (context, space) = split_end(context);
        let continuation = format!("{space}{continuation}");
        let whole = self.ids(&format!("{context}{continuation}"), rule)?;
        let context = self.ids(context, rule)?;
        if rule == PairRule::Lighteval && whole.len() == context.len() && whole.len() > 1 {
            let (before, last) = whole.split_at(whole.len() - 1);
            return Ok(Some(Request {
                context: before.to_vec(),
                continuation: last.to_vec(),
            }));
        }
        let continuation = whole.get(context.len()..).unwrap_or_default().to_vec();
        Ok(Some(Request { context, continuation }))
    }

    fn after_nothing(&self, continuation: &str) -> Result<Option<Request>, CalibError> {
        let Some((start, _)) = self.start else {
            return Ok(None);
        };
        let mut ids = self.tokenizer.encode(continuation, false)?;
        if ids.first() == Some(&start) {
            ids.remove(0);
        }
        Ok(Some(Request {
            context: vec![start],
            continuation: ids,
        }))
    }

    /// A text that writes its own start gets no second one.
    fn ids(&self, text: &str, rule: PairRule) -> Result<Vec<u32>, CalibError> {
        let own = match (&self.start, rule) {
            (Some((_, spelled)), PairRule::Harness) => !spelled.is_empty() && text.starts_with(spelled.as_str()),
            _ => false,
        };
        self.tokenizer.encode(text, !own)
    }
}
