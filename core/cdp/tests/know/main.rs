//! What is known of customers, on both databases: tags by event, by time, late and merged; segments, audiences, portraits, profiles.

mod definitions;
mod features;
mod place;
mod segments;
mod tags;
