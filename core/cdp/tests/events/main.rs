//! Collecting, identifying and forgetting, at the wing's door, on both databases.

mod collecting;
mod ground;
mod identity;
mod knowing;
mod people;
