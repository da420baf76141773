//! One member for all lines: joining, tiers, earning, benefits, points, clearing.
//!
//! Membership owns members with their accounts at lines, the transactions that lines report, the decisions made about them, tiers, benefits,
//! points in use, opening balances, budgets of rules, log-in by WeChat and by phone, and the clearing of lines with the points centre and what
//! lines say to it. It promises that a transaction is posted once with everything that it earned or nothing, that a decision can be
//! explained and run again on the bytes that it was made with, that refunds end alike in whatever order and parts they come, that no member
//! spends a point twice and no rule grants one beyond its budget, that nobody is let in as a member but by what was proven to be that member's, and
//! that a closed period never changes. It emits `member.joined.v1`,
//! `transaction.posted.v1`, `tier.changed.v1`, `points.expiring.v1` and `voucher.granted.v1`. It reacts to `order.paid.v1`,
//! `order.expired.v1`, `order.refunded.v1` and `customer.erased.v1`.

mod adjustment;
mod benefit;
mod books;
mod breakage;
mod budget;
mod caps;
mod cells;
mod checklist;
mod clearing;
mod clock;
mod closed;
mod correction;
mod counter;
mod customers;
mod decide;
mod decision;
mod desk;
mod earn;
mod earning;
mod error;
mod explain;
mod export;
mod facade;
mod fraction;
mod give_back;
mod hold;
mod http;
mod import;
mod join;
mod leave;
mod link;
mod linked;
mod login;
mod look;
mod member;
mod migration;
mod missed;
mod notice;
mod opening;
mod order_points;
mod points;
mod points_policy;
mod policy;
mod post;
mod proof;
mod reaction;
mod reading;
mod reconcile;
mod reconciled;
mod recover;
mod refund;
mod report;
mod rule;
mod session;
mod settlement;
mod sheet;
mod standing;
mod tier;
mod transaction;
mod transfer;
mod versions;
mod vouchers;
mod waiting;

pub use adjustment::{Adjust, AdjustmentState, AdjustmentView, AdjustmentsOf};
pub use benefit::{
    Benefit, BenefitFigures, BenefitGrant, BenefitState, BenefitStock, BenefitTerms, BenefitUse, Every, Exchange, ExchangeView,
    GrantBenefit, Reserve, TierBenefit, UseBenefit,
};
pub use breakage::{Breakage, Expiring, NoEstimate, Outstanding, Share};
pub use budget::{Budget, BudgetView, Drawn, RuleBudget};
pub use caps::{Cap, CapSpan, Caps, Counted, Figure};
pub use cells::{Cell, CellPage, CellStep, Column, LotStory, MadeBy};
pub use checklist::{Check, CheckState, Checklist, ClosedBy, Closing, NotReady};
pub use clearing::{Clearing, ClearingCentre, ClearingLine, ClearingState, MatrixCell};
pub use clock::{Clockwork, Housekeeping};
pub use closed::{ClearingReport, verify_clearing};
pub use correction::{Amount, Correction, CorrectionFilter, CorrectionState, CorrectionView, Verdict};
pub use customers::{Customers, Features, Identifier};
pub use decide::Basis;
pub use decision::{Call, Decision, RerunCall, RerunReport, Wording};
pub use earn::{EarnRules, Earned, LineRule, Multiplier, Rates, When};
pub use error::{Error, codes};
pub use explain::{Explanation, explain};
pub use export::{Format, StepRows, Table};
pub use facade::Membership;
pub use give_back::GivenBack;
pub use hold::{HoldPoints, HoldState, HoldView};
pub use http::routes;
pub use import::{ImportOpenings, ImportedOpenings, LineSum};
pub use join::{Join, Joined, SessionFor};
pub use leave::Departure;
pub use link::{Link, LinkView};
pub use login::{AppKind, AppSettings, LogIn, Login, LoginSettings, Proof, SentCode, simulator};
pub use member::MemberView;
pub use migration::Migrator;
pub use missed::Missed;
pub use notice::NextExpiry;
pub use points::{Spend, SpendView, StatementLine};
pub use points_policy::{PointsPolicy, TransferAudience};
pub use reconcile::{Difference, Differing, Reconciliation};
pub use rule::{
    BenefitRules, Change, Effect, FeatureValue, LocalTime, OrderColumns, RuleAnswer, RuleError, RuleInput, RuleMember, RuleTransaction,
};
pub use settlement::{Answer, LineStatement, Say, StatementState};
pub use sheet::Language;
pub use standing::MemberState;
pub use tier::{
    GrantTier, TierDowngrade, TierGrant, TierLook, TierMeasure, TierMove, TierMover, TierPolicy, TierPreview, TierStanding, TierStep,
};
pub use transaction::{Kind as TransactionKind, Report, RuleEffect, State as TransactionState, TransactionView, Who};
pub use transfer::{TransferPoints, TransferView};
pub use vouchers::Vouchers;
