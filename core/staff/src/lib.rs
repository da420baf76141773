//! Those who work for the group: log-in by OpenID Connect, and their sessions.
//!
//! Staff owns who has logged in (`staff_person`: an opaque id behind a keyed hash of what the provider calls the person; no name, no address),
//! the states of log-ins that were used up (`staff_used_state`), and what the provider told of log-outs (`staff_seen_log_out`,
//! `staff_provider_session`, keyed hashes as well). It promises that nobody is let in but whom the provider of the settings vouches for in a
//! token that was asked for by this very log-in, that a state, a code and a log-out token count once in all processes, that what somebody may
//! do comes from the settings and is never more than they say, that a log-out at the provider ends the sessions that came of it, also one
//! that is being opened, and that each log-in, each refusal with its reason and each end of a session stands in the audit record.
//! The sessions themselves are the kernel's, as those of members are. It emits nothing and reacts to nothing.

mod claims;
mod housekeeping;
mod http;
mod log_in;
mod log_out_token;
mod migration;
mod problem;
mod provider;
mod refusal;
mod refusals;
mod settings;
pub mod simulator;
mod ticket;

pub use housekeeping::Housekeeping;
pub use http::routes;
pub use log_in::{Begun, Finish, LoggedIn, StaffLogin};
pub use migration::Migrator;
pub use problem::codes;
pub use settings::{Grant, RolesFrom, StaffSettings};
