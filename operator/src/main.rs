//! The `heyuan-operator` binary.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Objects are many short-lived pieces, made on one thread and dropped on another; what is free goes back to the system.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    heyuan_operator::main()
}
