//! Messages as they are spelled: by the Segment protocol, and by `POST /v1/events`.

use super::DEPTH_MAX;
use super::message::depth;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Longest context of a batch that is kept beside its messages, in bytes: those of SDKs have some hundred.
const BATCH_CONTEXT_BYTES_MAX: usize = 2 << 10;

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
    pub identifiers: Option<Vec<Named<'a>>>,
    #[serde(borrow, default)]
    pub properties: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub traits: Option<&'a RawValue>,
    #[serde(default)]
    pub touch: Option<heyuan_contract::Touch>,
    /// The Segment protocol's members that our own spelling has under other names.
    #[serde(borrow, default)]
    pub event: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "messageId")]
    segment_message_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "userId")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "anonymousId")]
    anonymous_id: Option<&'a RawValue>,
}

impl Native<'_> {
    /// Whether the event is spelled as the Segment protocol does: it names nobody in our spelling, and something in that one.
    pub(crate) fn is_segment(&self) -> bool {
        let members = [self.event, self.segment_message_id, self.user_id, self.anonymous_id];
        self.identifiers.is_none() && members.iter().any(Option::is_some)
    }
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

/// A part that never refuses its event: what is of another type than it should be counts as absent.
#[derive(Debug, Default)]
pub(crate) enum Loose<T> {
    #[default]
    Absent,
    Wrong,
    Read(T),
}

/// What can stand loosely, and how its JSON begins. (A derived reader would take a list for an object, member by member.)
pub(crate) trait Part {
    /// `None` for what begins in several ways.
    const BEGINS: Option<char> = Some('{');
}

impl Part for Text<'_> {
    const BEGINS: Option<char> = None;
}

impl<T> Part for Vec<T> {
    const BEGINS: Option<char> = Some('[');
}

impl<'de, T: Part + Deserialize<'de>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Loose::read(<&'de RawValue>::deserialize(deserializer)?))
    }
}

impl<T> Loose<T> {
    pub(crate) fn read<'a>(raw: &'a RawValue) -> Loose<T>
    where
        T: Part + Deserialize<'a>,
    {
        match raw.get() {
            "null" => Loose::Absent,
            json if T::BEGINS.is_some_and(|first| !json.starts_with(first)) => Loose::Wrong,
            json => serde_json::from_str(json).map_or(Loose::Wrong, Loose::Read),
        }
    }

    pub(crate) const fn get(&self) -> Option<&T> {
        match self {
            Loose::Read(value) => Some(value),
            _ => None,
        }
    }

    const fn is_wrong(&self) -> bool {
        matches!(self, Loose::Wrong)
    }

    /// This part, or where it says nothing the other.
    fn or(self, other: Loose<T>) -> Loose<T> {
        match (self, other) {
            (Loose::Read(value), _) | (_, Loose::Read(value)) => Loose::Read(value),
            (Loose::Wrong, _) | (_, Loose::Wrong) => Loose::Wrong,
            _ => Loose::Absent,
        }
    }
}

/// The parts of `context` that we read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Context<'a> {
    #[serde(borrow, default)]
    pub app: Loose<App<'a>>,
    #[serde(borrow, default)]
    pub campaign: Loose<Campaign<'a>>,
    #[serde(borrow, default)]
    pub page: Loose<Page<'a>>,
    #[serde(borrow, default)]
    pub device: Loose<Device<'a>>,
    #[serde(borrow, default)]
    pub external_ids: Loose<Vec<Loose<Named<'a>>>>,
    #[serde(borrow, default)]
    pub traits: Loose<IdentifyingTraits<'a>>,
}

/// An object of texts, each read loosely, with the names under which wrong ones are counted.
macro_rules! texts {
    ($(#[$doc:meta])* $name:ident at $at:literal { $($field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        pub(crate) struct $name<'a> {
            $(#[serde(borrow, default)] pub $field: Loose<Text<'a>>,)+
        }

        impl Part for $name<'_> {}

        impl $name<'_> {
            fn wrong(&self) -> impl Iterator<Item = &'static str> {
                [$(self.$field.is_wrong().then_some(concat!($at, ".", stringify!($field)))),+].into_iter().flatten()
            }
        }
    };
}

texts!(App at "$context.app" { name });
texts!(Device at "$context.device" { id });
texts!(Page at "$context.page" { url, search });
texts!(Campaign at "$context.campaign" { source, medium, name, content, term, gdt_vid, clickid, bd_vid });
texts!(
    /// The traits from which identifiers are taken.
    IdentifyingTraits at "$context.traits" { phone, openid, unionid, email, plate, member_id, crm_id }
);

impl Part for Context<'_> {}
impl Part for Named<'_> {}

impl IdentifyingTraits<'_> {
    /// The traits with the types of identifier that they are, and the names under which an unusable one is told.
    pub(crate) const fn by_kind(&self) -> [(&'static str, &Loose<Text<'_>>, &'static str, &'static str); 7] {
        [
            ("phone", &self.phone, "traits.phone", "$context.traits.phone"),
            ("openid", &self.openid, "traits.openid", "$context.traits.openid"),
            ("unionid", &self.unionid, "traits.unionid", "$context.traits.unionid"),
            ("email", &self.email, "traits.email", "$context.traits.email"),
            ("plate", &self.plate, "traits.plate", "$context.traits.plate"),
            ("member", &self.member_id, "traits.member_id", "$context.traits.member_id"),
            ("crm", &self.crm_id, "traits.crm_id", "$context.traits.crm_id"),
        ]
    }
}

impl<'a> Context<'a> {
    /// A message's context, with what it lacks taken from its batch's, and what of it is of a wrong type.
    pub(crate) fn of(own: Option<&'a RawValue>, batch: Option<&'a str>) -> (Context<'a>, Vec<&'static str>) {
        let read = own.map_or(Loose::Absent, Loose::<Context<'a>>::read);
        let mut wrong = Vec::new();
        let own = match read {
            Loose::Read(context) => context,
            Loose::Absent => Context::default(),
            Loose::Wrong => {
                wrong.push("$context");
                Context::default()
            }
        };
        wrong.extend(own.wrong());
        let Some(batch) = batch.and_then(|batch| serde_json::from_str::<Context<'a>>(batch).ok()) else { return (own, wrong) };
        let merged = Context {
            app: own.app.or(batch.app),
            campaign: own.campaign.or(batch.campaign),
            page: own.page.or(batch.page),
            device: own.device.or(batch.device),
            external_ids: own.external_ids.or(batch.external_ids),
            traits: own.traits.or(batch.traits),
        };
        let more: Vec<_> = merged.wrong().into_iter().filter(|name| !wrong.contains(name)).collect();
        wrong.extend(more);
        (merged, wrong)
    }

    /// Names of what is of a wrong type.
    fn wrong(&self) -> Vec<&'static str> {
        let parts = [
            (self.app.is_wrong(), "$context.app"),
            (self.campaign.is_wrong(), "$context.campaign"),
            (self.page.is_wrong(), "$context.page"),
            (self.device.is_wrong(), "$context.device"),
            (self.external_ids.is_wrong(), "$context.externalIds"),
            (self.traits.is_wrong(), "$context.traits"),
            (self.external_ids.get().into_iter().flatten().any(Loose::is_wrong), "$context.externalIds[]"),
        ];
        let mut names: Vec<_> = parts.into_iter().filter_map(|(wrong, name)| wrong.then_some(name)).collect();
        names.extend(self.app.get().into_iter().flat_map(App::wrong));
        names.extend(self.campaign.get().into_iter().flat_map(Campaign::wrong));
        names.extend(self.page.get().into_iter().flat_map(Page::wrong));
        names.extend(self.device.get().into_iter().flat_map(Device::wrong));
        names.extend(self.traits.get().into_iter().flat_map(IdentifyingTraits::wrong));
        names
    }
}

/// What is kept of a batch's own context: the parts that we read, as they came. `None` for nothing, and for more than is kept.
pub(crate) fn batch_context(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Parts<'a> {
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        app: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        campaign: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        page: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        device: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        external_ids: Option<&'a RawValue>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        traits: Option<&'a RawValue>,
    }
    if !raw.get().starts_with('{') {
        return None;
    }
    let parts: Parts<'_> = serde_json::from_str(raw.get()).ok()?;
    let kept = serde_json::to_string(&parts).ok()?;
    (kept != "{}" && kept.len() <= BATCH_CONTEXT_BYTES_MAX && depth(kept.as_bytes()) <= DEPTH_MAX).then_some(kept)
}

/// The text without control characters: not every database can hold them.
pub(crate) fn plain(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.chars().any(char::is_control) { Cow::Owned(text.chars().filter(|c| !c.is_control()).collect()) } else { text }
}
