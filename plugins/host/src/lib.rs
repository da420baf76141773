//! Runs the plugins of a tenant: a few kinds of sandboxed components, each call in a fresh instance and within limits.
//!
//! It owns compilation, the store of compiled code, and the worlds of `plugins/wit`; it is the only crate that names wasmtime.
//! It promises that a plugin sees nothing but its declared input, that the same input gives the same output bytes, that every
//! call is bounded in time, memory, output and log, and that a failing call costs itself alone. It knows no database, no
//! versions and no approvals: a plugin is its digest, and callers decide which digest is in force.

mod benefit;
mod beside;
mod cache;
mod call;
mod compile;
mod config;
mod description;
mod digest;
mod engine;
mod error;
mod fixture;
mod host;
mod isolate;
mod tagger;
mod worlds;

pub mod bench;

pub use benefit::{BenefitInput, BenefitRule, Change, Decision, Effect, FeatureValue, LocalTime, Member, OrderLines, Ratio, Transaction};
pub use beside::serve_compiler;
pub use compile::compile_worker;
pub use config::{CompilerCommand, HostConfig, Limits};
pub use description::{BenefitRuleDescription, Description, EffectKind, Feature, FeatureKind, InputPart, Tag, TagKind, TaggerDescription};
pub use digest::{Digest, ParseDigestError};
pub use error::{CallError, Error, Stop};
pub use fixture::{CaseResult, Difference, FixtureError};
pub use host::Host;
pub use isolate::{FailedRow, IsolatedAnswer};
pub use tagger::{Bits, NumberColumn, TagColumn, TagValue, Tagger, TaggerAnswer, TaggerBatch, TextColumn};
