//! Benefits: a catalogue that lines contribute to, what members are granted of it, and its use, once.
//!
//! The units of a grant are available, reserved, used or lapsed, and their sum never changes. Each change is made under the member's lock
//! and by a conditional update, so that a unit is used once whichever process asks. Stock is taken where the grant is made, in one unit
//! of work; what expires or is withdrawn goes back to it only where the benefit says so.

mod by_rule;
mod by_tier;
mod catalogue;
mod clockwork;
mod exchange;
mod grant;
mod report;
mod usage;

pub use catalogue::{Benefit, BenefitState, BenefitStock, BenefitTerms, Every, TierBenefit};
pub use exchange::{Exchange, ExchangeView};
pub use grant::{BenefitGrant, GrantBenefit};
pub use report::BenefitFigures;
pub use usage::{BenefitUse, Reserve, UseBenefit};

pub(crate) use grant::erase;
