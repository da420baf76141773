//! The mall at its door, on both databases, and beside a payment gateway that misbehaves.

mod gateway;
mod http;
mod points;
mod use_cases;
mod world;
