//! heyuan-attribution
