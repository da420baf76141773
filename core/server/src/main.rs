//! The `heyuan` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    heyuan_server::run()
}
