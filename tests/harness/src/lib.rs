//! heyuan-harness
