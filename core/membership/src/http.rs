//! Membership's routes: a handler extracts, calls the facade, converts.

mod adjustments;
mod benefits;
mod budgets;
mod cells;
mod checklist;
mod clearing;
mod corrections;
mod earn_rules;
mod earning;
mod exchanges;
mod export;
mod holds;
mod import;
mod members;
mod points;
mod reconcile;
mod sessions;
mod standing;
mod statements;
mod tiers;
mod transactions;
mod transfers;

use heyuan_kernel::Problem;
use std::str::FromStr;
use utoipa_actix_web::service_config::ServiceConfig;

/// Registers membership's routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(members::join)
        .service(members::get_member)
        .service(members::get_points)
        .service(sessions::log_in)
        .service(sessions::refresh_session)
        .service(sessions::revoke_session)
        .service(sessions::send_code)
        .service(sessions::list_sessions)
        .service(sessions::end_sessions)
        .service(sessions::end_session)
        .service(import::import_points)
        .service(import::get_import_errors)
        .service(standing::block)
        .service(standing::unblock)
        .service(standing::close)
        .service(standing::leave)
        .service(standing::link_account)
        .service(standing::list_accounts)
        .service(standing::reveal_accounts)
        .service(standing::unlink_account)
        .service(benefits::report_benefits)
        .service(benefits::put_benefit)
        .service(benefits::list_benefits)
        .service(benefits::get_benefit)
        .service(benefits::list_member_benefits)
        .service(benefits::grant_benefit)
        .service(benefits::list_reservations)
        .service(benefits::reserve_benefit)
        .service(benefits::use_benefit)
        .service(benefits::return_benefit)
        .service(benefits::use_reservation)
        .service(members::spend_points)
        .service(points::return_points)
        .service(holds::hold_points)
        .service(holds::list_holds)
        .service(holds::get_hold)
        .service(holds::capture_hold)
        .service(holds::release_hold)
        .service(transfers::put_points_policy)
        .service(transfers::get_points_policy)
        .service(transfers::transfer_points)
        .service(exchanges::exchange_points)
        .service(adjustments::propose_adjustment)
        .service(adjustments::list_adjustments)
        .service(adjustments::get_adjustment)
        .service(adjustments::approve_adjustment)
        .service(adjustments::reject_adjustment)
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
        .service(budgets::put_rule_budget)
        .service(budgets::get_rule_budget)
        .service(budgets::put_budget)
        .service(budgets::list_budgets)
        // Before what has a month in this place.
        .service(export::get_breakage)
        .service(corrections::list_corrections)
        .service(corrections::propose_correction)
        .service(corrections::get_correction)
        .service(corrections::approve_correction)
        .service(corrections::reject_correction)
        .service(clearing::get_clearing)
        .service(checklist::get_checklist)
        .service(checklist::close_period)
        .service(cells::list_steps)
        .service(cells::export_steps)
        .service(cells::get_lot)
        .service(export::export_clearing)
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
