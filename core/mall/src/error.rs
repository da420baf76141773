//! What the mall refuses, and the stable codes by which callers tell the refusals apart.

use heyuan_contract::{Fen, MoneyError, ProductId, VoucherId};
use heyuan_kernel as kernel;
use heyuan_kernel::error::codes as shared;
use heyuan_kernel::{Failure, Problem};

/// The mall's own codes.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// Less in stock than was asked for.
    pub const SOLD_OUT: Code = Code::new(Kind::Conflict, "sold_out", "There is not enough in stock", "库存不足");
    /// The signature of a payment notification is missing or wrong.
    pub const BAD_SIGNATURE: Code = Code::new(Kind::Forbidden, "bad_signature", "The signature is not valid", "签名无效");
    /// A payment notification names another amount than the payment's.
    pub const AMOUNT_MISMATCH: Code = Code::new(Kind::Conflict, "amount_mismatch", "The amount is not the payment's", "金额与支付单不符");
    /// A provider's event id came again with another body.
    pub const EVENT_REUSED: Code =
        Code::new(Kind::Conflict, "event_reused", "The event id came before with another body", "事件编号已用于其他内容");
    /// The payment can't be started any more.
    pub const PAYMENT_CLOSED: Code = Code::new(Kind::Conflict, "payment_closed", "The payment is closed", "支付单已关闭");
    /// No payment gateway is configured.
    pub const NO_GATEWAY: Code = Code::new(Kind::Conflict, "no_payment_gateway", "No payment gateway is set up", "未配置支付网关");
    /// The voucher was used before.
    pub const VOUCHER_REDEEMED: Code = Code::new(Kind::Conflict, "voucher_redeemed", "The voucher was redeemed before", "该券已核销");
    /// The voucher's last day has passed.
    pub const VOUCHER_EXPIRED: Code = Code::new(Kind::Conflict, "voucher_expired", "The voucher has expired", "该券已过期");
    /// The voucher was taken back by a refund.
    pub const VOUCHER_VOID: Code = Code::new(Kind::Conflict, "voucher_void", "The voucher was taken back", "该券已作废");
    /// The voucher belongs to another unit's counters.
    pub const WRONG_COUNTER: Code =
        Code::new(Kind::Conflict, "wrong_counter", "The voucher is not for this counter", "该券不适用于此核销点");
    /// The order is not paid.
    pub const NOT_PAID: Code = Code::new(Kind::Conflict, "order_not_paid", "The order is not paid", "订单未支付");
    /// More is to be refunded than is left.
    pub const NOTHING_LEFT: Code =
        Code::new(Kind::Conflict, "refund_exceeds_order", "The order has not that much left to refund", "可退数量不足");

    /// Every code of the mall.
    pub const ALL: &[Code] = &[
        SOLD_OUT,
        BAD_SIGNATURE,
        AMOUNT_MISMATCH,
        EVENT_REUSED,
        PAYMENT_CLOSED,
        NO_GATEWAY,
        VOUCHER_REDEEMED,
        VOUCHER_EXPIRED,
        VOUCHER_VOID,
        WRONG_COUNTER,
        NOT_PAID,
        NOTHING_LEFT,
    ];
}

/// What can go wrong in the mall.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's, or a problem for the caller.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Less in stock than was asked for.
    #[error("product {product} has fewer than {wanted} in stock")]
    SoldOut {
        /// The product.
        product: ProductId,
        /// How many were asked for.
        wanted: i64,
    },
    /// A notification without a valid signature.
    #[error("the notification's X-Signature is not the HMAC-SHA-256 of its body under the shared secret")]
    BadSignature,
    /// A notification with another amount.
    #[error("the notification names {told} fen for {reference}; it is recorded and changes nothing")]
    AmountMismatch {
        /// What the notification is about.
        reference: String,
        /// The amount it names.
        told: i64,
    },
    /// A provider's event id with another body.
    #[error("event {0} was received before with another body")]
    EventReused(String),
    /// A payment that is paid, expired or refunded.
    #[error("payment {payment} is {state}; only a created one can be started")]
    PaymentClosed {
        /// The payment.
        payment: String,
        /// Its state.
        state: String,
    },
    /// Nothing to pay at.
    #[error("set mall.gateway_url and mall.payment_secret to take payments")]
    NoGateway,
    /// A voucher that was used.
    #[error("voucher {0} was redeemed before; a voucher is used once")]
    VoucherRedeemed(VoucherId),
    /// A voucher past its last day.
    #[error("voucher {0} has expired")]
    VoucherExpired(VoucherId),
    /// A voucher that a refund took back.
    #[error("voucher {0} was taken back by a refund")]
    VoucherVoid(VoucherId),
    /// A voucher of another unit.
    #[error("voucher {0} is redeemed at the counters of another unit")]
    WrongCounter(VoucherId),
    /// A refund of an order that is not paid.
    #[error("order {order} is {state}; only a paid one can be refunded")]
    NotPaid {
        /// The order.
        order: String,
        /// Its state.
        state: String,
    },
    /// A refund of more than is left.
    #[error("of product {product} {left} can still be refunded; redeemed vouchers can't be")]
    NothingLeft {
        /// The product.
        product: String,
        /// Pieces that can still be refunded.
        left: i64,
    },
    /// A refund that would return nothing.
    #[error("nothing of order {0} is left to refund")]
    AllRefunded(String),
    /// Figures outside what fits.
    #[error("an amount overflows")]
    Money(#[from] MoneyError),
}

impl Failure for Error {
    fn kernel(&self) -> Option<&kernel::Error> {
        match self {
            Error::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Kernel(kernel::Error::Problem(problem))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let words = error.to_string();
        let code = match error {
            Error::Kernel(error) => return error.into(),
            Error::SoldOut { .. } => codes::SOLD_OUT,
            Error::BadSignature => codes::BAD_SIGNATURE,
            Error::AmountMismatch { .. } => codes::AMOUNT_MISMATCH,
            Error::EventReused(_) => codes::EVENT_REUSED,
            Error::PaymentClosed { .. } => codes::PAYMENT_CLOSED,
            Error::NoGateway => codes::NO_GATEWAY,
            Error::VoucherRedeemed(_) => codes::VOUCHER_REDEEMED,
            Error::VoucherExpired(_) => codes::VOUCHER_EXPIRED,
            Error::VoucherVoid(_) => codes::VOUCHER_VOID,
            Error::WrongCounter(_) => codes::WRONG_COUNTER,
            Error::NotPaid { .. } => codes::NOT_PAID,
            Error::NothingLeft { .. } | Error::AllRefunded(_) => codes::NOTHING_LEFT,
            Error::Money(_) => shared::INVALID_REQUEST,
        };
        Problem::new(code, words)
    }
}

/// A stored value that this release can't read.
pub(crate) fn corrupt(what: &'static str, why: impl ToString) -> Error {
    Error::Kernel(kernel::Error::Corrupt { what, why: why.to_string() })
}

/// Refuses a negative amount, or one beyond what a book adds up safely.
pub(crate) fn check_amount(field: &str, amount: Fen, most: i64) -> Result<(), Problem> {
    if (0..=most).contains(&amount.0) { Ok(()) } else { Err(Problem::invalid(field, format!("expected 0 to {most} fen"))) }
}
