//! Everything that is defined, read together: features, tag rules, taggers and segments, and the order in which tags are decided.

use super::expression::{Expression, Fold};
use super::parse;
use super::predicate::Predicate;
use super::state::FeatureId;
use super::tagger::ActiveTagger;
use heyuan_contract::OrgUnitId;
use heyuan_kernel::wake::Topic;
use heyuan_kernel::{Error, sql};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What is read of a row of `cdp_segment`.
const SEGMENT_COLUMNS: &str = "id, name, predicate, purpose, unit, version, cursor, entered, gone";

/// What is read of a row of `cdp_tag_rule`.
const RULE_COLUMNS: &str = "name, cases, version, cursor";

/// What is read of a row of `cdp_feature`.
const FEATURE_COLUMNS: &str = "name, id, expression, state, history_until, history_cursor, cursor";

/// Definitions of one kind that a tenant may have.
/// What features, tags, segments and taggers are defined has changed.
pub(crate) const DEFINITIONS: Topic = "definitions";
pub(crate) const DEFINITIONS_MAX: u64 = 500;

/// How far a feature has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureState {
    /// Declared; the stream has not taken it up yet.
    Declared,
    /// The stream carries it on while history is read.
    Filling,
    /// Complete.
    Ready,
}

impl FeatureState {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            FeatureState::Declared => "declared",
            FeatureState::Filling => "filling",
            FeatureState::Ready => "ready",
        }
    }

    fn parse(text: &str) -> Option<FeatureState> {
        [FeatureState::Declared, FeatureState::Filling, FeatureState::Ready].into_iter().find(|state| state.as_str() == text)
    }
}

/// A declared feature.
#[derive(Debug, Clone)]
pub(crate) struct Feature {
    pub(crate) id: FeatureId,
    pub(crate) name: String,
    pub(crate) expression: Expression,
    pub(crate) fold: Option<Fold>,
    pub(crate) state: FeatureState,
    pub(crate) history_until: i64,
    pub(crate) history_cursor: i64,
    /// Customers up to this number have been reckoned anew; `None` when all have.
    pub(crate) cursor: Option<i64>,
}

/// One line of a tag rule: the first whose condition holds gives the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagCase {
    /// The tag's value.
    pub value: String,
    /// The condition, as a predicate.
    pub when: serde_json::Value,
}

/// A tag rule.
#[derive(Debug, Clone)]
pub(crate) struct TagRule {
    pub(crate) name: String,
    pub(crate) written: Vec<TagCase>,
    pub(crate) cases: Vec<(String, Predicate)>,
    pub(crate) version: i64,
    pub(crate) cursor: Option<i64>,
}

/// A segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) written: serde_json::Value,
    pub(crate) predicate: Predicate,
    pub(crate) purpose: Option<String>,
    pub(crate) unit: Option<OrgUnitId>,
    pub(crate) version: i64,
    pub(crate) cursor: Option<i64>,
    pub(crate) entered: i64,
    pub(crate) gone: i64,
}

/// A tagger in force, and how far customers have been asked about.
#[derive(Debug, Clone)]
pub(crate) struct Tagger {
    pub(crate) plugin: ActiveTagger,
    pub(crate) cursor: Option<i64>,
}

/// What decides tags, in an order in which whatever is read has been decided before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decider {
    Rule(usize),
    Tagger(usize),
}

/// What a name in a predicate or in a tagger's declaration stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Feature(usize),
    Tag(String),
}

/// Everything that is defined, as of one version.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) version: i64,
    pub(crate) features: Vec<Feature>,
    pub(crate) rules: Vec<TagRule>,
    pub(crate) taggers: Vec<Tagger>,
    /// Taggers that are in force no more while customers still carry their tags: name and how far those were taken off.
    pub(crate) retired: Vec<(String, i64)>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) order: Vec<Decider>,
    by_text: HashMap<String, usize>,
    by_event: HashMap<String, Vec<usize>>,
    /// Every name that a rule, a segment or a tagger uses.
    references: HashMap<String, Reference>,
    /// Features by the instants at which a rule, a segment or a tagger can turn as their age grows.
    ages: HashMap<FeatureId, AgeInterest>,
}

/// What rules want to know of a `seconds_since`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AgeInterest {
    /// Seconds at which some rule turns.
    pub(crate) thresholds: BTreeSet<i64>,
    /// A tagger reads it: every step counts.
    pub(crate) every_step: bool,
}

impl Catalogue {
    /// One that was not read yet: any stored version is newer.
    pub(super) fn unread() -> Catalogue {
        Catalogue { version: -1, ..Catalogue::default() }
    }

    /// Reads what is defined. `active` are the taggers in force.
    pub(crate) async fn load<C: sql::Connection>(conn: &C, version: i64, active: Vec<ActiveTagger>) -> Result<Catalogue, Error> {
        let features =
            sql::all(conn, &format!("SELECT {FEATURE_COLUMNS} FROM cdp_feature ORDER BY id LIMIT $1"), [DEFINITIONS_MAX.into()]).await?;
        let rules =
            sql::all(conn, &format!("SELECT {RULE_COLUMNS} FROM cdp_tag_rule ORDER BY name LIMIT $1"), [DEFINITIONS_MAX.into()]).await?;
        let segments =
            sql::all(conn, &format!("SELECT {SEGMENT_COLUMNS} FROM cdp_segment ORDER BY id LIMIT $1"), [DEFINITIONS_MAX.into()]).await?;
        let known = sql::all(conn, "SELECT name, generation, cursor FROM cdp_tagger", []).await?;
        let mut cursors = HashMap::new();
        for row in &known {
            let generation: i64 = sql::get(row, "generation")?;
            cursors.insert(sql::get::<String>(row, "name")?, (generation, sql::get::<Option<i64>>(row, "cursor")?));
        }
        let retired = cursors.iter().filter(|(name, _)| active.iter().all(|plugin| plugin.name != **name));
        let retired = retired.map(|(name, (_, cursor))| (name.clone(), cursor.unwrap_or(0))).collect();
        let taggers = active.into_iter().map(|plugin| {
            let cursor = match cursors.get(&plugin.name) {
                Some((generation, cursor)) if *generation == plugin.generation => *cursor,
                _ => Some(0),
            };
            Tagger { plugin, cursor }
        });
        let mut catalogue = Catalogue {
            version,
            features: features.iter().map(read_feature).collect::<Result<_, _>>()?,
            rules: rules.iter().map(read_rule).collect::<Result<_, _>>()?,
            taggers: taggers.collect(),
            retired,
            segments: segments.iter().map(read_segment).collect::<Result<_, _>>()?,
            ..Catalogue::default()
        };
        catalogue.index();
        Ok(catalogue)
    }

    fn index(&mut self) {
        for (index, feature) in self.features.iter().enumerate() {
            self.by_text.insert(feature.expression.to_string(), index);
            if let Some(fold) = feature.fold.as_ref().filter(|_| feature.state != FeatureState::Declared) {
                self.by_event.entry(fold.event.clone()).or_default().push(index);
            }
        }
        // A declared name goes before an expression of the same text.
        for (index, feature) in self.features.iter().enumerate() {
            self.by_text.insert(feature.name.clone(), index);
        }
        self.references = self.used_names().into_iter().filter_map(|name| self.resolve(&name).map(|found| (name, found))).collect();
        let (order, left_out) = self.sort();
        if !left_out.is_empty() {
            tracing::warn!(tags = ?left_out, "these tags read each other in a circle, or read what is not declared, and are not decided");
        }
        self.order = order;
        self.ages = self.age_interests();
    }

    fn used_names(&self) -> HashSet<String> {
        let read = self.deciders().into_iter().flat_map(|decider| self.reads(decider));
        read.chain(self.segments.iter().flat_map(|segment| segment.predicate.features())).map(str::to_owned).collect()
    }

    /// What a name that some rule, segment or tagger uses stands for.
    pub(crate) fn reference(&self, name: &str) -> Option<&Reference> {
        self.references.get(name)
    }

    /// What a name stands for; `None` when nothing of that name is declared.
    pub(crate) fn resolve(&self, text: &str) -> Option<Reference> {
        let index = match self.by_text.get(text) {
            Some(index) => *index,
            None => match parse(text).ok()? {
                Expression::Tag(tag) => return Some(Reference::Tag(tag)),
                expression => *self.by_text.get(&expression.to_string())?,
            },
        };
        match &self.features[index].expression {
            Expression::Tag(tag) => Some(Reference::Tag(tag.clone())),
            _ => Some(Reference::Feature(index)),
        }
    }

    /// The features that an event of this name can change.
    pub(crate) fn folded_from(&self, event: &str) -> impl Iterator<Item = (&Feature, &Fold)> {
        let indices = self.by_event.get(event).map_or(&[][..], Vec::as_slice);
        indices.iter().filter_map(|index| {
            let feature = &self.features[*index];
            feature.fold.as_ref().map(|fold| (feature, fold))
        })
    }

    pub(crate) fn is_defined(&self, id: FeatureId) -> bool {
        self.features.binary_search_by_key(&id, |feature| feature.id).is_ok()
    }

    pub(crate) fn age_interest(&self, id: FeatureId) -> Option<&AgeInterest> {
        self.ages.get(&id)
    }

    /// The tags that a decider writes.
    pub(crate) fn writes(&self, decider: Decider) -> Vec<&str> {
        match decider {
            Decider::Rule(index) => vec![&self.rules[index].name],
            Decider::Tagger(index) => self.taggers[index].plugin.tags.iter().map(String::as_str).collect(),
        }
    }

    fn reads(&self, decider: Decider) -> Vec<&str> {
        match decider {
            Decider::Rule(index) => self.rules[index].cases.iter().flat_map(|(_, when)| when.features()).collect(),
            Decider::Tagger(index) => self.taggers[index].plugin.features.iter().map(|feature| feature.name.as_str()).collect(),
        }
    }

    fn deciders(&self) -> Vec<Decider> {
        (0..self.rules.len()).map(Decider::Rule).chain((0..self.taggers.len()).map(Decider::Tagger)).collect()
    }

    /// Orders deciders so that what one reads is decided before; also answers the tags that no order can decide.
    fn sort(&self) -> (Vec<Decider>, Vec<String>) {
        let mut open = self.deciders();
        let written: HashSet<&str> = open.iter().flat_map(|decider| self.writes(*decider)).collect();
        let mut decided: HashSet<&str> = HashSet::new();
        let mut order = Vec::new();
        loop {
            let ready = open.iter().position(|decider| {
                self.reads(*decider).into_iter().all(|name| match self.resolve(name) {
                    Some(Reference::Tag(tag)) => !written.contains(tag.as_str()) || decided.contains(tag.as_str()),
                    Some(Reference::Feature(_)) => true,
                    None => false,
                })
            });
            let Some(index) = ready else {
                let left_out = open.iter().flat_map(|decider| self.writes(*decider)).map(str::to_owned).collect();
                return (order, left_out);
            };
            let decider = open.remove(index);
            decided.extend(self.writes(decider));
            order.push(decider);
        }
    }

    /// The tags that would read each other in a circle if a rule or a tagger were added that writes and reads these.
    pub(crate) fn circle(&self, writes: &[&str], reads: &[&str]) -> Option<String> {
        let mut reached: HashSet<String> = HashSet::new();
        let tags_of = |names: Vec<&str>| -> Vec<String> {
            names
                .into_iter()
                .filter_map(|name| self.resolve(name))
                .filter_map(|reference| match reference {
                    Reference::Tag(tag) => Some(tag),
                    Reference::Feature(_) => None,
                })
                .collect()
        };
        let mut open = tags_of(reads.to_vec());
        while let Some(tag) = open.pop() {
            if writes.contains(&tag.as_str()) {
                return Some(tag);
            }
            if reached.insert(tag.clone()) {
                for decider in self.deciders().into_iter().filter(|decider| self.writes(*decider).contains(&tag.as_str())) {
                    open.extend(tags_of(self.reads(decider)));
                }
            }
        }
        None
    }

    fn age_interests(&self) -> HashMap<FeatureId, AgeInterest> {
        let mut ages: HashMap<FeatureId, AgeInterest> = HashMap::new();
        let predicates = self.rules.iter().flat_map(|rule| rule.cases.iter().map(|(_, when)| when));
        for predicate in predicates.chain(self.segments.iter().map(|segment| &segment.predicate)) {
            predicate.visit(&mut |name, test| {
                if let Some(Reference::Feature(index)) = self.resolve(name) {
                    let interest = ages.entry(self.features[index].id).or_default();
                    for threshold in test.thresholds() {
                        // Beyond a bound, and beside an equal, is one second further.
                        let whole = threshold.as_whole().unwrap_or_else(|| (threshold.as_float()).ceil() as i64);
                        interest.thresholds.extend([whole, whole.saturating_add(1)]);
                    }
                }
            });
        }
        for feature in self.taggers.iter().flat_map(|tagger| &tagger.plugin.features) {
            if let Some(Reference::Feature(index)) = self.resolve(&feature.name) {
                ages.entry(self.features[index].id).or_default().every_step = true;
            }
        }
        ages
    }

    /// The lowest number up to which something still has to be reckoned anew.
    pub(crate) fn rebuilding_from(&self) -> Option<i64> {
        let ready = |feature: &&Feature| feature.state == FeatureState::Ready;
        let features = self.features.iter().filter(ready).filter_map(|feature| feature.cursor);
        let rules = self.rules.iter().filter_map(|rule| rule.cursor);
        let taggers = self.taggers.iter().filter_map(|tagger| tagger.cursor);
        let retired = self.retired.iter().map(|(_, cursor)| *cursor);
        features.chain(rules).chain(taggers).chain(retired).chain(self.segments.iter().filter_map(|segment| segment.cursor)).min()
    }
}

fn corrupt(what: &'static str) -> impl Fn(String) -> Error {
    move |why| Error::Corrupt { what, why }
}

fn read_feature(row: &sql::Row) -> Result<Feature, Error> {
    let text: String = sql::get(row, "expression")?;
    let expression = parse(&text).map_err(|error| corrupt("feature")(error.to_string()))?;
    let state: String = sql::get(row, "state")?;
    let id: i64 = sql::get(row, "id")?;
    Ok(Feature {
        id: FeatureId::try_from(id).map_err(|_| corrupt("feature id")(id.to_string()))?,
        name: sql::get(row, "name")?,
        fold: expression.fold(),
        expression,
        state: FeatureState::parse(&state).ok_or_else(|| corrupt("feature state")(state))?,
        history_until: sql::get(row, "history_until")?,
        history_cursor: sql::get(row, "history_cursor")?,
        cursor: sql::get(row, "cursor")?,
    })
}

fn read_rule(row: &sql::Row) -> Result<TagRule, Error> {
    let text: String = sql::get(row, "cases")?;
    let written: Vec<TagCase> = serde_json::from_str(&text).map_err(|error| corrupt("tag rule")(error.to_string()))?;
    let parse = |case: &TagCase| {
        let when = Predicate::parse(&case.when, "when").map_err(|problem| corrupt("tag rule")(problem.to_string()))?;
        Ok((case.value.clone(), when))
    };
    Ok(TagRule {
        name: sql::get(row, "name")?,
        cases: written.iter().map(parse).collect::<Result<_, Error>>()?,
        written,
        version: sql::get(row, "version")?,
        cursor: sql::get(row, "cursor")?,
    })
}

fn read_segment(row: &sql::Row) -> Result<Segment, Error> {
    let text: String = sql::get(row, "predicate")?;
    let written: serde_json::Value = serde_json::from_str(&text).map_err(|error| corrupt("segment")(error.to_string()))?;
    let predicate = Predicate::parse(&written, "predicate").map_err(|problem| corrupt("segment")(problem.to_string()))?;
    let unit: Option<String> = sql::get(row, "unit")?;
    Ok(Segment {
        id: sql::get(row, "id")?,
        name: sql::get(row, "name")?,
        written,
        predicate,
        purpose: sql::get(row, "purpose")?,
        unit: unit.map(OrgUnitId::new).transpose().map_err(|error| corrupt("segment")(error.to_string()))?,
        version: sql::get(row, "version")?,
        cursor: sql::get(row, "cursor")?,
        entered: sql::get(row, "entered")?,
        gone: sql::get(row, "gone")?,
    })
}
