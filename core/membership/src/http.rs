//! Membership's routes: a handler extracts, calls the facade, converts.

mod benefits;
mod clearing;
mod earning;
mod import;
mod members;
mod points;
mod reconcile;
mod standing;
mod statements;
mod tiers;
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
        .service(import::import_points)
        .service(import::get_import_errors)
        .service(standing::block)
        .service(standing::unblock)
        .service(standing::close)
        .service(standing::leave)
        .service(standing::link_account)
        .service(standing::list_accounts)
        .service(standing::unlink_account)
        .service(benefits::report_benefits)
        .service(benefits::put_benefit)
        .service(benefits::list_benefits)
        .service(benefits::get_benefit)
        .service(benefits::list_member_benefits)
        .service(benefits::grant_benefit)
        .service(benefits::reserve_benefit)
        .service(benefits::use_benefit)
        .service(benefits::return_benefit)
        .service(benefits::use_reservation)
        .service(members::spend_points)
        .service(points::return_points)
        .service(transactions::report_transaction)
        .service(transactions::quote_transaction)
        .service(transactions::get_transaction)
        .service(transactions::rerun_decision)
        .service(earning::put_earn_rules)
        .service(earning::list_earn_rules)
        .service(tiers::put_tier_policy)
        .service(tiers::list_tier_policies)
        .service(tiers::preview_tier_policy)
        .service(tiers::get_tier_policy)
        .service(tiers::grant_tier)
        .service(tiers::list_tier_grants)
        .service(tiers::revoke_tier)
        .service(clearing::put_budget)
        .service(clearing::get_clearing)
        .service(clearing::close_period)
        .service(statements::list_statements)
        .service(statements::confirm_statement)
        .service(statements::dispute_statement)
        .service(statements::answer_statement)
        .service(reconcile::reconcile);
}

/// An id from a path: what can't be one names nothing.
fn path_id<T: FromStr>(what: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::not_found(what, "of this id"))
}
