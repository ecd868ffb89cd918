//! The `croupier` binary: an allocator and the command line.

use std::process::ExitCode;

/// Many small buffers from many threads: what mimalloc is for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    croupier_engine::cli::main(std::env::args_os())
}
