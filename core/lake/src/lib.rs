//! heyuan-lake
