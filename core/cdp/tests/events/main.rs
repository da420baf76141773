//! Collecting, identifying and forgetting, at the wing's door, on both databases.

mod bounds;
mod collecting;
mod declaring;
mod ground;
mod identity;
mod knowing;
mod people;
mod sdks;
