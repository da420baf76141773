//! A guard against waiting for the world while a write transaction is open.

use std::future::Future;

tokio::task_local! {
    static UNIT: &'static str;
}

/// Runs a unit of work's future with the guard raised.
pub(crate) async fn inside_unit<F: Future>(name: &'static str, future: F) -> F::Output {
    UNIT.scope(name, future).await
}

/// Declares that what follows (a plugin call, a lake query, a network call, another write) may take long.
///
/// # Panics
/// Inside a unit of work: that would hold the writer, and is always our own bug.
pub fn outside_unit(what: &str) {
    if let Ok(unit) = UNIT.try_with(|name| *name) {
        panic!("{what} was started inside the unit of work {unit}");
    }
}
