//! The program: its allocator and its exit code.

use std::process::ExitCode;

/// Batches are freed by other threads than those that allocated them, which is slow in glibc.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    metrifold::cli::main()
}
