//! heyuan-it
