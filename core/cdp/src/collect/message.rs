//! The message of an SDK: what is read of it before it is accepted, and why it may be refused.

use super::wire::{Context, IdentifyingTraits, Native, Segment, Text};
use super::{DEPTH_MAX, EVENT_BYTES_MAX, ID_BYTES_MAX};
use crate::collect::sender::Spelling;
use crate::event::EventKind;
use crate::identity::identifier::{Identifier, MAX as IDENTIFIERS_MAX};
use crate::pipeline::touch;
use heyuan_contract::Timestamp;
use heyuan_kernel::time::parse_rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use utoipa::ToSchema;

/// Longest name of an event, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Why an event is refused; stable, documented words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Over 32 KB.
    TooLarge,
    /// Nested deeper than 32 levels.
    TooDeep,
    /// No JSON object, or a known field of a wrong type.
    Malformed,
    /// No `type` that the protocol knows.
    UnknownKind,
    /// An event without a name, or with one that is no words.
    BadName,
    /// A message id that is empty or longer than 256 bytes.
    BadMessageId,
    /// No identifier, or one that is longer than 256 bytes.
    BadIdentifier,
    /// A time that is no RFC 3339, or outside the years 1 to 9999.
    BadTime,
    /// The event type is strict and the event does not fit its schema.
    AgainstSchema,
}

impl Reason {
    /// The word in answers and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::TooDeep => "too_deep",
            Reason::Malformed => "malformed",
            Reason::UnknownKind => "unknown_kind",
            Reason::BadName => "bad_name",
            Reason::BadMessageId => "bad_message_id",
            Reason::BadIdentifier => "bad_identifier",
            Reason::BadTime => "bad_time",
            Reason::AgainstSchema => "against_schema",
        }
    }
}

/// What an accepted event says, borrowed from its bytes.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub kind: EventKind,
    pub message_id: Option<Cow<'a, str>>,
    pub name: String,
    /// The name of a page or screen.
    pub page: Option<Cow<'a, str>>,
    pub app: Option<Cow<'a, str>>,
    pub identifiers: Vec<Identifier>,
    pub own_time: Option<Timestamp>,
    pub sent_at: Option<Timestamp>,
    pub properties: Option<&'a RawValue>,
    pub traits: Option<&'a RawValue>,
    pub touch: Option<heyuan_contract::Touch>,
}

/// Reads an event, or says why it can't be accepted. `path_kind` is the kind that the URL names.
pub(crate) fn read(spelling: Spelling, path_kind: Option<EventKind>, raw: &str) -> Result<Message<'_>, (Reason, String)> {
    if raw.len() > EVENT_BYTES_MAX {
        return Err((Reason::TooLarge, format!("the event has {} bytes; at most {EVENT_BYTES_MAX} are taken", raw.len())));
    }
    if depth(raw.as_bytes()) > DEPTH_MAX {
        return Err((Reason::TooDeep, format!("the event is nested deeper than {DEPTH_MAX} levels")));
    }
    if !raw.trim_start().starts_with('{') {
        return Err((Reason::Malformed, "an event is a JSON object".to_owned()));
    }
    let message = match spelling {
        Spelling::Segment => read_segment(path_kind, raw)?,
        Spelling::Native => read_native(raw, false)?,
        Spelling::Internal => read_native(raw, true)?,
    };
    if let Some(id) = &message.message_id
        && (id.is_empty() || id.len() > ID_BYTES_MAX)
    {
        return Err((Reason::BadMessageId, format!("a message id has 1 to {ID_BYTES_MAX} bytes")));
    }
    if message.identifiers.is_empty() || message.identifiers.len() > IDENTIFIERS_MAX {
        return Err((Reason::BadIdentifier, format!("an event carries 1 to {IDENTIFIERS_MAX} usable identifiers")));
    }
    Ok(message)
}

/// The deepest nesting of brackets outside strings; a scan without recursion, so that no input costs stack.
pub(crate) fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

type Refused = (Reason, String);

fn malformed(error: &serde_json::Error) -> Refused {
    // Serde's words may quote the value; the position says enough.
    (Reason::Malformed, format!("a field of the event is missing or of a wrong type, at column {}", error.column()))
}

fn time(text: Option<&Text<'_>>) -> Result<Option<Timestamp>, Refused> {
    let Some(Text(text)) = text else { return Ok(None) };
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}Z")));
    parsed.map(Some).ok_or_else(|| (Reason::BadTime, "a time is RFC 3339 within the years 1 to 9999".to_owned()))
}

fn read_segment(path_kind: Option<EventKind>, raw: &str) -> Result<Message<'_>, Refused> {
    let segment: Segment<'_> = serde_json::from_str(raw).map_err(|e| malformed(&e))?;
    let kind = path_kind.or_else(|| segment.kind.as_ref().and_then(|kind| EventKind::parse(&kind.0)));
    let kind = kind.ok_or((Reason::UnknownKind, "`type` is one of track, identify, page, screen, group, alias".to_owned()))?;
    let context: Context<'_> = match segment.context {
        Some(raw) if raw.get() != "null" => serde_json::from_str(raw.get()).map_err(|e| malformed(&e))?,
        _ => Context::default(),
    };
    let name = match kind {
        EventKind::Track => {
            let Text(text) = segment.event.as_ref().ok_or((Reason::BadName, "a track names its `event`".to_owned()))?;
            normal_name(text).ok_or((Reason::BadName, "an event's name is words of 1 to 100 bytes".to_owned()))?
        }
        other => default_name(other).to_owned(),
    };
    let own_time = time(segment.original_timestamp.as_ref())?.or(time(segment.timestamp.as_ref())?);
    let sent_at = time(segment.sent_at.as_ref())?;
    let app = context.app.as_ref().and_then(|app| app.name.as_ref()).map(|name| name.0.clone());
    let identifiers = segment_identifiers(&segment, &context, app.as_deref(), kind)?;
    let touch = touch::read(&context, segment.properties);
    Ok(Message {
        kind,
        message_id: segment.message_id.map(|id| id.0),
        name,
        page: segment.name.map(|name| name.0),
        app,
        identifiers,
        own_time,
        sent_at,
        properties: segment.properties,
        traits: segment.traits.filter(|_| kind == EventKind::Identify),
        touch,
    })
}

fn segment_identifiers(
    segment: &Segment<'_>,
    context: &Context<'_>,
    app: Option<&str>,
    kind: EventKind,
) -> Result<Vec<Identifier>, Refused> {
    let mut list = Vec::with_capacity(4);
    let mut add = |kind: &str, text: Option<&Text<'_>>, app: Option<&str>| match text {
        Some(Text(value)) => collect_identifier(&mut list, kind, value, app),
        None => Ok(()),
    };
    let user = segment.user_id.as_ref();
    let user_kind = if user.is_some_and(|id| id.0.starts_with("mbr_")) { "member" } else { "user" };
    add(user_kind, user, None)?;
    add("device", segment.anonymous_id.as_ref(), None)?;
    if kind == EventKind::Alias {
        add("device", segment.previous_id.as_ref(), None)?;
    }
    add("device", context.device.as_ref().and_then(|device| device.id.as_ref()), None)?;
    for external in &context.external_ids {
        let own = external.app.as_ref().map(|app| &*app.0).or(app);
        add(&external.kind.0, Some(&external.value), own)?;
    }
    let own_traits = segment.traits.filter(|_| kind == EventKind::Identify);
    for raw in [own_traits, context.traits].into_iter().flatten() {
        // Traits of other types than text say nothing about who it is; they are still typed as properties later.
        let Ok(traits) = serde_json::from_str::<IdentifyingTraits<'_>>(raw.get()) else { continue };
        add("phone", traits.phone.as_ref(), None)?;
        add("openid", traits.openid.as_ref(), app)?;
        add("unionid", traits.unionid.as_ref(), None)?;
        add("email", traits.email.as_ref(), None)?;
        add("plate", traits.plate.as_ref(), None)?;
        add("member", traits.member_id.as_ref(), None)?;
        add("crm", traits.crm_id.as_ref(), None)?;
    }
    Ok(list)
}

fn collect_identifier(list: &mut Vec<Identifier>, kind: &str, value: &str, app: Option<&str>) -> Result<(), Refused> {
    if value.len() > ID_BYTES_MAX || app.is_some_and(|app| app.len() > ID_BYTES_MAX) {
        return Err((Reason::BadIdentifier, format!("an identifier has at most {ID_BYTES_MAX} bytes")));
    }
    if let Some(identifier) = Identifier::read(kind, value, app)
        && !list.contains(&identifier)
    {
        list.push(identifier);
    }
    Ok(())
}

fn read_native(raw: &str, internal: bool) -> Result<Message<'_>, Refused> {
    let native: Native<'_> = serde_json::from_str(raw).map_err(|e| malformed(&e))?;
    let named_kind = native.kind.as_ref().map(|kind| (EventKind::parse(&kind.0), kind.0.clone()));
    let (kind, event) = match (named_kind, native.name) {
        (Some((Some(kind), _)), name) => (kind, name.map(|name| name.0)),
        (Some((None, word)), None) => (EventKind::Track, Some(word)),
        (Some((None, _)), Some(_)) => {
            return Err((Reason::UnknownKind, "`type` is one of track, identify, page, screen, group, alias".to_owned()));
        }
        (None, Some(name)) => (EventKind::Track, Some(name.0)),
        (None, None) if native.traits.is_some() => (EventKind::Identify, None),
        (None, None) => return Err((Reason::BadName, "an event names its type".to_owned())),
    };
    let name = match (kind, &event) {
        (EventKind::Track, Some(text)) => {
            normal_name(text).ok_or((Reason::BadName, "an event's name is words of 1 to 100 bytes".to_owned()))?
        }
        (EventKind::Track, None) => return Err((Reason::BadName, "an event names its type".to_owned())),
        (other, _) => default_name(other).to_owned(),
    };
    let mut identifiers = Vec::with_capacity(native.identifiers.len().min(IDENTIFIERS_MAX));
    for named in &native.identifiers {
        if named.kind.0 == "anchor" && internal {
            identifiers.extend(Identifier::anchor(&named.value.0));
            continue;
        }
        if !Identifier::is_kind(&named.kind.0) {
            return Err((Reason::BadIdentifier, "an identifier's type is one of those at /v1/identity/rules".to_owned()));
        }
        collect_identifier(&mut identifiers, &named.kind.0, &named.value.0, named.app.as_ref().map(|app| &*app.0))?;
    }
    Ok(Message {
        kind,
        message_id: native.message_id.map(|id| id.0),
        name,
        page: event.filter(|_| kind != EventKind::Track),
        app: native.app.map(|app| app.0),
        identifiers,
        own_time: time(native.occurred_at.as_ref())?,
        sent_at: None,
        properties: native.properties,
        traits: native.traits,
        touch: native.touch.map(touch::bounded),
    })
}

/// The event type of messages that name none.
pub(crate) const fn default_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Track => "event",
        EventKind::Identify => "profile",
        EventKind::Page => "page_viewed",
        EventKind::Screen => "screen_viewed",
        EventKind::Group => "group_joined",
        EventKind::Alias => "aliased",
    }
}

/// The one spelling of an event's name: words in lower case, parted by underscores. A word ends at a space, at a sign other than
/// letters and digits, and before a capital that follows a small letter or digit. Letters of any script stay. `None` for a name
/// without letters and digits, or too long.
pub(crate) fn normal_name(text: &str) -> Option<String> {
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut name = String::with_capacity(text.len() + 4);
    let mut previous: Option<char> = None;
    for character in text.chars() {
        if !character.is_alphanumeric() {
            previous = None;
            continue;
        }
        let starts = match previous {
            None => !name.is_empty(),
            Some(before) => character.is_uppercase() && !before.is_uppercase(),
        };
        if starts {
            name.push('_');
        }
        name.extend(character.to_lowercase());
        previous = Some(character);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for (text, name) in [
            ("Unit Viewed", Some("unit_viewed")),
            ("unit_viewed", Some("unit_viewed")),
            ("UnitViewed", Some("unit_viewed")),
            ("  Order   Completed ", Some("order_completed")),
            ("order-paid", Some("order_paid")),
            ("AB Test Seen", Some("ab_test_seen")),
            ("page2Seen", Some("page2_seen")),
            ("看房", Some("看房")),
            ("", None),
            (" -_- ", None),
        ] {
            assert_eq!(normal_name(text).as_deref(), name, "{text:?}");
        }
        assert_eq!(normal_name(&"a".repeat(101)), None);
    }

    #[test]
    fn depth_ignores_strings() {
        assert_eq!(depth(br#"{"a":"[[[{\"[","b":[1]}"#), 2);
        assert_eq!(depth("[".repeat(5000).as_bytes()), 5000);
    }

    #[test]
    fn bad_input_is_refused_with_its_reason() {
        let deep = format!(r#"{{"type":"track","event":"A","anonymousId":"x","properties":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
        let long = format!(r#"{{"type":"track","event":"A","anonymousId":"{}"}}"#, "x".repeat(300));
        let large = format!(r#"{{"type":"track","event":"{}"}}"#, "x".repeat(40_000));
        for (raw, reason) in [
            (deep.as_str(), Reason::TooDeep),
            (long.as_str(), Reason::BadIdentifier),
            (large.as_str(), Reason::TooLarge),
            ("[]", Reason::Malformed),
            (r#"{"type":"dance","anonymousId":"x"}"#, Reason::UnknownKind),
            (r#"{"type":"track","anonymousId":"x"}"#, Reason::BadName),
            (r#"{"type":"track","event":"A"}"#, Reason::BadIdentifier),
            (r#"{"type":"track","event":"A","anonymousId":""}"#, Reason::BadIdentifier),
            (r#"{"type":"track","event":"A","anonymousId":"x","messageId":""}"#, Reason::BadMessageId),
            (r#"{"type":"track","event":"A","anonymousId":"x","timestamp":"0000-01-01T00:00:00Z"}"#, Reason::BadTime),
            (r#"{"type":"track","event":"A","anonymousId":"x","timestamp":"yesterday"}"#, Reason::BadTime),
            (r#"{"type":"track","event":["A"],"anonymousId":"x"}"#, Reason::Malformed),
        ] {
            assert_eq!(read(Spelling::Segment, None, raw).map(|_| ()).map_err(|(reason, _)| reason), Err(reason), "{raw:.80}");
        }
        let fine = r#"{"type":"track","event":"A","userId":7,"timestamp":"9999-01-01T00:00:00Z","context":null,"properties":null}"#;
        assert!(read(Spelling::Segment, None, fine).is_ok());
    }
}
