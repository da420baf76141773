//! Attribution at its door, on both databases.

mod http;
mod leads;
mod reports;
mod spend;
mod world;
