//! Membership's promises at its door, on both databases.

mod clearing;
mod joining;
mod refunds;
mod rules;
mod walk;
mod world;
