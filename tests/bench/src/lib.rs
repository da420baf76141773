//! heyuan-bench
