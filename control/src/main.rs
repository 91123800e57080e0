//! The binary `jetway`.

use std::process::ExitCode;

use jetway_engine::heap::HugePageHeap;

#[global_allocator]
static HEAP: HugePageHeap = HugePageHeap;

fn main() -> ExitCode {
    jetway::cli::main(jetway::run::run)
}
