//! The ledger at its door, on both databases.

mod book;
mod carry;
mod gate;
mod ground;
mod holds;
mod model;
mod planted;
mod reports;
