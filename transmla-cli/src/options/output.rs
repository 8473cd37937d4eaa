//! Options on what is printed.

use clap::Args;

use crate::printer::{Form, Printer};

/// What is printed.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Print nothing but the result and errors
    #[arg(long, short)]
    pub quiet: bool,
}

impl From<&OutputArguments> for Printer {
    fn from(arguments: &OutputArguments) -> Self {
        let form = if arguments.json { Form::Json } else { Form::Text };
        Self::new(form, arguments.quiet)
    }
}
