//! The composition root: opens the rooms, wires them to each other, and serves them as one process.
//!
//! The server owns the command line, the settings, the routes that belong to no wing, and the implementations of the traits that
//! wings ask for. It is the only crate that knows every room. It promises that nothing is reachable before the process is ready,
//! that a stop loses nothing that was acknowledged, and that what a stranger reads (help, problems, the API page) is whole.

mod access;
mod admin;
mod at_rest;
mod books;
mod cli;
mod copies;
mod demo;
mod follow;
mod gateway;
#[cfg(test)]
mod growth;
mod health;
mod keyring;
mod metrics;
mod operator;
mod page;
mod patience;
mod place;
mod plugins;
#[cfg(test)]
mod recorded;
mod rooms;
mod sandbox;
mod serve;
mod settings;
mod tour;
mod usage;
mod watch;
mod wiring;

pub use cli::run;
