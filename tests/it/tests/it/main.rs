//! Heyuan from outside: one file a capability, each against real processes on both databases, and the rules of the tree.

mod bad_input;
mod beside;
mod bounds;
mod contract;
mod control_characters;
mod crash;
mod directions;
mod erasure;
mod faults;
mod harness;
mod history;
mod hostile_components;
mod identity;
mod keys;
mod plugins;
mod processor;
mod readme;
mod sdk;
mod shop;
mod siblings;
mod skeleton;
mod stop;
mod tail;
mod tidy;
mod walk;
