//! heyuan-server
