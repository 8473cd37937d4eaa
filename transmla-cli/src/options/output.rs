//! Options on what is printed.

use clap::Args;

use crate::printer::{Form, Printer};

/// What is printed.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

impl From<&OutputArguments> for Printer {
    fn from(arguments: &OutputArguments) -> Self {
        Self::new(if arguments.json { Form::Json } else { Form::Text })
    }
}
