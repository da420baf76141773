//! What `heyuan` says of itself.

use std::process::Command;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_heyuan")).args(arguments).arg("--help").output().expect("heyuan runs");
    assert!(output.status.success(), "heyuan {arguments:?} --help failed");
    String::from_utf8(output.stdout).expect("help is text")
}

#[test]
fn every_command_explains_itself() {
    let top = help(&[]);
    for command in
        ["serve", "migrate", "keys", "demo", "tour", "ledger", "audit", "heads", "events", "simulator", "openapi", "compile-plugins"]
    {
        assert!(top.lines().any(|line| line.trim_start().starts_with(command)), "{command} is missing in:\n{top}");
        assert!(help(&[command]).contains("Usage:"), "heyuan {command} --help lacks its usage");
    }
    assert!(!top.contains("compile-plugin "), "the compiler's command is for the server alone");
}
