//! What can go wrong.

use thiserror::Error;

/// A page or picture that could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A picture could not be drawn.
    #[error("cannot draw the picture \"{picture}\": {source}")]
    Draw {
        /// Its heading.
        picture: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
