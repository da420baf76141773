//! Audiences that are asked for once: predicates over columns kept in memory, which follow the standings as these are committed.

use super::Know;
use super::catalogue::{Catalogue, Reference};
use super::column::{Block, Column, Rows, cut, empty, merge, ones};
use super::define::checked;
use super::expression::Aggregation;
use super::memory::read_standing;
use super::predicate::{Edge, Predicate, Test};
use super::standing::Standing;
use super::state::FeatureId;
use super::value::{Number, Value};
use super::window::{Grid, age_seconds};
use heyuan_contract::Timestamp;
use heyuan_kernel::{Actor, Error, Problem, Reach, Rfc3339, Scope, sql};
use serde::Serialize;
use std::collections::HashMap;
use utoipa::ToSchema;

/// Columns kept; beyond it those that the present question does not need are dropped.
const COLUMNS_MAX: usize = 64;
/// Standings read at a time.
const PAGE_ROWS: u64 = 5_000;

/// How many belong to an audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AudienceView {
    /// Customers that the key sees and for whom the predicate holds.
    pub count: u64,
    /// Of how many.
    pub of: u64,
    /// When the count was true.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Rfc3339,
    /// The last event that is taken into account.
    pub position: i64,
}

/// What a column is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Feature(FeatureId),
    Tag(String),
    Purpose(String),
}

/// The columns, and how far they follow.
#[derive(Default)]
pub(crate) struct Frame {
    revision: i64,
    columns: HashMap<Key, Column>,
    pub(crate) living: Rows,
}

/// The columns behind one lock: a question is a few milliseconds.
pub(crate) struct Index(tokio::sync::Mutex<Frame>);

impl Index {
    pub(crate) fn new() -> Index {
        Index(tokio::sync::Mutex::new(Frame::default()))
    }
}

fn key_of(catalogue: &Catalogue, reference: &Reference) -> Key {
    match reference {
        Reference::Feature(index) => Key::Feature(catalogue.features[*index].id),
        Reference::Tag(tag) => Key::Tag(tag.clone()),
    }
}

impl Frame {
    fn put(&mut self, catalogue: &Catalogue, standing: &Standing) {
        self.living.set(standing.number, !standing.gone);
        for (key, column) in &mut self.columns {
            column.set(standing.number, raw(catalogue, key, standing).as_ref());
        }
    }

    pub(crate) fn column(&self, catalogue: &Catalogue, reference: &Reference) -> Option<&Column> {
        self.columns.get(&key_of(catalogue, reference))
    }
}

/// What a column keeps of a standing: like what rules read, but a `seconds_since` stays the moment that it counts from.
fn raw(catalogue: &Catalogue, key: &Key, standing: &Standing) -> Option<Value> {
    if standing.gone {
        return None;
    }
    match key {
        Key::Tag(tag) => standing.tags.get(tag).map(|tag| Value::text(&tag.value)),
        Key::Purpose(purpose) => standing.purposes.contains(purpose).then_some(Value::Flag(true)),
        Key::Feature(id) => match standing.values.get(id) {
            Some(held) => Some(held.value.clone()),
            None => {
                let fold = catalogue.features.iter().find(|feature| feature.id == *id)?.fold.as_ref()?;
                (fold.aggregation == Aggregation::Count).then(|| Value::whole(0))
            }
        },
    }
}

/// A question over columns, ready to be asked chunk by chunk.
pub(crate) enum Question {
    All(Vec<Question>),
    Any(Vec<Question>),
    Not(Box<Question>),
    Column(Key, Vec<Test>),
}

impl Question {
    /// Translates a predicate; ages become bounds on the moments that they count from.
    pub(crate) fn of(catalogue: &Catalogue, grid: &Grid, predicate: &Predicate, at_ms: i64) -> Result<Question, Problem> {
        let list = |list: &[Predicate]| list.iter().map(|one| Question::of(catalogue, grid, one, at_ms)).collect::<Result<Vec<_>, _>>();
        Ok(match predicate {
            Predicate::All(all) => Question::All(list(all)?),
            Predicate::Any(any) => Question::Any(list(any)?),
            Predicate::Not(one) => Question::Not(Box::new(Question::of(catalogue, grid, one, at_ms)?)),
            Predicate::Feature { name, test } => {
                let reference = catalogue.resolve(name).ok_or_else(|| Problem::not_found("feature", name))?;
                let key = key_of(catalogue, &reference);
                let is_age = match &reference {
                    Reference::Feature(index) => {
                        catalogue.features[*index].fold.as_ref().is_some_and(|fold| fold.aggregation == Aggregation::SecondsSince)
                    }
                    Reference::Tag(_) => false,
                };
                match (is_age, test) {
                    (true, Test::IsNot(value)) => {
                        Question::Not(Box::new(Question::Column(key, age_tests(grid, &Test::Is(value.clone()), at_ms))))
                    }
                    (true, test) => Question::Column(key, age_tests(grid, test, at_ms)),
                    (false, test) => Question::Column(key, vec![test.clone()]),
                }
            }
        })
    }

    pub(crate) fn keys(&self, keys: &mut Vec<Key>) {
        match self {
            Question::All(list) | Question::Any(list) => list.iter().for_each(|one| one.keys(keys)),
            Question::Not(one) => one.keys(keys),
            Question::Column(key, _) => keys.push(key.clone()),
        }
    }

    /// Rows of a chunk for which it holds.
    pub(crate) fn ask(&self, frame: &Frame, chunk: usize, living: &Block) -> Block {
        match self {
            Question::All(list) => list.iter().fold(living.clone(), |mut found, one| {
                cut(&mut found, &one.ask(frame, chunk, living));
                found
            }),
            Question::Any(list) => list.iter().fold(empty(), |mut found, one| {
                merge(&mut found, &one.ask(frame, chunk, living));
                found
            }),
            Question::Not(one) => super::column::without(living, &one.ask(frame, chunk, living)),
            Question::Column(key, tests) => tests.iter().fold(empty(), |mut found, test| {
                match frame.columns.get(key) {
                    Some(column) => merge(&mut found, &column.passing(chunk, living, test)),
                    None if test.passes(None) => merge(&mut found, living),
                    None => {}
                }
                found
            }),
        }
    }
}

/// Tests on the moment that an age counts from; any of them may hold. The later the moment, the smaller the age.
fn age_tests(grid: &Grid, test: &Test, at_ms: i64) -> Vec<Test> {
    // The latest moment whose age reaches so many seconds.
    let latest = |seconds: i64| {
        let (mut low, mut high) = (Timestamp::MIN.ms(), at_ms.saturating_add(86_400_000));
        while low < high {
            let middle = low + (high - low + 1) / 2;
            if age_seconds(grid, middle, at_ms) >= seconds { low = middle } else { high = middle - 1 }
        }
        Number::whole(low)
    };
    let between = |least: Option<i64>, most: Option<i64>| Test::Between {
        from: most.map(|most| (latest(most.saturating_add(1)), Edge::Beyond)),
        to: least.map(|least| (latest(least), Edge::Within)),
    };
    let floor = |number: Number| number.billionths().div_euclid(1_000_000_000).clamp(-1, i128::from(i64::MAX / 2)) as i64;
    let is_whole = |number: Number| number.as_whole().is_some();
    let equal = |value: &Value| value.number().and_then(Number::as_whole).map(|seconds| between(Some(seconds), Some(seconds)));
    match test {
        Test::Is(value) | Test::IsNot(value) => equal(value).into_iter().collect(),
        Test::OneOf(values) => values.iter().filter_map(equal).collect(),
        Test::Exists(_) => vec![test.clone()],
        Test::Between { from, to } => {
            let least = from.map(|(number, edge)| if is_whole(number) && edge == Edge::Within { floor(number) } else { floor(number) + 1 });
            let most = to.map(|(number, edge)| if is_whole(number) && edge == Edge::Beyond { floor(number) - 1 } else { floor(number) });
            vec![between(least, most)]
        }
    }
}

impl Know {
    /// Counts the customers for whom a predicate holds, as of now.
    ///
    /// # Errors
    /// `forbidden`; `bad_predicate` with the place; the database's.
    pub async fn count_audience(
        &self,
        actor: &Actor,
        predicate: &serde_json::Value,
        purpose: Option<&str>,
    ) -> Result<AudienceView, Problem> {
        actor.require_any(&[Scope::Admin, Scope::App])?;
        let (catalogue, counters) = self.fresh_view().await?;
        let predicate = checked(&catalogue, predicate, "predicate")?;
        let at_ms = self.now_ms();
        let mut question = Question::of(&catalogue, self.grid(), &predicate, at_ms)?;
        if let Some(purpose) = purpose {
            let consents = Question::Column(Key::Purpose(purpose.to_owned()), vec![Test::Exists(true)]);
            question = Question::All(vec![question, consents]);
        }
        let mut keys = Vec::new();
        question.keys(&mut keys);
        let frame = self.frame(&catalogue, &keys).await?;
        let visible = self.rows_of(actor).await?;
        let (mut count, mut of) = (0, 0);
        for chunk in 0..frame.living.chunks() {
            let Some(living) = frame.living.chunk(chunk) else { continue };
            let mut seen = living.clone();
            if let Some(visible) = &visible {
                match visible.chunk(chunk) {
                    Some(visible) => cut(&mut seen, visible),
                    None => continue,
                }
            }
            let mut found = question.ask(&frame, chunk, living);
            cut(&mut found, &seen);
            count += ones(&found);
            of += ones(&seen);
        }
        Ok(AudienceView { count, of, as_of: Rfc3339(Timestamp::clamped(at_ms)), position: counters.position })
    }

    /// The rows that an actor sees; `None` for all.
    pub(crate) async fn rows_of(&self, actor: &Actor) -> Result<Option<Rows>, Problem> {
        match actor.reach() {
            Reach::Everything => Ok(None),
            Reach::Units(_) => Ok(Some(Rows::of(self.visible(actor).await?))),
        }
    }

    /// The columns with these among them, as far as standings are committed.
    pub(crate) async fn frame(&self, catalogue: &Catalogue, keys: &[Key]) -> Result<tokio::sync::MutexGuard<'_, Frame>, Problem> {
        let mut frame = self.index().0.lock().await;
        if frame.columns.len() + keys.len() > COLUMNS_MAX {
            frame.columns.retain(|key, _| keys.contains(key));
        }
        let missing: Vec<Key> = keys.iter().filter(|key| !frame.columns.contains_key(*key)).cloned().collect();
        let first = frame.revision == 0;
        if first || !missing.is_empty() {
            let revision = self.read_all(catalogue, &mut frame, missing).await?;
            if first {
                frame.revision = revision;
            }
        }
        self.follow(catalogue, &mut frame).await?;
        Ok(frame)
    }

    /// Reads every standing for columns that are new; those that fail half-way are not kept.
    async fn read_all(&self, catalogue: &Catalogue, frame: &mut Frame, missing: Vec<Key>) -> Result<i64, Error> {
        let revision = super::memory::counters(self.db().reader()).await?.revision;
        let mut columns: HashMap<Key, Column> = missing.into_iter().map(|key| (key, Column::new())).collect();
        let mut after = -1i64;
        loop {
            let text = "SELECT customer, standing FROM cdp_standing WHERE number > $1 ORDER BY number LIMIT $2";
            let rows = sql::all(self.db().reader(), text, [after.into(), PAGE_ROWS.into()]).await?;
            for row in &rows {
                let (_, standing) = read_standing(row)?;
                after = i64::from(standing.number);
                frame.living.set(standing.number, !standing.gone);
                for (key, column) in &mut columns {
                    column.set(standing.number, raw(catalogue, key, &standing).as_ref());
                }
            }
            if (rows.len() as u64) < PAGE_ROWS {
                // What the older columns follow may lie behind this pass, and what was read may lie before it: both are read again.
                frame.columns.extend(columns);
                frame.revision = frame.revision.min(revision);
                return Ok(revision);
            }
        }
    }

    /// Takes over what was committed since.
    async fn follow(&self, catalogue: &Catalogue, frame: &mut Frame) -> Result<(), Error> {
        let mut number = i64::from(u32::MAX);
        loop {
            let text = "SELECT customer, standing, number, revision FROM cdp_standing
                WHERE revision > $1 OR (revision = $1 AND number > $2) ORDER BY revision, number LIMIT $3";
            let rows = sql::all(self.db().reader(), text, [frame.revision.into(), number.into(), PAGE_ROWS.into()]).await?;
            for row in &rows {
                let (_, standing) = read_standing(row)?;
                frame.put(catalogue, &standing);
                frame.revision = sql::get(row, "revision")?;
                number = sql::get(row, "number")?;
            }
            if (rows.len() as u64) < PAGE_ROWS {
                return Ok(());
            }
        }
    }
}
