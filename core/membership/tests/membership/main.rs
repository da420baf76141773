//! Membership's promises at its door, on both databases.

mod benefits;
mod breakage;
mod cells;
mod checklist;
mod clearing;
mod corrections;
mod debts;
mod earning;
mod exports;
mod imports;
mod joining;
mod members;
mod months;
mod refunds;
mod rules;
mod statements;
mod walk;
mod worked_month;
mod world;
