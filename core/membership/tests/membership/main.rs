//! Membership's promises at its door, on both databases.

mod adjustments;
mod benefits;
mod breakage;
mod cells;
mod checklist;
mod clearing;
mod corrections;
mod debts;
mod earning;
mod exchanges;
mod holds;
mod exports;
mod imports;
mod joining;
mod logins;
mod members;
mod months;
mod notices;
mod refunds;
mod rules;
mod sessions;
mod statements;
mod transfers;
mod walk;
mod worked_month;
mod world;
