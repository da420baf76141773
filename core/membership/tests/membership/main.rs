//! Membership's promises at its door, on both databases.

mod benefits;
mod clearing;
mod debts;
mod earning;
mod imports;
mod joining;
mod members;
mod months;
mod refunds;
mod rules;
mod statements;
mod tiers;
mod walk;
mod worked_month;
mod world;
