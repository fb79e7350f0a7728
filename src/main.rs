//! The program: an allocator and an exit code.

use std::process::ExitCode;

/// Batches are freed by other threads than those that made them, which glibc does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    metrifold::cli::main()
}
