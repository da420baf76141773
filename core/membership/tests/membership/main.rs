//! Membership's promises at its door, on both databases.

mod clearing;
mod joining;
mod months;
mod refunds;
mod rules;
mod walk;
mod world;
