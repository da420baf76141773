//! The mall's routes: a handler extracts, calls the facade, converts.

mod catalogue;
mod orders;
mod vouchers;

use heyuan_contract::{Fen, Ratio};
use heyuan_kernel::Problem;
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

impl MoneyBody {
    fn fen(&self, field: &str) -> Result<Fen, Problem> {
        if self.currency == "CNY" {
            Ok(Fen(self.amount))
        } else {
            Err(Problem::invalid(&format!("{field}.currency"), "expected CNY, the only currency settled"))
        }
    }
}

/// An exact ratio.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RatioBody {
    /// 0 or more.
    #[schema(examples(8))]
    numerator: i64,
    /// 1 or more.
    #[schema(examples(100))]
    denominator: i64,
}

impl From<Ratio> for RatioBody {
    fn from(ratio: Ratio) -> RatioBody {
        RatioBody { numerator: ratio.numerator(), denominator: ratio.denominator() }
    }
}

/// Registers the mall's routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(catalogue::put_merchant)
        .service(catalogue::list_merchants)
        .service(catalogue::get_merchant)
        .service(catalogue::get_statement)
        .service(catalogue::put_product)
        .service(catalogue::list_products)
        .service(catalogue::get_product)
        .service(catalogue::change_stock)
        .service(orders::place_order)
        .service(orders::list_orders)
        .service(orders::get_order)
        .service(orders::refund_order)
        .service(orders::list_refunds)
        .service(orders::get_payment)
        .service(orders::start_payment)
        .service(orders::receive_notification)
        .service(vouchers::list_vouchers)
        .service(vouchers::redeem_voucher);
}
