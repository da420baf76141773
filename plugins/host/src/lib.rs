//! heyuan-plugin-host
