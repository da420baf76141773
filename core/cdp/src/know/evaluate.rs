//! What a customer is as of an instant and a position: features folded, tags decided, segments looked up.

use super::catalogue::{Catalogue, Decider, Feature, FeatureState, Reference};
use super::expression::Aggregation;
use super::predicate::Predicate;
use super::standing::{Standing, TagStanding};
use super::state::{AnchorState, fold_at, read_at, turns_at};
use super::tagger::{ActiveTagger, TAGGER_ROWS_MAX, TaggerBatch, Taggers, column};
use super::value::Value;
use super::window::{Grid, age_reaches, age_turns};
use heyuan_contract::{Cause, CustomerId};
use heyuan_kernel::Problem;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// About a customer on whom a tagger failed it is asked again after this long, in milliseconds.
const FAILED_TAGGER_MS: i64 = 60_000;

/// A tag with its value for each row.
type Values = (String, Vec<Option<String>>);

/// A customer to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) customer: CustomerId,
    pub(crate) before: Arc<Standing>,
    /// What is kept of its anchors; `None` when it has none any more.
    pub(crate) anchors: Option<Vec<Arc<AnchorState>>>,
    /// Purposes for which it gave consent.
    pub(crate) purposes: HashSet<String>,
    pub(crate) cause: Cause,
}

/// With what, and as of when, customers are looked at.
pub(crate) struct Moment<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) grid: &'a Grid,
    pub(crate) taggers: &'a dyn Taggers,
    pub(crate) at_ms: i64,
    pub(crate) position: i64,
}

/// The value of a feature in a standing, as it reads at an instant; `None` while it is being filled.
pub(crate) fn value_of(grid: &Grid, feature: &Feature, standing: &Standing, at_ms: i64) -> Option<Value> {
    if feature.state != FeatureState::Ready {
        return None;
    }
    let fold = feature.fold.as_ref();
    match standing.values.get(&feature.id) {
        Some(held) => Some(read_at(grid, fold, &held.value, at_ms)),
        None => fold.filter(|fold| fold.aggregation == Aggregation::Count).map(|_| Value::whole(0)),
    }
}

/// What a name reads as in a standing.
pub(crate) fn lookup(catalogue: &Catalogue, grid: &Grid, reference: &Reference, standing: &Standing, at_ms: i64) -> Option<Value> {
    match reference {
        Reference::Feature(index) => value_of(grid, &catalogue.features[*index], standing, at_ms),
        Reference::Tag(tag) => standing.tags.get(tag).map(|tag| Value::text(&tag.value)),
    }
}

impl Moment<'_> {
    /// The customers as they are now, in the order given.
    pub(crate) async fn evaluate(&self, subjects: &[Subject]) -> Vec<Standing> {
        let mut rows: Vec<Standing> = subjects.iter().map(|subject| self.folded(subject)).collect();
        let mut retry: HashSet<usize> = HashSet::new();
        for decider in &self.catalogue.order {
            match decider {
                Decider::Rule(index) => self.decide_rule(*index, subjects, &mut rows),
                Decider::Tagger(index) => self.ask_tagger(*index, subjects, &mut rows, &mut retry).await,
            }
        }
        for (place, (row, subject)) in rows.iter_mut().zip(subjects).enumerate() {
            let Some(anchors) = &subject.anchors else { continue };
            row.segments = self.segments(row, subject);
            row.due_ms = self.due(row, anchors, retry.contains(&place));
        }
        rows
    }

    fn folded(&self, subject: &Subject) -> Standing {
        let mut row = Standing {
            number: subject.before.number,
            gone: subject.anchors.is_none(),
            as_of_ms: self.at_ms,
            position: self.position,
            ..Standing::default()
        };
        let Some(anchors) = &subject.anchors else { return row };
        row.units = anchors.iter().flat_map(|anchor| anchor.units()).collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let ready = self.catalogue.features.iter().filter(|feature| feature.state == FeatureState::Ready);
        for (feature, fold) in ready.filter_map(|feature| feature.fold.as_ref().map(|fold| (feature, fold))) {
            let held = fold_at(self.grid, feature.id, fold, anchors.iter().map(Arc::as_ref), self.at_ms);
            // A count that nothing was ever counted for is 0 without being kept.
            if let Some(held) = held.filter(|held| held.position > 0) {
                row.values.insert(feature.id, held);
            }
        }
        row.purposes = subject.purposes.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        row.looked_ms = subject.before.looked_ms.clone();
        let written: HashSet<&str> = self.written();
        row.tags =
            subject.before.tags.iter().filter(|(tag, _)| written.contains(tag.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
        row
    }

    /// Every tag that a rule or a tagger writes, those that can't be decided at the moment among them.
    fn written(&self) -> HashSet<&str> {
        let rules = self.catalogue.rules.iter().map(|rule| rule.name.as_str());
        rules.chain(self.catalogue.taggers.iter().flat_map(|tagger| tagger.plugin.tags.iter().map(String::as_str))).collect()
    }

    fn holds(&self, predicate: &Predicate, row: &Standing) -> bool {
        predicate.holds(&|name| lookup(self.catalogue, self.grid, self.catalogue.reference(name)?, row, self.at_ms))
    }

    fn set_tag(&self, row: &mut Standing, tag: &str, value: Option<String>, version: &str, cause: Cause) {
        let Some(value) = value else {
            row.tags.remove(tag);
            return;
        };
        match row.tags.get_mut(tag) {
            Some(standing) if standing.value == value => version.clone_into(&mut standing.version),
            _ => {
                let standing = TagStanding { value, since_ms: self.at_ms, version: version.to_owned(), cause, position: self.position };
                row.tags.insert(tag.to_owned(), standing);
            }
        }
    }

    fn decide_rule(&self, index: usize, subjects: &[Subject], rows: &mut [Standing]) {
        let rule = &self.catalogue.rules[index];
        let version = format!("v{}", rule.version);
        for (row, subject) in rows.iter_mut().zip(subjects).filter(|(row, _)| !row.gone) {
            let case = rule.cases.iter().find(|(_, when)| self.holds(when, row));
            self.set_tag(row, &rule.name, case.map(|(value, _)| value.clone()), &version, subject.cause);
        }
    }

    /// Asks a tagger about the customers for whom its answer may have changed; those on whom it fails keep their tags.
    async fn ask_tagger(&self, index: usize, subjects: &[Subject], rows: &mut [Standing], retry: &mut HashSet<usize>) {
        let tagger = &self.catalogue.taggers[index];
        let plugin = &tagger.plugin;
        let places: Vec<usize> = (0..rows.len()).filter(|place| self.must_ask(index, &subjects[*place].before, &rows[*place])).collect();
        for places in places.chunks(TAGGER_ROWS_MAX) {
            match self.ask(plugin, places, rows).await {
                Ok((answers, failed)) => {
                    for (tag, values) in answers {
                        for (row, (place, value)) in places.iter().zip(values).enumerate() {
                            if failed.contains(&row) {
                                continue;
                            }
                            self.set_tag(&mut rows[*place], &tag, value, &plugin.version(), subjects[*place].cause);
                        }
                    }
                    for (row, place) in places.iter().enumerate() {
                        if failed.contains(&row) {
                            rows[*place].looked_ms.remove(&plugin.name);
                            retry.insert(*place);
                        } else {
                            rows[*place].looked_ms.insert(plugin.name.clone(), self.at_ms);
                        }
                    }
                }
                Err(problem) => {
                    let customers = places.len();
                    tracing::warn!(tagger = %plugin.name, digest = %plugin.digest, customers, %problem, "a tagger failed; customers keep their tags");
                    for place in places {
                        rows[*place].looked_ms.remove(&plugin.name);
                        retry.insert(*place);
                    }
                }
            }
        }
    }

    fn must_ask(&self, index: usize, before: &Standing, row: &Standing) -> bool {
        let tagger = &self.catalogue.taggers[index];
        if row.gone {
            return false;
        }
        let Some(looked_ms) = before.looked_ms.get(&tagger.plugin.name) else { return true };
        let rebuilt = tagger.cursor.is_some_and(|cursor| i64::from(row.number) > cursor);
        let stale = tagger.plugin.refresh_s.is_some_and(|seconds| self.at_ms >= refreshes_at(*looked_ms, seconds));
        rebuilt
            || stale
            || tagger.plugin.features.iter().filter_map(|feature| self.catalogue.reference(&feature.name)).any(|reference| {
                let now = lookup(self.catalogue, self.grid, reference, row, self.at_ms);
                now != lookup(self.catalogue, self.grid, reference, before, before.as_of_ms)
            })
    }

    /// The values of each tag, and the rows without an answer.
    async fn ask(&self, plugin: &ActiveTagger, places: &[usize], rows: &[Standing]) -> Result<(Vec<Values>, HashSet<usize>), Problem> {
        let columns = plugin.features.iter().map(|feature| {
            let reference = self.catalogue.reference(&feature.name);
            let values = places.iter().map(|place| lookup(self.catalogue, self.grid, reference?, &rows[*place], self.at_ms));
            column(feature, values)
        });
        let batch = TaggerBatch { now_ms: self.at_ms, columns: columns.collect(), rows: places.len() };
        let answered = self.taggers.evaluate(plugin, batch).await?;
        let mut by_tag: HashMap<_, _> = answered.columns.into_iter().map(|column| (column.tag, column.values)).collect();
        let values: Result<Vec<Values>, Problem> = plugin
            .tags
            .iter()
            .map(|tag| match by_tag.remove(tag) {
                Some(values) if values.len() == places.len() => Ok((tag.clone(), values)),
                _ => Err(Problem::new(
                    super::codes::BAD_TAGGER_ANSWER,
                    format!("{} did not answer the tag {tag} for every row", plugin.name),
                )),
            })
            .collect();
        Ok((values?, answered.failed.into_iter().collect()))
    }

    fn segments(&self, row: &Standing, subject: &Subject) -> Vec<String> {
        let segments = self.catalogue.segments.iter().filter(|segment| {
            let consents = segment.purpose.as_ref().is_none_or(|purpose| subject.purposes.contains(purpose));
            consents && self.holds(&segment.predicate, row)
        });
        segments.map(|segment| segment.id.clone()).collect()
    }

    /// The next instant at which time alone may change the row.
    fn due(&self, row: &Standing, anchors: &[Arc<AnchorState>], failed: bool) -> Option<i64> {
        let mut turns: Vec<i64> = if failed { vec![self.at_ms + FAILED_TAGGER_MS] } else { Vec::new() };
        for feature in self.catalogue.features.iter().filter(|feature| feature.state == FeatureState::Ready) {
            let Some(fold) = &feature.fold else { continue };
            turns.extend(turns_at(self.grid, feature.id, fold, anchors.iter().map(Arc::as_ref), self.at_ms));
            if let (Aggregation::SecondsSince, Some(held)) = (fold.aggregation, row.values.get(&feature.id))
                && let (Value::Moment(since_ms), Some(interest)) = (&held.value, self.catalogue.age_interest(feature.id))
            {
                turns.extend(interest.every_step.then(|| age_turns(self.grid, *since_ms, self.at_ms)));
                turns.extend(interest.thresholds.iter().filter_map(|seconds| age_reaches(self.grid, *since_ms, *seconds, self.at_ms)));
            }
        }
        for plugin in self.catalogue.taggers.iter().map(|tagger| &tagger.plugin) {
            if let (Some(looked_ms), Some(seconds)) = (row.looked_ms.get(&plugin.name), plugin.refresh_s) {
                turns.push(refreshes_at(*looked_ms, seconds));
            }
        }
        turns.into_iter().min().map(|due| due.max(self.at_ms + 1))
    }
}

fn refreshes_at(looked_ms: i64, seconds: u64) -> i64 {
    looked_ms.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
}
