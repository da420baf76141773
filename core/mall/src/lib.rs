//! heyuan-mall
