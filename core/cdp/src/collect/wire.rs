//! Messages as they are spelled: by the Segment protocol, and by `POST /v1/events`.

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Text, or a whole number that an SDK wrote where text belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A message as the Segment protocol spells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Segment<'a> {
    #[serde(borrow, default, rename = "type")]
    pub kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub message_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub event: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub user_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub anonymous_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub previous_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub original_timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub sent_at: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub properties: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub traits: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub context: Option<&'a RawValue>,
}

/// A message as `POST /v1/events` spells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Native<'a> {
    #[serde(borrow, default, rename = "type")]
    pub kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub message_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub app: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub occurred_at: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub identifiers: Vec<Named<'a>>,
    #[serde(borrow, default)]
    pub properties: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub traits: Option<&'a RawValue>,
    #[serde(default)]
    pub touch: Option<heyuan_contract::Touch>,
}

/// An identifier with its type.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Named<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    #[serde(borrow, alias = "id")]
    pub value: Text<'a>,
    #[serde(borrow, default)]
    pub app: Option<Text<'a>>,
}

/// The parts of `context` that we read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Context<'a> {
    #[serde(borrow, default)]
    pub app: Option<App<'a>>,
    #[serde(borrow, default)]
    pub campaign: Option<Campaign<'a>>,
    #[serde(borrow, default)]
    pub page: Option<Page<'a>>,
    #[serde(borrow, default)]
    pub device: Option<Device<'a>>,
    #[serde(borrow, default)]
    pub external_ids: Vec<Named<'a>>,
    #[serde(borrow, default)]
    pub traits: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct App<'a> {
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Device<'a> {
    #[serde(borrow, default)]
    pub id: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(borrow, default)]
    pub url: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub search: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Campaign<'a> {
    #[serde(borrow, default)]
    pub source: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub medium: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub content: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub term: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub gdt_vid: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub clickid: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub bd_vid: Option<Text<'a>>,
}

/// The traits from which identifiers are taken.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct IdentifyingTraits<'a> {
    #[serde(borrow, default)]
    pub phone: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub openid: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub unionid: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub email: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub plate: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub member_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub crm_id: Option<Text<'a>>,
}
