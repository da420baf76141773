//! Membership's promises at its door, on both databases.

mod benefits;
mod clearing;
mod debts;
mod earning;
mod imports;
mod joining;
mod logins;
mod members;
mod months;
mod refunds;
mod rules;
mod sessions;
mod statements;
mod walk;
mod worked_month;
mod world;
