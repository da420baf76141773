//! The mall's settings, section `[mall]`.

use heyuan_kernel::config::Secret;
use serde::Deserialize;

/// What the mall is told at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the payment gateway listens, such as `http://127.0.0.1:8090`; without it no payment can be started.
    pub gateway_url: Option<String>,
    /// The secret shared with the gateway; without it every notification is refused.
    pub payment_secret: Option<Secret>,
    /// An order that is unpaid this long gives its stock back.
    pub order_expiry_minutes: u32,
    /// Points that pay a yuan; 0 when orders can't be paid with points.
    pub points_a_yuan: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        // A quarter of an hour, and a hundred points for a yuan, are what shoppers know from every mall app.
        Settings { gateway_url: None, payment_secret: None, order_expiry_minutes: 15, points_a_yuan: 100 }
    }
}
