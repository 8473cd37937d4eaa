//! The command line of transmla: arguments, printing, progress bars.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `arguments`, `options`, `former_options` | the commands, the options that several of them share, and tips for those that have changed |
//! | `convert`, `sweep`, `heal`, `eval`, `verify`, `export`, `logits`, `inspect`, `generate`, `chat`, `bench`, `push`, `doctor`, `completions`, `man` | one module per command |
//! | `model`, `text`, `mix`, `embedded` | models and texts by name, path or hub id; those that the binary carries |
//! | `output_file`, `links` | whether a file may be written, by whatever names it is reached, and writing it |
//! | `printer`, `messages`, `bar`, `pace`, `downloads`, `table` | the only places that print: results, messages, progress |
//! | `memory`, `room`, `environment`, `interrupt` | the only places that read the system and that hear signals |

mod advice;
mod arguments;
mod bar;
mod bench;
mod chat;
mod completions;
mod conversation;
mod convert;
mod doctor;
mod downloads;
mod embedded;
mod environment;
mod eval;
mod evaluation_bar;
mod export;
mod flags;
mod former_options;
mod generate;
mod heal;
mod inspect;
mod interrupt;
mod latents;
mod links;
mod logits;
mod man;
mod memory;
mod messages;
mod model;
mod options;
mod output_file;
mod pace;
mod printer;
mod push;
mod room;
mod setup;
mod sweep;
mod system;
mod table;
mod task_figures;
mod verify;
mod writer;

use std::process::ExitCode;

use crate::arguments::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // What a decoder of a damaged file panics about becomes an error of its own.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !transmla_calib::is_contained() {
            report(panic);
        }
    }));
    // Wrong usage ends here, with exit code 2.
    let arguments = arguments::parse().unwrap_or_else(|error| former_options::with_tip(error).exit());
    match arguments.messages.settings() {
        Ok(settings) => messages::settle(settings),
        Err(error) => {
            printer::error(&error);
            return ExitCode::FAILURE;
        }
    }
    messages::begin();
    interrupt::listen();
    let result = match arguments.command {
        Command::Convert(options) => convert::run(&options),
        Command::Sweep(options) => sweep::run(&options),
        Command::Heal(options) => heal::run(&options),
        Command::Eval(options) => eval::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Export(options) => export::run(&options),
        Command::Logits(options) => logits::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Generate(options) => generate::run(&options),
        Command::Chat(options) => chat::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Push(options) => push::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Completions(options) => completions::run(&options, arguments::command()),
        Command::Man(options) => man::run(&options, arguments::command()),
    };
    interrupt::wait_if_ending();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has read enough (`transmla inspect … | head -1`).
        Err(error) if error.is::<printer::Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            printer::error(&error);
            ExitCode::FAILURE
        }
    }
}
