//! The shapes of `events.ndjson`: Segment messages as SDKs spell them, in the envelope of the app that sends them.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::draw::Uuid;
use crate::stamp::Stamp;

#[derive(Serialize)]
pub(crate) struct Delivered<'a> {
    pub(crate) unit: &'static str,
    pub(crate) arrived_at: Stamp,
    pub(crate) message: Message<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) message_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) anonymous_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) properties: Option<&'a Properties<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traits: Option<&'a Traits<'a>>,
    pub(crate) context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) original_timestamp: Option<Stamp>,
    pub(crate) timestamp: Stamp,
    pub(crate) sent_at: Stamp,
}

/// What a message says.
pub(crate) enum Said<'a> {
    Identify(Traits<'a>),
    Page(&'a str),
    Screen(&'a str),
    Track(Properties<'a>),
}

/// The properties of each tracked event; the name of the event belongs to the variant.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Properties<'a> {
    UnitViewed {
        project_id: &'static str,
        /// By bedrooms, such as `3br`: what a campaign or a rule speaks of.
        unit_type: &'static str,
        /// The project's own code of the floor plan.
        layout: &'static str,
        dwell_seconds: i64,
        price_fen: i64,
    },
    LeadSubmitted {
        project_id: &'static str,
        lead_id: &'a str,
        form: &'static str,
    },
    PhoneVerified {
        method: &'static str,
    },
    OrderPaid {
        order_id: &'a str,
        merchant_id: &'a str,
        #[serde(flatten)]
        amount: Amount,
        currency: &'static str,
        products: [Bought<'a>; 1],
    },
    VoucherRedeemed {
        voucher_sku: &'a str,
        merchant_id: &'a str,
        face_value_fen: i64,
    },
    PropertyFeePaid {
        transaction_id: &'a str,
        months: i64,
        amount_fen: i64,
        currency: &'static str,
    },
    HotelStayCompleted {
        transaction_id: &'a str,
        room_type: &'static str,
        nights: i64,
        amount_fen: i64,
        currency: &'static str,
    },
    VisitCheckedIn {
        project_id: &'static str,
        party_size: i64,
        invited: bool,
    },
    AppOpened {
        from_background: bool,
    },
    SessionStarted {
        landing: &'a str,
    },
}

impl Properties<'_> {
    pub(crate) fn event(&self) -> &'static str {
        match self {
            Self::UnitViewed { .. } => "Unit Viewed",
            Self::LeadSubmitted { .. } => "Lead Submitted",
            Self::PhoneVerified { .. } => "Phone Verified",
            Self::OrderPaid { .. } => "Order Paid",
            Self::VoucherRedeemed { .. } => "Voucher Redeemed",
            Self::PropertyFeePaid { .. } => "Property Fee Paid",
            Self::HotelStayCompleted { .. } => "Hotel Stay Completed",
            Self::VisitCheckedIn { .. } => "Visit Checked In",
            Self::AppOpened { .. } => "App Opened",
            Self::SessionStarted { .. } => "Session Started",
        }
    }
}

/// The two malls had their mini-programs made by different suppliers: one counts fen, the other writes yuan, now and then as text.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Amount {
    Fen { amount_fen: i64 },
    Yuan { amount: Box<RawValue> },
}

impl Amount {
    pub(crate) fn yuan_number(fen: i64) -> Result<Self, serde_json::Error> {
        Ok(Self::Yuan { amount: RawValue::from_string(yuan(fen))? })
    }

    pub(crate) fn yuan_text(fen: i64) -> Result<Self, serde_json::Error> {
        Ok(Self::Yuan { amount: RawValue::from_string(format!("\"{}\"", yuan(fen)))? })
    }
}

/// Fen as yuan with two decimals.
pub(crate) fn yuan(fen: i64) -> String {
    format!("{}{}.{:02}", if fen < 0 { "-" } else { "" }, fen.abs() / 100, fen.abs() % 100)
}

#[derive(Serialize)]
pub(crate) struct Bought<'a> {
    pub(crate) sku: &'a str,
    pub(crate) category: &'static str,
    pub(crate) quantity: i64,
}

/// What an app tells about its user. Absent is unknown.
#[derive(Default, Serialize)]
pub(crate) struct Traits<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) openid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unionid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gender: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) city: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) household_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) children: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// In whole yuan, as the form asks for it.
    pub(crate) annual_income: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Context<'a> {
    pub(crate) app: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) campaign: Option<Campaign<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<Page<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<DeviceId<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) external_ids: Vec<ExternalId<'a>>,
    pub(crate) library: Library,
}

#[derive(Serialize)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Library {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

#[derive(Serialize)]
pub(crate) struct DeviceId<'a> {
    pub(crate) id: &'a str,
}

/// `gdt_vid`, `clickid` and `bd_vid` stand here in mini-programs, which have no address; on the web they stand in the page's address.
#[derive(Serialize)]
pub(crate) struct Campaign<'a> {
    pub(crate) source: &'static str,
    pub(crate) medium: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gdt_vid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clickid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bd_vid: Option<&'a str>,
}

#[derive(Serialize)]
pub(crate) struct Page<'a> {
    pub(crate) path: &'a str,
    pub(crate) url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) referrer: Option<&'static str>,
}

#[derive(Serialize)]
pub(crate) struct ExternalId<'a> {
    pub(crate) id: &'a str,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) collection: &'static str,
    pub(crate) encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<&'static str>,
}

impl<'a> ExternalId<'a> {
    pub(crate) fn new(kind: &'static str, id: &'a str, app: Option<&'static str>) -> Self {
        Self { id, kind, collection: "users", encoding: "none", app }
    }
}
