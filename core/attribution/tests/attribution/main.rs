//! Attribution at its door, on both databases.

mod leads;
mod reports;
mod spend;
mod world;
