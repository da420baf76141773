//! heyuan-kernel
