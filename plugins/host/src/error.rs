//! What can go wrong while a plugin is taken in, and while it is called.

use std::{io, path::PathBuf};

use crate::Digest;

/// Taking in, finding or describing a plugin failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the host's configuration is refused: {0}")]
    Config(String),
    #[error("the upload is no component: {0}")]
    NotAComponent(&'static str),
    #[error("the component has {bytes} bytes, {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error("compile plugin {digest}: {message}")]
    Compile { digest: Digest, message: String },
    /// Not the plugin's fault by itself: the compiler ran out of time, memory or output, or could not start.
    #[error("the compiler of plugin {digest} was stopped: {message}")]
    CompilerStopped { digest: Digest, message: String },
    /// The plugin's own fault: no Rust plugin of the allowed size comes near these limits.
    #[error("compile plugin {digest}: it is too costly to compile: {message}")]
    TooCostly { digest: Digest, message: String },
    #[error("plugin {digest} imports {import}, but a plugin may import only {allowed}")]
    Import { digest: Digest, import: String, allowed: &'static str },
    #[error("plugin {digest} fits no world: {message}")]
    World { digest: Digest, message: String },
    #[error("plugin {digest} describes itself wrongly: {message}")]
    Description { digest: Digest, message: String },
    #[error("ask plugin {digest} to describe itself")]
    Describe { digest: Digest, source: CallError },
    #[error("plugin {0} is not installed")]
    NotInstalled(Digest),
    #[error("plugin {digest} is a {is}, not a {wanted}")]
    Kind { digest: Digest, is: &'static str, wanted: &'static str },
    #[error("compiled code at {path} is not ours")]
    Tampered { path: PathBuf },
    #[error("{doing} {path}")]
    Store { doing: &'static str, path: PathBuf, source: io::Error },
}

/// Why a call was stopped. None of these is a decision: nothing may follow from the call, and it may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("it used up its fuel")]
    Fuel,
    #[error("it ran past its deadline")]
    Deadline,
    #[error("it used up its stack")]
    Stack,
    #[error("it asked for more memory than it may have")]
    Memory,
    #[error("as many calls as may run were running")]
    Busy,
}

/// A call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    #[error("the plugin was stopped: {stop}")]
    Stopped { stop: Stop, log: String },
    /// The guest broke off; the message is its last log line (a panic's message) where it left one.
    #[error("the plugin broke off: {message}")]
    Trapped { message: String, log: String },
    /// The guest answered an error of its own.
    #[error("the plugin answered an error: {message}")]
    Guest { message: String, log: String },
    #[error("the plugin's answer is larger than {max} bytes")]
    OutputTooLarge { max: usize, log: String },
    /// The answer is not what the plugin declared or the world allows.
    #[error("the plugin's answer is refused: {message}")]
    InvalidAnswer { message: String, log: String },
    /// The caller's input does not fit the plugin's description or is not canonical.
    #[error("the input is refused: {0}")]
    InvalidInput(String),
    /// The engine failed in a way that has no better name.
    #[error("the plugin engine failed: {0}")]
    Engine(String),
}

impl CallError {
    /// True when the call was stopped from outside, so that it is no decision and may be tried again.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }

    /// What happened, in words of the host alone: the other texts may hold the guest's, and with them what it was told of people.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Stopped { stop: Stop::Fuel, .. } => "stopped: fuel",
            Self::Stopped { stop: Stop::Deadline, .. } => "stopped: deadline",
            Self::Stopped { stop: Stop::Stack, .. } => "stopped: stack",
            Self::Stopped { stop: Stop::Memory, .. } => "stopped: memory",
            Self::Stopped { stop: Stop::Busy, .. } => "stopped: busy",
            Self::Trapped { .. } => "broke off",
            Self::Guest { .. } => "answered an error",
            Self::OutputTooLarge { .. } => "answer too large",
            Self::InvalidAnswer { .. } => "answer refused",
            Self::InvalidInput(_) => "input refused",
            Self::Engine(_) => "engine failed",
        }
    }

    /// What the plugin logged before it failed.
    pub fn log(&self) -> &str {
        match self {
            Self::Stopped { log, .. }
            | Self::Trapped { log, .. }
            | Self::Guest { log, .. }
            | Self::OutputTooLarge { log, .. }
            | Self::InvalidAnswer { log, .. } => log,
            Self::InvalidInput(_) | Self::Engine(_) => "",
        }
    }

    /// Whether one row of a batch may be to blame, so that it is worth looking for.
    pub(crate) fn may_be_one_row(&self) -> bool {
        !matches!(self, Self::Stopped { stop: Stop::Busy, .. } | Self::InvalidInput(_) | Self::Engine(_))
    }
}
