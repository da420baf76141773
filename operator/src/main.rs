//! The `heyuan-operator` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    heyuan_operator::main()
}
