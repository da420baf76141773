//! Membership's routes: a handler extracts, calls the facade, converts.

mod clearing;
mod members;
mod reconcile;
mod transactions;

use heyuan_kernel::Problem;
use std::str::FromStr;
use utoipa_actix_web::service_config::ServiceConfig;

/// Registers membership's routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(members::join)
        .service(members::get_member)
        .service(members::get_points)
        .service(members::spend_points)
        .service(transactions::report_transaction)
        .service(transactions::quote_transaction)
        .service(transactions::get_transaction)
        .service(transactions::rerun_decision)
        .service(clearing::put_budget)
        .service(clearing::get_clearing)
        .service(clearing::close_period)
        .service(reconcile::reconcile);
}

/// An id from a path: what can't be one names nothing.
fn path_id<T: FromStr>(what: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::not_found(what, "of this id"))
}
