//! Who is who: identifiers as nodes, observations as edges, and customers as a pure function of them.

pub(crate) mod change;
pub(crate) mod identifier;
pub(crate) mod plan;
pub mod resolve;
pub(crate) mod rules;
pub(crate) mod sealing;
pub(crate) mod store;

pub use identifier::{Identifier, Kind};
pub use resolve::{Edge, Node, Resolution, resolve};
pub use rules::Rules;
