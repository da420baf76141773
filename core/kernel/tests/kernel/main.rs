//! The kernel's promises, on both databases.

mod audit;
mod credentials;
mod logins;
mod outbox;
mod plugins;
mod rest;
mod schema;
mod statistics;
mod tenant;
mod unit_of_work;
mod vault;
