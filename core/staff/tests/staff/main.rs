//! Staff at its door, on both databases, against a provider that misbehaves.

mod log_ins;
mod log_outs;
mod sessions;
mod userinfo;
mod world;
mod wrong_tokens;
