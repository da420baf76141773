//! The ledger at its door, on both databases.

mod book;
mod gate;
mod ground;
