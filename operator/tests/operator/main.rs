//! The operator against a real API server, real controllers and a real PostgreSQL; pods' answers are played.

mod crash;
mod endings;
mod ground;
mod kept;
mod leaders;
mod life;
mod limits;
mod manual;
mod refusals;
mod strangers;
mod troubles;
mod whole;
