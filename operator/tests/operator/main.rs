//! The operator against a real API server, real controllers and a real PostgreSQL; pods' answers are played.

mod crash;
mod ground;
mod life;
mod limits;
mod manual;
mod refusals;
mod strangers;
