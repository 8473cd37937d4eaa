//! Options on what is printed.

use clap::Args;

use crate::printer::{Format, Printer};

/// What is printed.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Form of the result on stdout
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Format::Text)]
    pub format: Format,

    /// Print nothing but the result and errors
    #[arg(long, short)]
    pub quiet: bool,
}

impl From<&OutputArguments> for Printer {
    fn from(arguments: &OutputArguments) -> Self {
        Self::new(arguments.format, arguments.quiet)
    }
}
