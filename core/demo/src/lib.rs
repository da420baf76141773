//! heyuan-demo
