//! Event history as Parquet files on an object store, catalogued in the database, asked by SQL.
//!
//! The lake owns the files, their catalogue and the watermark: the position up to which events are in files. It promises that a
//! reader sees every committed event exactly once, whether it still waits in the inbox (the [`Tail`]) or is in a file, because
//! catalogue, watermark and tail are read in one snapshot; that a file is durable before it is registered, and a crash in between
//! leaves nothing but a file that is swept away; that compaction changes no answer; and that a replaced file outlives every reader
//! and every [`Pin`]. A query is bounded in rows, bytes, memory and time, runs apart from everything else, and can only read.
//! Personal values never get here: files hold references and sealed bytes, so erasure destroys a key and rewrites no file. The
//! lake emits nothing and reacts to nothing: whoever owns the inbox calls [`Lake::flush`].

mod batch;
mod catalog;
mod compaction;
mod config;
mod error;
mod event;
mod functions;
mod history;
mod http;
mod isolation;
mod lake;
mod meters;
mod migration;
mod pin;
mod place;
mod query;
mod render;
mod scan;
mod store;
mod sweep;
mod table;

pub use config::LakeConfig;
pub use error::{Error, codes};
pub use event::{EventRow, Tail};
pub use http::routes;
pub use lake::Lake;
pub use migration::Migrator;
pub use pin::Pin;
pub use query::{Column, QueryOptions, Table};
pub use scan::{EventStream, Scan, ScanOrder};
