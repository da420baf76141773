//! Staff at its door, on both databases, against a provider that misbehaves.

mod log_ins;
mod sessions;
mod world;
mod wrong_tokens;
