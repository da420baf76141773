//! What can go wrong in membership, and what a caller hears of it.

use crate::checklist::NotReady;
use heyuan_kernel::{Code, Failure, Problem};

/// Membership's stable codes.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// An identifier that the app has not verified.
    pub const UNVERIFIED_IDENTIFIER: Code = Code::new(
        Kind::Invalid,
        "unverified_identifier",
        "Only verified identifiers make or name a member",
        "标识未经验证，不能用于入会或指认会员",
    );
    /// No member behind what was given.
    pub const UNKNOWN_MEMBER: Code = Code::new(Kind::NotFound, "unknown_member", "There is no such member", "会员不存在");
    /// The member left or was erased.
    pub const MEMBER_CLOSED: Code = Code::new(Kind::Conflict, "member_closed", "The membership has ended", "会员资格已终止");
    /// The member is on the blacklist.
    pub const MEMBER_BLOCKED: Code = Code::new(
        Kind::Conflict,
        "member_blocked",
        "The member is blocked and neither earns nor spends",
        "会员已被列入黑名单，不能积分和用分",
    );
    /// A linked member is on the blacklist, so that the person is not erased.
    pub const LINKED_MEMBER_BLOCKED: Code = Code::new(
        Kind::Conflict,
        "linked_member_blocked",
        "Another member of the same person is blocked",
        "同一人的另一会员已被列入黑名单",
    );
    /// Points of the member are set aside for an open order.
    pub const MEMBER_HAS_HOLDS: Code =
        Code::new(Kind::Conflict, "member_has_holds", "Points of the member are held for an open order", "会员有未完成订单冻结的积分");
    /// They pay an order of the mall, which alone spends them, frees them or gives them back.
    pub const POINTS_OF_ORDER: Code =
        Code::new(Kind::Conflict, "points_of_order", "The points pay an order of the mall", "该积分用于商城订单，只能随订单处理");
    /// Another member has the line's account.
    pub const ACCOUNT_TAKEN: Code =
        Code::new(Kind::Conflict, "account_taken", "The line's account belongs to another member", "该业态账号已关联其他会员");
    /// The line's account of the member was linked by a unit that the key does not reach.
    pub const ACCOUNT_ELSEWHERE: Code = Code::new(
        Kind::Conflict,
        "account_elsewhere",
        "Another unit linked the member's account of this line",
        "该业态账号由其他项目关联，不可替换",
    );
    /// The id was reported before with other content.
    pub const TRANSACTION_ID_REUSED: Code =
        Code::new(Kind::Conflict, "transaction_id_reused", "The transaction id was reported with other content", "交易号已用于其他交易");
    /// More than what is left of the purchase.
    pub const REFUND_TOO_LARGE: Code =
        Code::new(Kind::Conflict, "refund_too_large", "The refund is larger than what is left of the purchase", "退款金额超过可退金额");
    /// A refund of somebody else's purchase, or of a refund.
    pub const REFUND_MISMATCH: Code =
        Code::new(Kind::Conflict, "refund_mismatch", "The refund does not fit the transaction that it names", "退款与原交易不符");
    /// Another currency than the one that is settled.
    pub const UNKNOWN_CURRENCY: Code = Code::new(Kind::Invalid, "unknown_currency", "The currency is not settled here", "不支持该币种");
    /// Zero, negative, or beyond what is settled.
    pub const AMOUNT_OUT_OF_RANGE: Code =
        Code::new(Kind::Invalid, "amount_out_of_range", "The amount is outside what can be posted", "金额超出范围");
    /// An own time ahead of the clock, or before what may be reported.
    pub const TIME_OUT_OF_RANGE: Code =
        Code::new(Kind::Invalid, "time_out_of_range", "The time is outside what may be reported", "时间超出可上报范围");
    /// Fewer points than asked for.
    pub const NOT_ENOUGH_POINTS: Code = Code::new(Kind::Conflict, "not_enough_points", "The member has fewer points than that", "积分不足");
    /// More than what is left of the spend.
    pub const RETURN_TOO_LARGE: Code =
        Code::new(Kind::Conflict, "return_too_large", "More is given back than is left of the spend", "退回积分超过可退数量");
    /// The policy lets nobody, or not these two, transfer points.
    pub const TRANSFER_NOT_ALLOWED: Code =
        Code::new(Kind::Conflict, "transfer_not_allowed", "Points can't be transferred between these members", "积分不可在该会员间转赠");
    /// More than the policy lets one transfer hold, or one member transfer in a day or a month.
    pub const TRANSFER_LIMIT: Code =
        Code::new(Kind::Conflict, "transfer_limit", "More points than one member may transfer", "超出积分转赠限额");
    /// Whoever proposed it can't decide about it, also not with another key of theirs.
    pub const FOUR_EYES: Code =
        Code::new(Kind::Forbidden, "four_eyes", "Somebody else than who proposed it must decide", "须由提议人以外的人员审批");
    /// Approved, rejected or lapsed.
    pub const ADJUSTMENT_DECIDED: Code =
        Code::new(Kind::Conflict, "adjustment_decided", "The adjustment has been decided already", "积分调整已处理");
    /// A benefit that is not given for points.
    pub const BENEFIT_WITHOUT_PRICE: Code =
        Code::new(Kind::Conflict, "benefit_without_price", "The benefit is not given for points", "该权益不支持积分兑换");
    /// The benefit costs something else than the caller says.
    pub const PRICE_CHANGED: Code =
        Code::new(Kind::Conflict, "price_changed", "The benefit has another price in points now", "该权益的积分价格已变更");
    /// A rule ran out of fuel, time or memory: nothing was posted, try again.
    pub const RULE_STOPPED: Code =
        Code::new(Kind::Unavailable, "rule_stopped", "A benefit rule was stopped; nothing was posted", "权益规则被中止，未入账");
    /// A rule trapped or refused: nothing was posted, try again when it is mended.
    pub const RULE_FAILED: Code =
        Code::new(Kind::Unavailable, "rule_failed", "A benefit rule failed; nothing was posted", "权益规则执行失败，未入账");
    /// No such benefit, or none that the key may see.
    pub const UNKNOWN_BENEFIT: Code = Code::new(Kind::NotFound, "unknown_benefit", "There is no such benefit", "权益不存在");
    /// No such grant of the member.
    pub const UNKNOWN_BENEFIT_GRANT: Code =
        Code::new(Kind::NotFound, "unknown_benefit_grant", "The member was not granted that", "会员没有该权益发放记录");
    /// No such reservation, or none that the key may see.
    pub const UNKNOWN_BENEFIT_RESERVATION: Code =
        Code::new(Kind::NotFound, "unknown_benefit_reservation", "There is no such reservation", "权益预约不存在");
    /// A draft, or retired.
    pub const BENEFIT_NOT_ACTIVE: Code =
        Code::new(Kind::Conflict, "benefit_not_active", "The benefit is not granted now", "权益当前不可发放");
    /// The stock of the month or in all has less.
    pub const BENEFIT_OUT_OF_STOCK: Code =
        Code::new(Kind::Conflict, "benefit_out_of_stock", "Fewer units of the benefit are left than that", "权益库存不足");
    /// More units than the grant has left.
    pub const BENEFIT_TOO_FEW: Code =
        Code::new(Kind::Conflict, "benefit_too_few", "The grant has fewer units left than that", "权益剩余数量不足");
    /// The reservation was used before.
    pub const BENEFIT_USED: Code = Code::new(Kind::Conflict, "benefit_used", "The benefit was used already", "权益已被使用");
    /// Past its time, given back or withdrawn.
    pub const BENEFIT_EXPIRED: Code = Code::new(Kind::Conflict, "benefit_expired", "The benefit can no longer be used", "权益已失效");
    /// At a unit of a line that does not honour it.
    pub const BENEFIT_ELSEWHERE: Code =
        Code::new(Kind::Conflict, "benefit_elsewhere", "The benefit is used with another line", "该权益不能在此业态使用");
    /// More refunds than one purchase is waited for with.
    pub const TOO_MANY_WAITING: Code =
        Code::new(Kind::Conflict, "too_many_waiting", "Too many refunds wait for this purchase", "等待该交易的退款过多");
    /// The statement stands otherwise than what is said to it needs.
    pub const STATEMENT_STATE: Code =
        Code::new(Kind::Conflict, "statement_state", "The statement can't take this now", "结算单当前状态不允许该操作");
    /// A code of a platform's log-in that the platform refuses.
    pub const LOGIN_CODE_REFUSED: Code = Code::new(
        Kind::Invalid,
        "login_code_refused",
        "The log-in code is not known, was used or has expired",
        "登录凭证无效、已使用或已过期",
    );
    /// A code sent to a phone that is not the one.
    pub const PHONE_CODE_REFUSED: Code =
        Code::new(Kind::Invalid, "phone_code_refused", "The phone code is wrong, was used or has expired", "验证码错误、已使用或已过期");
    /// Nobody who sends codes is set up.
    pub const NO_SMS_PROVIDER: Code =
        Code::new(Kind::Conflict, "no_sms_provider", "No provider is set up that sends phone codes", "未配置短信服务");
    /// The period can't be closed yet.
    pub const PERIOD_NOT_OVER: Code = Code::new(Kind::Conflict, "period_not_over", "The period can't be closed yet", "该期间尚不能关账");

    /// The check list of the close is against it.
    pub const PERIOD_NOT_READY: Code =
        Code::new(Kind::Conflict, "period_not_ready", "The check list of the period is against a close", "该期间未通过关账检查");
    /// The correction was decided otherwise.
    pub const CORRECTION_STATE: Code =
        Code::new(Kind::Conflict, "correction_state", "The correction was decided already", "更正已有处理结果");

    /// Every code of membership.
    pub const ALL: &[Code] = &[
        UNVERIFIED_IDENTIFIER,
        UNKNOWN_MEMBER,
        MEMBER_CLOSED,
        MEMBER_BLOCKED,
        LINKED_MEMBER_BLOCKED,
        MEMBER_HAS_HOLDS,
        POINTS_OF_ORDER,
        ACCOUNT_TAKEN,
        ACCOUNT_ELSEWHERE,
        TRANSACTION_ID_REUSED,
        REFUND_TOO_LARGE,
        REFUND_MISMATCH,
        TOO_MANY_WAITING,
        UNKNOWN_CURRENCY,
        AMOUNT_OUT_OF_RANGE,
        TIME_OUT_OF_RANGE,
        NOT_ENOUGH_POINTS,
        RETURN_TOO_LARGE,
        TRANSFER_NOT_ALLOWED,
        TRANSFER_LIMIT,
        FOUR_EYES,
        ADJUSTMENT_DECIDED,
        BENEFIT_WITHOUT_PRICE,
        PRICE_CHANGED,
        RULE_STOPPED,
        RULE_FAILED,
        UNKNOWN_BENEFIT,
        UNKNOWN_BENEFIT_GRANT,
        UNKNOWN_BENEFIT_RESERVATION,
        BENEFIT_NOT_ACTIVE,
        BENEFIT_OUT_OF_STOCK,
        BENEFIT_TOO_FEW,
        BENEFIT_USED,
        BENEFIT_EXPIRED,
        BENEFIT_ELSEWHERE,
        STATEMENT_STATE,
        LOGIN_CODE_REFUSED,
        PHONE_CODE_REFUSED,
        NO_SMS_PROVIDER,
        PERIOD_NOT_OVER,
        PERIOD_NOT_READY,
        CORRECTION_STATE,
    ];
}

/// Why a use case was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's: the database, races, and answers for the caller.
    #[error(transparent)]
    Kernel(#[from] heyuan_kernel::Error),
    /// The book's.
    #[error("could not post to the ledger")]
    Ledger(#[source] heyuan_ledger::Error),
    /// An answer for the caller.
    #[error("{0}")]
    Refused(Problem),
    /// The check list of a close is against it.
    #[error("{}", .0.problem)]
    NotReady(Box<NotReady>),
}

impl Error {
    /// A refusal with words about this very case.
    pub(crate) fn refused(code: Code, detail: impl Into<String>) -> Error {
        Error::Refused(Problem::new(code, detail))
    }

    /// What a reaction hands to the pump.
    pub(crate) fn into_kernel(self) -> heyuan_kernel::Error {
        match self {
            Error::Kernel(error) => error,
            other => heyuan_kernel::Error::Problem(other.into()),
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Refused(problem)
    }
}

impl From<heyuan_ledger::Error> for Error {
    fn from(error: heyuan_ledger::Error) -> Error {
        match error {
            heyuan_ledger::Error::Kernel(error) => Error::Kernel(error),
            other => Error::Ledger(other),
        }
    }
}

impl Failure for Error {
    fn kernel(&self) -> Option<&heyuan_kernel::Error> {
        match self {
            Error::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Kernel(error) => error.into(),
            Error::Ledger(error) => error.into(),
            Error::Refused(problem) => problem,
            Error::NotReady(not_ready) => not_ready.problem,
        }
    }
}
