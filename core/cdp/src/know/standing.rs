//! What is known of one customer as of an instant and a position: one row, one read.

use super::codec::{Reader, Writer};
use super::state::{FeatureId, Held};
use heyuan_contract::{Cause, OrgUnitId};
use std::collections::BTreeMap;

const VERSION: u8 = 1;

/// A tag that a customer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagStanding {
    /// Its value; a flag spells `true` or `false`.
    pub value: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// The rule's version (`v3`) or the tagger's (`home-upgrader@9f2c…`) that says so now.
    pub version: String,
    /// Why it got this value.
    pub cause: Cause,
    /// The position up to which events were taken into account then.
    pub position: i64,
}

/// What is known of one customer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// Its place in bitmaps; never shown.
    pub(crate) number: u32,
    /// No such customer any more: merged into another, or erased. The row stays so that readers that follow see it go.
    pub(crate) gone: bool,
    /// When it was reckoned.
    pub(crate) as_of_ms: i64,
    /// The events that it takes into account.
    pub(crate) position: i64,
    /// When time alone may change it.
    pub(crate) due_ms: Option<i64>,
    pub(crate) units: Vec<OrgUnitId>,
    pub(crate) values: BTreeMap<FeatureId, Held>,
    pub(crate) tags: BTreeMap<String, TagStanding>,
    /// Ids of its segments.
    pub(crate) segments: Vec<String>,
    /// Purposes for which it gave consent.
    pub(crate) purposes: Vec<String>,
    /// When each tagger last looked at it.
    pub(crate) looked_ms: BTreeMap<String, i64>,
}

pub(crate) const fn cause_text(cause: Cause) -> &'static str {
    match cause {
        Cause::Event => "event",
        Cause::Time => "time",
        Cause::Late => "late",
        Cause::Merge => "merge",
        Cause::Unmerge => "unmerge",
        Cause::Redefined => "redefined",
    }
}

pub(crate) fn parse_cause(text: &str) -> Option<Cause> {
    [Cause::Event, Cause::Time, Cause::Late, Cause::Merge, Cause::Unmerge, Cause::Redefined].into_iter().find(|c| cause_text(*c) == text)
}

impl Standing {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.int(i64::from(self.number));
        writer.size(usize::from(self.gone));
        writer.int(self.as_of_ms);
        writer.int(self.position);
        writer.int(self.due_ms.unwrap_or(-1));
        writer.size(self.units.len());
        self.units.iter().for_each(|unit| writer.text(unit.as_str()));
        writer.size(self.values.len());
        for (feature, held) in &self.values {
            writer.size(*feature as usize);
            writer.value(&held.value);
            writer.int(held.position);
        }
        writer.size(self.tags.len());
        for (name, tag) in &self.tags {
            for text in [name, &tag.value, &tag.version] {
                writer.text(text);
            }
            writer.int(tag.since_ms);
            writer.text(cause_text(tag.cause));
            writer.int(tag.position);
        }
        writer.size(self.segments.len());
        self.segments.iter().for_each(|segment| writer.text(segment));
        writer.size(self.purposes.len());
        self.purposes.iter().for_each(|purpose| writer.text(purpose));
        writer.size(self.looked_ms.len());
        for (tagger, at_ms) in &self.looked_ms {
            writer.text(tagger);
            writer.int(*at_ms);
        }
        writer.done()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Standing> {
        let mut reader = Reader::new(VERSION, bytes)?;
        let number = u32::try_from(reader.int()?).ok()?;
        let gone = reader.size()? == 1;
        let (as_of_ms, position) = (reader.int()?, reader.int()?);
        let due_ms = Some(reader.int()?).filter(|due| *due >= 0);
        let units = reader.list(|reader| OrgUnitId::new(reader.text()?).ok())?;
        let values = reader.list(|reader| {
            let feature = FeatureId::try_from(reader.size()?).ok()?;
            Some((feature, Held { value: reader.value()?, position: reader.int()? }))
        })?;
        let tags = reader.list(|reader| {
            let name = reader.text()?.to_owned();
            let (value, version) = (reader.text()?.to_owned(), reader.text()?.to_owned());
            let since_ms = reader.int()?;
            let cause = parse_cause(reader.text()?)?;
            Some((name, TagStanding { value, since_ms, version, cause, position: reader.int()? }))
        })?;
        let segments = reader.list(|reader| reader.text().map(str::to_owned))?;
        let purposes = reader.list(|reader| reader.text().map(str::to_owned))?;
        let looked_ms = reader.list(|reader| Some((reader.text()?.to_owned(), reader.int()?)))?;
        Some(Standing {
            number,
            gone,
            as_of_ms,
            position,
            due_ms,
            units,
            values: values.into_iter().collect(),
            tags: tags.into_iter().collect(),
            segments,
            purposes,
            looked_ms: looked_ms.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::know::value::Value;

    #[test]
    fn reads_what_it_wrote() {
        let tag = TagStanding { value: "hot".into(), since_ms: 7, version: "v1".into(), cause: Cause::Late, position: 9 };
        let standing = Standing {
            number: 70_000,
            gone: false,
            as_of_ms: 5,
            position: 12,
            due_ms: Some(8),
            units: vec![OrgUnitId::new("mall-1").expect("valid")],
            values: BTreeMap::from([(3, Held { value: Value::whole(-4), position: 11 })]),
            tags: BTreeMap::from([("intent".to_owned(), tag)]),
            segments: vec!["seg_1".into()],
            purposes: vec!["marketing".into()],
            looked_ms: BTreeMap::from([("home-upgrader".to_owned(), 5)]),
        };
        assert_eq!(Standing::decode(&standing.encode()), Some(standing));
        assert_eq!(Standing::decode(&[9, 9]), None);
    }
}
