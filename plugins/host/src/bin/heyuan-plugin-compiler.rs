//! The child that compiles, as a program of its own: for tests, and for containers that compile beside the server.

use std::process::ExitCode;

fn main() -> ExitCode {
    heyuan_plugin_host::compile_worker()
}
