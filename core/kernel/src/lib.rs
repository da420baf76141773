//! What every room of Heyuan stands on, and nothing that only one of them needs.
//!
//! The kernel owns who acts ([`actor`], [`keys`], [`org`]), the database and its unit of work ([`database`]), domain events on their
//! way ([`outbox`], [`pump`]), the one process that works in the background ([`processor`], [`lease`]), personal data ([`vault`]),
//! the sealed record of who did what ([`audit`], [`chain`]), idempotency, the shape of errors and of HTTP, time, telemetry,
//! configuration, and the register of plugins. It promises that a unit of work commits with its events or not at all, that a reader
//! of events never passes one that can still commit, that personal values stand in the vault alone, and that a sealed record is not
//! changed unseen. It emits nothing of its own and knows no wing.

pub mod actor;
pub mod audit;
pub mod bodies;
pub mod bulk;
pub mod chain;
pub mod config;
pub mod database;
pub mod desk;
pub mod error;
pub mod filter;
pub mod guard;
pub mod http;
pub mod idempotency;
pub mod keys;
pub mod lag;
pub mod lease;
pub mod migration;
mod notices;
pub mod org;
pub mod outbound;
pub mod outbox;
pub mod plugin;
mod postgres;
pub mod problems;
pub mod processor;
pub mod pump;
pub mod rest;
pub mod schema;
pub mod secret;
pub mod sql;
mod sql_state;
mod sqlite;
mod statistics;
pub mod stopping;
pub mod table;
pub mod telemetry;
pub mod text;
pub mod time;
mod units;
pub mod vault;
pub mod wake;
mod write_queue;

pub use actor::{Actor, Reach, Scope};
pub use database::{Database, Location, Tx};
pub use error::{Code, Error, Failure, Kind, Problem};
pub use postgres::Connections;
pub use time::{Clock, Rfc3339, Zone};
pub use vault::{Personal, Vault};

use heyuan_contract as contract;
use secret::TenantKeys;

/// What a wing is given at start.
#[derive(Clone)]
pub struct Kernel {
    /// The tenant's tables.
    pub db: Database,
    /// The clock that use cases read.
    pub clock: Clock,
    /// The tenant's time zone.
    pub zone: Zone,
    /// The group's tree.
    pub org: org::Org,
    /// Personal data.
    pub vault: Vault,
    /// Keys by purpose.
    pub keys: TenantKeys,
}

impl Kernel {
    /// Opens the kernel on a migrated database and checks the tenant key.
    ///
    /// # Errors
    /// [`Error::TenantKey`] when the key is not this tenant's, [`Error::Database`].
    pub async fn open(db: Database, keys: TenantKeys, clock: Clock, zone: Zone) -> Result<Kernel, Error> {
        keys.verify(&db).await?;
        let org = org::Org::load(db.clone()).await?;
        let vault = Vault::new(db.clone(), keys.clone());
        Ok(Kernel { db, clock, zone, org, vault, keys })
    }

    /// A fresh identifier: the prefix and a UUID of version 7, which sorts by time.
    ///
    /// # Panics
    /// Never: prefix and digits are always a valid identifier.
    pub fn new_id<T>(prefix: &str) -> T
    where
        T: std::str::FromStr<Err = contract::InvalidId>,
    {
        let text = format!("{prefix}_{}", uuid::Uuid::now_v7().simple());
        text.parse().expect("a prefix and hex digits are a valid identifier")
    }
}
