//! The mall: merchants, their goods and vouchers, orders, payments, redemption and refunds.
//!
//! It owns the `mall_` tables and promises: stock is reserved in the database, so no more is sold than is there, and is freed
//! exactly once when an order expires; a payment's notifications may come twice, in any order or late, and are applied once; a
//! voucher is redeemed once, at a counter of its unit; refunds add up to what was paid, to the fen and to the point. It emits
//! `order.paid.v1`, `order.expired.v1` (where points were set aside), `order.refunded.v1` and `voucher.redeemed.v1`, and reacts to
//! `voucher.granted.v1` by issuing the voucher. It holds member ids and no personal data. The crate also brings a [`simulator`] of a payment
//! gateway, for demos and tests.

mod catalogue;
mod error;
mod gateway;
mod http;
mod mall;
pub mod migration;
mod orders;
mod payments;
mod proration;
mod reaction;
mod records;
mod refunds;
mod settings;
mod settlement;
pub mod simulator;
mod tasks;
mod vouchers;

pub use catalogue::{Merchant, Product, ProductKind, PutMerchant, PutProduct, StockChange, StockLevel};
pub use error::{Error, codes};
pub use gateway::sign;
pub use http::routes;
pub use mall::{Mall, Members, PointsWanted};
pub use orders::{Checkout, CheckoutLine, OrderList, PlaceOrder};
pub use payments::Started;
pub use proration::prorate;
pub use records::{ByPoints, Order, OrderPart, Payment};
pub use refunds::{Refund, RefundPart, RefundRequest};
pub use settings::Settings;
pub use settlement::Statement;
pub use vouchers::{Redeem, Voucher, voucher_unit};
