//! Attribution's routes: a handler extracts, calls the facade, converts.

mod leads;
mod report;
mod spend;

use heyuan_contract::Fen;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// An amount of money.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MoneyBody {
    /// Integer fen, a hundredth of a yuan.
    #[schema(examples(12900))]
    amount: i64,
    /// `CNY`
    #[schema(examples("CNY"))]
    currency: String,
}

impl From<Fen> for MoneyBody {
    fn from(fen: Fen) -> MoneyBody {
        MoneyBody { amount: fen.0, currency: "CNY".into() }
    }
}

/// Registers attribution's routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(spend::import_spend)
        .service(spend::put_plan)
        .service(leads::submit_lead)
        .service(leads::list_leads)
        .service(leads::get_lead)
        .service(leads::advance_lead)
        .service(report::full_chain);
}
