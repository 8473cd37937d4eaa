//! A choice that does not fit a model, and one that would.

use std::fmt;

/// What is wrong with the value of an option, as data: whoever shows it spells options in its own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The option, as [`Recipe`](crate::Recipe) calls its field, or another input of the caller.
    pub field: &'static str,
    /// Its value.
    pub found: String,
    /// The values that would be possible, and why.
    pub allowed: String,
    /// A good value.
    pub suggestion: String,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            found,
            allowed,
            suggestion,
        } = self;
        write!(
            f,
            "{field} = {found} does not fit this model: {allowed}; try {field} = {suggestion}"
        )
    }
}
