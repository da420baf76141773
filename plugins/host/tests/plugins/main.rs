//! Plugins built from source, called through the door of the host.

mod determinism;
mod fixtures;
mod hostile;
mod install;
mod setup;
