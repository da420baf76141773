//! heyuan-ledger
