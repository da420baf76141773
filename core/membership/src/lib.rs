//! heyuan-membership
