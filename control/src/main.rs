//! The binary `jetway`.

use std::process::ExitCode;

/// The engine is not linked into this build.
#[derive(Debug, thiserror::Error)]
#[error("the engine is not linked into this build")]
struct NoEngine;

fn main() -> ExitCode {
    jetway::cli::main(|_request| Err(NoEngine))
}
