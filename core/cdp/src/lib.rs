//! heyuan-cdp
