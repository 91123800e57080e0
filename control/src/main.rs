//! The binary `jetway`.

use std::process::ExitCode;

fn main() -> ExitCode {
    jetway::cli::main(jetway::run::run)
}
