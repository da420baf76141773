//! Attribution: what advertising money bought, from the click to the signed contract.
//!
//! It owns the `attribution_` tables: spend as platforms report it, touchpoints, leads and their stages. It promises that a broken
//! row of a spend file harms no other row and that a file imported again counts once; that every result's credit adds up to one,
//! exactly, in every model; that totals of a report equal its rows; and that each report states its conventions. It emits
//! `lead.advanced.v1`, and reacts to `campaign.touched.v1` (touchpoints) and `customer.erased.v1` (what remains are anonymous
//! counts). It holds anchors, never a phone number.

mod credit;
mod error;
mod full_chain;
mod http;
mod leads;
pub mod migration;
mod reaction;
mod report;
mod spend;
mod spend_file;
mod tally;
mod tasks;
mod wing;

pub use credit::{MILLION, Model, Step, credit};
pub use error::{Error, codes};
pub use http::routes;
pub use leads::{Advance, Lead, LeadList, LeadReached, SubmitLead};
pub use report::{Basis, Cost, Counts, FullChain, GroupBy, ReportQuery, ReportRow};
pub use spend::{ImportSpend, Imported, PlanUnit};
pub use spend_file::{Platform, SpendFile, SpendRow, parse as parse_spend_file};
pub use wing::{Attribution, Customers};
