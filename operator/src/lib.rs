//! The operator of Heyuan: it turns a `Tenant` into a namespace with everything that a property group's platform needs, keeps it so, and
//! says in conditions what it sees, wants and waits for.
//!
//! It owns the objects that it makes and nothing else: what is foreign is never adopted, what holds data is never removed unless the spec
//! says so. It decides by pure functions over what it has seen (`decide`), and acts by steps that may be broken off and repeated anywhere
//! (`perform`). It links no room of a tenant: it speaks PostgreSQL as an ordinary client, and to a tenant's process over its operator port.

pub mod crd;
pub mod reason;

mod agree;
mod cli;
mod context;
#[doc(hidden)]
pub mod database;
mod decide;
mod doors;
mod explain;
mod glances;
mod kind;
mod kubernetes;
mod lately;
mod leader;
mod leftovers;
mod live;
mod master;
mod metrics;
mod name;
mod observe;
mod perform;
mod plugins;
mod pods;
mod reconcile;
mod render;
mod run;
mod telemetry;
mod tenant_api;
mod world;

pub use cli::{definitions, main, reasons};
