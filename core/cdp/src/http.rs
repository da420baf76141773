//! The wing's routes.

mod collect;
mod customers;
mod event_types;
mod events;

use utoipa_actix_web::service_config::ServiceConfig;

/// Adds the routes of collecting and of customers; those of features, tags and segments are [`crate::know::http::routes`].
pub fn routes(config: &mut ServiceConfig<'_>) {
    collect::routes(config);
    events::routes(config);
    event_types::routes(config);
    customers::routes(config);
}
