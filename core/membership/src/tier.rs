//! Tiers: a pure function of growth history, versions of the policy, grants by hand and time.
//!
//! `policy.rs` says what a version of the ladder is, `replay.rs` is the function, with its rules. `settle.rs` keeps the stored tier equal
//! to it, `versions.rs` takes new versions, `preview.rs` says who would move under one, `grant.rs` gives a tier by hand.

mod grant;
mod history;
mod policy;
mod preview;
mod replay;
mod settle;
#[cfg(test)]
mod tests;
mod versions;

pub use grant::{GrantTier, TierGrant};
pub use policy::{TierDowngrade, TierLook, TierMeasure, TierPolicy, TierStep};
pub use preview::{TierMove, TierMover, TierPreview};
pub use settle::TierStanding;

pub(crate) use grant::{end_all, erase};
pub(crate) use policy::in_force;
pub(crate) use settle::Rung;
