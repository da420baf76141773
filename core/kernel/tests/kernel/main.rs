//! The kernel's promises, on both databases.

mod credentials;
mod outbox;
mod tenant;
mod unit_of_work;
mod vault;
