//! Domain events: the facts that cross from one wing to another through the outbox, and on into the lake.

use crate::{
    AnchorId, CustomerId, Fen, LeadId, Line, MemberId, MerchantId, OrderId, OrgUnitId, Points, ProductId, SegmentId, TagName, Timestamp,
    TransactionId, VoucherId,
};
use serde::{Deserialize, Serialize};

/// Why a derived fact changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Something that the customer did.
    Event,
    /// Only time passed.
    Time,
    /// An event that arrived long after it happened.
    Late,
    /// Customers were found to be one.
    Merge,
    /// Customers were found to be several.
    Unmerge,
    /// The rule itself changed.
    Redefined,
}

/// The stages of a lead (线索 → 邀约 → 到访 → 认筹 → 签约), and its cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeadStage {
    /// 线索
    Lead,
    /// 邀约
    Invited,
    /// 到访
    Visited,
    /// 认筹
    Subscribed,
    /// 签约
    Contracted,
    /// 退房 or 退筹: takes a subscription or a contract back.
    Cancelled,
}

impl LeadStage {
    /// Every stage, in the order of the funnel.
    pub const ALL: [LeadStage; 6] =
        [LeadStage::Lead, LeadStage::Invited, LeadStage::Visited, LeadStage::Subscribed, LeadStage::Contracted, LeadStage::Cancelled];

    /// The spelling used in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            LeadStage::Lead => "lead",
            LeadStage::Invited => "invited",
            LeadStage::Visited => "visited",
            LeadStage::Subscribed => "subscribed",
            LeadStage::Contracted => "contracted",
            LeadStage::Cancelled => "cancelled",
        }
    }

    /// The stage with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<LeadStage> {
        LeadStage::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// What brought a visitor: UTM parameters and a platform's click id, as the landing page carried them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// `utm_source`
    pub source: Option<String>,
    /// `utm_medium`
    pub medium: Option<String>,
    /// `utm_campaign`; by the house rule the platform's plan id.
    pub campaign: Option<String>,
    /// `utm_content`; by the house rule the creative.
    pub content: Option<String>,
    /// `utm_term`
    pub term: Option<String>,
    /// The platform that the click id belongs to: `ocean_engine`, `tencent_ads` or `baidu`.
    pub platform: Option<String>,
    /// The platform's click id.
    pub click_id: Option<String>,
}

/// A line of an order or of a reported transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// The seller's code of the article, a product id in the mall.
    pub sku: String,
    /// The category by which rules speak of it.
    pub category: String,
    /// Pieces, at least one.
    pub quantity: i64,
    /// What was paid for the whole line after discounts.
    pub amount: Fen,
}

/// What of an order is paid with points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPoints {
    /// The hold that set them aside when the order was placed.
    pub hold: String,
    /// How many.
    pub points: Points,
}

/// A fact of one wing that others may react to; the tag is its name and version for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum DomainEvent {
    /// A visit that an ad or a campaign brought.
    #[serde(rename = "campaign.touched.v1")]
    CampaignTouched { anchor: AnchorId, message_id: String, unit: Option<OrgUnitId>, touch: Touch, occurred_at: Timestamp },
    /// The customers behind these anchors are no longer who they were.
    #[serde(rename = "identity.changed.v1")]
    IdentityChanged { before: Vec<CustomerId>, after: Vec<CustomerId>, anchors: Vec<AnchorId>, cause: Cause, occurred_at: Timestamp },
    /// A tag of a customer changed its value; `None` is "has no such tag".
    #[serde(rename = "tag.changed.v1")]
    TagChanged {
        customer: CustomerId,
        tag: TagName,
        value: Option<String>,
        previous: Option<String>,
        version: String,
        cause: Cause,
        /// The inbox position up to which events were taken into account.
        position: i64,
        occurred_at: Timestamp,
    },
    /// A customer entered or left a segment.
    #[serde(rename = "segment.changed.v1")]
    SegmentChanged { segment: SegmentId, customer: CustomerId, entered: bool, cause: Cause, occurred_at: Timestamp },
    /// A segment was defined anew: the counts stand for the single changes.
    #[serde(rename = "segment.redefined.v1")]
    SegmentRedefined { segment: SegmentId, entered: u64, left: u64, occurred_at: Timestamp },
    /// A person asked to be forgotten; every wing drops what it still holds of these anchors.
    #[serde(rename = "customer.erased.v1")]
    CustomerErased { customer: CustomerId, anchors: Vec<AnchorId>, occurred_at: Timestamp },
    /// A customer became a member.
    #[serde(rename = "member.joined.v1")]
    MemberJoined { member: MemberId, anchor: AnchorId, unit: OrgUnitId, line: Line, occurred_at: Timestamp },
    /// A member's tier changed.
    #[serde(rename = "tier.changed.v1")]
    TierChanged { member: MemberId, anchor: AnchorId, tier: String, previous: String, occurred_at: Timestamp },
    /// A line's transaction was posted: what it earned, or with negative figures took back.
    #[serde(rename = "transaction.posted.v1")]
    TransactionPosted {
        transaction: TransactionId,
        member: MemberId,
        anchor: AnchorId,
        unit: OrgUnitId,
        line: Line,
        refund_of: Option<TransactionId>,
        amount: Fen,
        growth: Points,
        points: Points,
        points_balance: Points,
        occurred_at: Timestamp,
    },
    /// Points of a member expire before long; told once a member and day of expiry.
    #[serde(rename = "points.expiring.v1")]
    PointsExpiring { member: MemberId, anchor: AnchorId, amount: Points, expires_at: Timestamp, occurred_at: Timestamp },
    /// A benefit rule granted a voucher; the mall issues it.
    #[serde(rename = "voucher.granted.v1")]
    VoucherGranted { member: MemberId, product: ProductId, grant: String, reason: String, occurred_at: Timestamp },
    /// An order was paid in full.
    #[serde(rename = "order.paid.v1")]
    OrderPaid {
        order: OrderId,
        member: MemberId,
        merchant: MerchantId,
        unit: OrgUnitId,
        line: Line,
        amount: Fen,
        lines: Vec<OrderLine>,
        /// What was paid with points.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        points: Option<OrderPoints>,
        occurred_at: Timestamp,
    },
    /// An order was not paid in time: what was set aside for it is free again.
    #[serde(rename = "order.expired.v1")]
    OrderExpired {
        order: OrderId,
        member: MemberId,
        unit: OrgUnitId,
        /// What would have been paid with points.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        points: Option<OrderPoints>,
        occurred_at: Timestamp,
    },
    /// Money of an order went back; amounts are positive.
    #[serde(rename = "order.refunded.v1")]
    OrderRefunded {
        order: OrderId,
        refund: String,
        member: MemberId,
        merchant: MerchantId,
        unit: OrgUnitId,
        line: Line,
        amount: Fen,
        lines: Vec<OrderLine>,
        /// Points of the payment that went back with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        points: Option<Points>,
        occurred_at: Timestamp,
    },
    /// A voucher was used at a counter, once and for all.
    #[serde(rename = "voucher.redeemed.v1")]
    VoucherRedeemed {
        voucher: VoucherId,
        member: MemberId,
        merchant: MerchantId,
        unit: OrgUnitId,
        product: ProductId,
        occurred_at: Timestamp,
    },
    /// A lead reached a stage.
    #[serde(rename = "lead.advanced.v1")]
    LeadAdvanced { lead: LeadId, anchor: AnchorId, unit: OrgUnitId, stage: LeadStage, amount: Option<Fen>, occurred_at: Timestamp },
}

impl DomainEvent {
    /// The name and version, as stored: `order.paid.v1`.
    pub const fn name(&self) -> &'static str {
        match self {
            DomainEvent::CampaignTouched { .. } => "campaign.touched.v1",
            DomainEvent::IdentityChanged { .. } => "identity.changed.v1",
            DomainEvent::TagChanged { .. } => "tag.changed.v1",
            DomainEvent::SegmentChanged { .. } => "segment.changed.v1",
            DomainEvent::SegmentRedefined { .. } => "segment.redefined.v1",
            DomainEvent::CustomerErased { .. } => "customer.erased.v1",
            DomainEvent::MemberJoined { .. } => "member.joined.v1",
            DomainEvent::TierChanged { .. } => "tier.changed.v1",
            DomainEvent::TransactionPosted { .. } => "transaction.posted.v1",
            DomainEvent::PointsExpiring { .. } => "points.expiring.v1",
            DomainEvent::VoucherGranted { .. } => "voucher.granted.v1",
            DomainEvent::OrderPaid { .. } => "order.paid.v1",
            DomainEvent::OrderExpired { .. } => "order.expired.v1",
            DomainEvent::OrderRefunded { .. } => "order.refunded.v1",
            DomainEvent::VoucherRedeemed { .. } => "voucher.redeemed.v1",
            DomainEvent::LeadAdvanced { .. } => "lead.advanced.v1",
        }
    }

    /// When the fact happened, by its own time.
    pub const fn occurred_at(&self) -> Timestamp {
        match self {
            DomainEvent::CampaignTouched { occurred_at, .. }
            | DomainEvent::IdentityChanged { occurred_at, .. }
            | DomainEvent::TagChanged { occurred_at, .. }
            | DomainEvent::SegmentChanged { occurred_at, .. }
            | DomainEvent::SegmentRedefined { occurred_at, .. }
            | DomainEvent::CustomerErased { occurred_at, .. }
            | DomainEvent::MemberJoined { occurred_at, .. }
            | DomainEvent::TierChanged { occurred_at, .. }
            | DomainEvent::TransactionPosted { occurred_at, .. }
            | DomainEvent::PointsExpiring { occurred_at, .. }
            | DomainEvent::VoucherGranted { occurred_at, .. }
            | DomainEvent::OrderPaid { occurred_at, .. }
            | DomainEvent::OrderExpired { occurred_at, .. }
            | DomainEvent::OrderRefunded { occurred_at, .. }
            | DomainEvent::VoucherRedeemed { occurred_at, .. }
            | DomainEvent::LeadAdvanced { occurred_at, .. } => *occurred_at,
        }
    }
}
