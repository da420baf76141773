//! The `heyuan` binary.
fn main() {}
