//! The lake at its door, on both databases: every event exactly once, in files or not, whatever happens in between.

mod files;
mod house;
mod query;
mod snapshot;
