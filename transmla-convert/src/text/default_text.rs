//! The calibration text where a recipe names none.

use std::path::Path;

use transmla_calib::{ChatMessage, ChatTemplate, DatasetSource};

use crate::text::mix::TextMix;
use crate::text::source::{LocalText, TextSource};

/// Weights of wikitext2 and of chats that the original writes, by which docs/method.md measures them best for a chat model.
const READ: f64 = 1.0;
const WRITTEN: f64 = 1.0;

/// What a recipe leaves to the model and its method.
#[derive(Debug, Clone, Copy)]
pub struct TextDefaults<'a> {
    /// The calibration text.
    pub calibration: &'a TextMix,
    /// Share of its samples with random words.
    pub noise: f64,
    /// Texts that the program has under names of its own.
    pub locals: &'a [LocalText],
}

/// Whether a model's folder has a chat template that plain chats can be written in.
pub(crate) fn can_chat(folder: &Path) -> bool {
    // One that cannot be used is no reason not to convert: it is told where somebody wants to chat.
    let template = ChatTemplate::from_folder(folder).ok().flatten();
    template.is_some_and(|template| template.render(&[ChatMessage::user("Hello")], true).is_ok())
}

/// The calibration text for a model, by whether it is to write some of it.
pub(crate) fn default_text(writes: bool) -> TextMix {
    let read = TextSource::Dataset(DatasetSource::Wikitext2);
    match writes {
        true => TextMix::of([(read, READ), (TextSource::Own, WRITTEN)]),
        false => TextMix::from(read),
    }
}
