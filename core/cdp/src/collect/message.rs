//! The message of an SDK: what is read of it before it is accepted, and why it may be refused.

use super::wire::{Context, IdentifyingTraits, Loose, Native, Segment, Text, plain};
use super::{DEPTH_MAX, EVENT_BYTES_MAX, ID_BYTES_MAX};
use crate::collect::sender::Spelling;
use crate::event::EventKind;
use crate::identity::identifier::{Identifier, MAX as IDENTIFIERS_MAX};
use crate::pipeline::touch;
use heyuan_contract::Timestamp;
use heyuan_kernel::text::is_line;
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
    /// An event without a name, or with one that is no words or holds control characters.
    BadName,
    /// A message id that is empty, longer than 256 bytes or holds control characters.
    BadMessageId,
    /// No identifier, or one that is longer than 256 bytes or holds control characters. Such ones in `context` are left out instead.
    BadIdentifier,
    /// A time that is no RFC 3339, or written outside the years 1 to 9999.
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
    /// Parts of the context that are of a wrong type or no identifiers, and were left out.
    pub context_faults: Vec<&'static str>,
}

/// Reads an event, or says why it can't be accepted. `path_kind` is the kind that the URL names, `context` is its batch's own.
pub(crate) fn read<'a>(
    spelling: Spelling,
    path_kind: Option<EventKind>,
    raw: &'a str,
    context: Option<&'a str>,
) -> Result<Message<'a>, (Reason, String)> {
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
        Spelling::Segment => read_segment(path_kind, raw, context)?,
        Spelling::Native => read_native(raw, false)?,
        Spelling::Internal => read_native(raw, true)?,
    };
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

fn message_id<'a>(field: &str, id: Option<Text<'a>>) -> Result<Option<Cow<'a, str>>, Refused> {
    let Some(Text(id)) = id else { return Ok(None) };
    if !is_line(&id, ID_BYTES_MAX) {
        return Err((Reason::BadMessageId, format!("`{field}` has 1 to {ID_BYTES_MAX} bytes without control characters")));
    }
    Ok(Some(id))
}

fn event_name(field: &str, text: &str) -> Result<String, Refused> {
    let text = text.trim();
    let name = if text.chars().any(char::is_control) { None } else { normal_name(text) };
    name.ok_or_else(|| (Reason::BadName, format!("`{field}` is words of 1 to {NAME_BYTES_MAX} bytes without control characters")))
}

fn read_segment<'a>(path_kind: Option<EventKind>, raw: &'a str, batch_context: Option<&'a str>) -> Result<Message<'a>, Refused> {
    let segment: Segment<'_> = serde_json::from_str(raw).map_err(|e| malformed(&e))?;
    let kind = path_kind.or_else(|| segment.kind.as_ref().and_then(|kind| EventKind::parse(&kind.0)));
    let kind = kind.ok_or((Reason::UnknownKind, "`type` is one of track, identify, page, screen, group, alias".to_owned()))?;
    let (context, mut context_faults) = Context::of(segment.context, batch_context);
    let name = match kind {
        EventKind::Track => {
            let Text(text) = segment.event.as_ref().ok_or((Reason::BadName, "a track names its `event`".to_owned()))?;
            event_name("event", text)?
        }
        other => default_name(other).to_owned(),
    };
    let own_time = time(segment.original_timestamp.as_ref())?.or(time(segment.timestamp.as_ref())?);
    let sent_at = time(segment.sent_at.as_ref())?;
    let app = context.app.get().and_then(|app| app.name.get()).map(|name| plain(name.0.clone()));
    let identifiers = segment_identifiers(&segment, &context, app.as_deref(), kind, &mut context_faults)?;
    let touch = touch::read(&context, segment.properties);
    Ok(Message {
        kind,
        message_id: message_id("messageId", segment.message_id)?,
        name,
        page: segment.name.map(|name| plain(name.0)),
        app,
        identifiers,
        own_time,
        sent_at,
        properties: segment.properties,
        traits: segment.traits.filter(|_| kind == EventKind::Identify),
        touch,
        context_faults,
    })
}

fn segment_identifiers(
    segment: &Segment<'_>,
    context: &Context<'_>,
    app: Option<&str>,
    kind: EventKind,
    context_faults: &mut Vec<&'static str>,
) -> Result<Vec<Identifier>, Refused> {
    let mut list = Vec::with_capacity(4);
    let mut add = |field: &str, kind: &str, text: Option<&Text<'_>>| match text {
        Some(Text(value)) => add_identifier(&mut list, kind, value, app).map_err(|Unfit| unfit(field)),
        None => Ok(()),
    };
    let user = segment.user_id.as_ref();
    let user_kind = if user.is_some_and(|id| id.0.starts_with("mbr_")) { "member" } else { "user" };
    add("userId", user_kind, user)?;
    add("anonymousId", "device", segment.anonymous_id.as_ref())?;
    if kind == EventKind::Alias {
        add("previousId", "device", segment.previous_id.as_ref())?;
    }
    let own_traits = segment.traits.filter(|_| kind == EventKind::Identify);
    // Traits of other types than text say nothing about who it is; they are still typed as properties later.
    let own_traits = own_traits.map_or(Loose::Absent, Loose::<IdentifyingTraits<'_>>::read);
    for (kind, value, field, _) in own_traits.get().into_iter().flat_map(IdentifyingTraits::by_kind) {
        add(field, kind, value.get())?;
    }
    let mut add_loosely = |name: &'static str, kind: &str, text: Option<&Text<'_>>, app: Option<&str>| {
        if text.is_some_and(|text| add_identifier(&mut list, kind, &text.0, app).is_err()) {
            context_faults.push(name);
        }
    };
    add_loosely("$context.device.id", "device", context.device.get().and_then(|device| device.id.get()), None);
    for external in context.external_ids.get().into_iter().flatten().filter_map(Loose::get) {
        let own = external.app.as_ref().map(|app| &*app.0).or(app);
        add_loosely("$context.externalIds[]", &external.kind.0, Some(&external.value), own);
    }
    for (kind, value, _, name) in context.traits.get().into_iter().flat_map(IdentifyingTraits::by_kind) {
        add_loosely(name, kind, value.get(), app);
    }
    Ok(list)
}

/// An identifier that is too long or holds control characters.
struct Unfit;

fn unfit(field: &str) -> Refused {
    (Reason::BadIdentifier, format!("`{field}` is an identifier of at most {ID_BYTES_MAX} bytes without control characters"))
}

/// Adds an identifier, unless it is none: an empty text, a phone number with letters, a type that we don't know.
fn add_identifier(list: &mut Vec<Identifier>, kind: &str, value: &str, app: Option<&str>) -> Result<(), Unfit> {
    let fits = |text: &str| text.len() <= ID_BYTES_MAX && !text.trim().chars().any(char::is_control);
    if !fits(value) || !fits(kind) || !app.is_none_or(fits) {
        return Err(Unfit);
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
    if native.is_segment() {
        return read_segment_among_natives(native, raw);
    }
    let named_kind = native.kind.as_ref().map(|kind| (EventKind::parse(&kind.0), kind.0.clone()));
    let (kind, field, event) = match (named_kind, native.name) {
        (Some((Some(kind), _)), name) => (kind, "name", name.map(|name| name.0)),
        (Some((None, word)), None) => (EventKind::Track, "type", Some(word)),
        (Some((None, _)), Some(_)) => {
            return Err((Reason::UnknownKind, "`type` is one of track, identify, page, screen, group, alias".to_owned()));
        }
        (None, Some(name)) => (EventKind::Track, "name", Some(name.0)),
        (None, None) if native.traits.is_some() => (EventKind::Identify, "name", None),
        (None, None) => return Err((Reason::BadName, "an event names its type".to_owned())),
    };
    let name = match (kind, &event) {
        (EventKind::Track, Some(text)) => event_name(field, text)?,
        (EventKind::Track, None) => return Err((Reason::BadName, "an event names its type".to_owned())),
        (other, _) => default_name(other).to_owned(),
    };
    let named = native.identifiers.unwrap_or_default();
    let mut identifiers = Vec::with_capacity(named.len().min(IDENTIFIERS_MAX));
    for (place, named) in named.iter().enumerate() {
        if named.kind.0 == "anchor" && internal {
            identifiers.extend(Identifier::anchor(&named.value.0));
            continue;
        }
        if !Identifier::is_kind(&named.kind.0) {
            return Err((Reason::BadIdentifier, "an identifier's type is one of those at /v1/identity/rules".to_owned()));
        }
        add_identifier(&mut identifiers, &named.kind.0, &named.value.0, named.app.as_ref().map(|app| &*app.0))
            .map_err(|Unfit| unfit(&format!("identifiers[{place}]")))?;
    }
    Ok(Message {
        kind,
        message_id: message_id("message_id", native.message_id)?,
        name,
        page: event.filter(|_| kind != EventKind::Track).map(plain),
        app: native.app.map(|app| plain(app.0)),
        identifiers,
        own_time: time(native.occurred_at.as_ref())?,
        sent_at: None,
        properties: native.properties,
        traits: native.traits,
        touch: native.touch.map(touch::bounded),
        context_faults: Vec::new(),
    })
}

/// An event that is sent to `POST /v1/events` as the Segment protocol spells it; what it says in our spelling beside that counts where
/// the protocol's member is missing.
fn read_segment_among_natives<'a>(native: Native<'a>, raw: &'a str) -> Result<Message<'a>, Refused> {
    let untyped_track = native.kind.is_none() && native.event.is_some();
    let message = read_segment(untyped_track.then_some(EventKind::Track), raw, None)?;
    let named = message_id("message_id", native.message_id)?;
    let occurred_at = time(native.occurred_at.as_ref())?;
    Ok(Message {
        message_id: message.message_id.or(named),
        app: message.app.or(native.app.map(|app| plain(app.0))),
        own_time: message.own_time.or(occurred_at),
        touch: message.touch.or(native.touch.map(touch::bounded)),
        ..message
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
            assert_eq!(read(Spelling::Segment, None, raw, None).map(|_| ()).map_err(|(reason, _)| reason), Err(reason), "{raw:.80}");
        }
        let fine = r#"{"type":"track","event":"A","userId":7,"timestamp":"9999-12-31T23:59:59Z","context":null,"properties":null}"#;
        assert!(read(Spelling::Segment, None, fine, None).is_ok());
    }

    #[test]
    fn control_characters_are_refused_where_text_names_something() {
        let segment = |members: &str| (Spelling::Segment, format!(r#"{{"type":"track",{members}}}"#));
        let native = |members: &str| (Spelling::Native, format!("{{{members}}}"));
        let who = r#""identifiers":[{"type":"device","value":"x"}]"#;
        for ((spelling, raw), reason, field) in [
            (segment(r#""event":"A","anonymousId":"x","messageId":"a\u0000b""#), Reason::BadMessageId, "`messageId`"),
            (segment(r#""event":"A\u0000B","anonymousId":"x""#), Reason::BadName, "`event`"),
            (segment(r#""event":"A","anonymousId":"x\u0000y""#), Reason::BadIdentifier, "`anonymousId`"),
            (segment(r#""event":"A","userId":"x\u001fy""#), Reason::BadIdentifier, "`userId`"),
            (native(&format!(r#""name":"a\u0000b",{who}"#)), Reason::BadName, "`name`"),
            (native(&format!(r#""type":"a\u0000b",{who}"#)), Reason::BadName, "`type`"),
            (native(&format!(r#""name":"a","message_id":"m\u007f",{who}"#)), Reason::BadMessageId, "`message_id`"),
            (native(r#""name":"a","identifiers":[{"type":"device","value":"a\u0000b"}]"#), Reason::BadIdentifier, "`identifiers[0]`"),
            (
                native(r#""name":"a","identifiers":[{"type":"openid","value":"a","app":"m\u0000n"}]"#),
                Reason::BadIdentifier,
                "`identifiers[0]`",
            ),
            (native(r#""name":"a","identifiers":[{"type":"openid@m\u0000n","value":"a"}]"#), Reason::BadIdentifier, "`identifiers[0]`"),
        ] {
            match read(spelling, None, &raw, None) {
                Err((found, detail)) => assert!(found == reason && detail.contains(field), "{raw}: {found:?} {detail}"),
                Ok(message) => panic!("{raw} is taken as {message:?}"),
            }
        }
        let ends = r#"{"type":"track","event":" Unit Viewed\n","anonymousId":"x\r\n","name":"a\u0000b"}"#;
        let read = read(Spelling::Segment, None, ends, None).map(|message| (message.name, message.page));
        assert_eq!(read, Ok(("unit_viewed".to_owned(), Some(Cow::Borrowed("ab")))));
    }

    /// What of a message of this context is taken: app, campaign, number of identifiers; and what was left out.
    type Taken = (Option<&'static str>, Option<&'static str>, usize, Vec<&'static str>);

    fn check_context(own: &str, batch: Option<&str>, expected: &Taken) {
        let raw = format!(r#"{{"type":"track","event":"A","anonymousId":"x"{own}}}"#);
        match read(Spelling::Segment, None, &raw, batch) {
            Ok(message) => {
                let campaign = message.touch.as_ref().and_then(|touch| touch.campaign.as_deref());
                let taken = (message.app.as_deref(), campaign, message.identifiers.len(), message.context_faults);
                assert_eq!(&taken, expected, "{own} {batch:?}");
            }
            Err(refused) => panic!("{own} is refused: {refused:?}"),
        }
    }

    #[test]
    fn a_context_never_refuses_its_event() {
        let long = format!(r#","context":{{"device":{{"id":"{}"}},"app":{{"name":"w"}}}}"#, "x".repeat(300));
        for (own, expected) in [
            (r#","context":"x""#, (None, None, 1, vec!["$context"])),
            (r#","context":[{"name":"w"}]"#, (None, None, 1, vec!["$context"])),
            (r#","context":{"campaign":"spring","app":{"name":"w"}}"#, (Some("w"), None, 1, vec!["$context.campaign"])),
            (r#","context":{"campaign":["spring","a","b"]}"#, (None, None, 1, vec!["$context.campaign"])),
            (r#","context":{"campaign":{"source":true,"name":"c"}}"#, (None, Some("c"), 1, vec!["$context.campaign.source"])),
            (r#","context":{"campaign":{"source":"\ud800","name":"c"}}"#, (None, Some("c"), 1, vec!["$context.campaign.source"])),
            (r#","context":{"externalIds":null,"traits":null,"app":{"name":"w"}}"#, (Some("w"), None, 1, vec![])),
            (r#","context":{"page":"x","campaign":{"name":"c"}}"#, (None, Some("c"), 1, vec!["$context.page"])),
            (r#","context":{"device":[],"app":{"name":7}}"#, (Some("7"), None, 1, vec!["$context.device"])),
            (r#","context":{"traits":{"phone":{},"email":"a@b.c"}}"#, (None, None, 2, vec!["$context.traits.phone"])),
            (
                r#","context":{"externalIds":[7,{"type":"crm","id":"c1"},{"type":"unheard","id":"u"}]}"#,
                (None, None, 2, vec!["$context.externalIds[]"]),
            ),
            (r#","context":{"device":{"id":"a\u0000b"}}"#, (None, None, 1, vec!["$context.device.id"])),
            (r#","context":{"app":{"name":"w\u0000x"}}"#, (Some("wx"), None, 1, vec![])),
            (long.as_str(), (Some("w"), None, 1, vec!["$context.device.id"])),
        ] {
            check_context(own, None, &expected);
        }
    }

    #[test]
    fn a_batchs_context_counts_where_a_message_has_none() {
        let batch = Some(r#"{"app":{"name":"batch"},"campaign":{"name":"b"},"device":{"id":"d"}}"#);
        for (own, expected) in [
            ("", (Some("batch"), Some("b"), 2, vec![])),
            (r#","context":null"#, (Some("batch"), Some("b"), 2, vec![])),
            (r#","context":{"app":{"name":"own"}}"#, (Some("own"), Some("b"), 2, vec![])),
            (r#","context":{"campaign":{"source":"s"},"device":{"id":"e"}}"#, (Some("batch"), None, 2, vec![])),
            (r#","context":{"app":5}"#, (Some("batch"), Some("b"), 2, vec!["$context.app"])),
        ] {
            check_context(own, batch, &expected);
        }
    }
}
