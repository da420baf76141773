//! Membership's promises at its door, on both databases.

mod adjustments;
mod benefits;
mod clearing;
mod debts;
mod earning;
mod exchanges;
mod holds;
mod imports;
mod joining;
mod members;
mod months;
mod notices;
mod refunds;
mod rules;
mod statements;
mod transfers;
mod walk;
mod worked_month;
mod world;
