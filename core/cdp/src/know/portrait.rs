//! Portraits: how the members of a segment are distributed over features, beside another segment or everybody.

use super::Know;
use super::audience::{Frame, Key, Question};
use super::bitmap;
use super::catalogue::{Catalogue, Reference};
use super::codes;
use super::column::{Column, Rows, cut, ones};
use super::predicate::{Edge, Predicate, Test};
use super::value::Number;
use heyuan_contract::{SegmentId, Timestamp};
use heyuan_kernel::{Actor, Problem, Rfc3339, Scope};
use serde::Serialize;
use utoipa::ToSchema;

/// Features of one portrait.
const FEATURES_MAX: usize = 20;
/// Edges of one feature's buckets.
const EDGES_MAX: usize = 50;
/// Words that get a bucket of their own; rarer ones are counted together.
const WORDS_MAX: usize = 30;
/// Words that are looked at at all.
const WORDS_READ_MAX: usize = 2_000;
/// A TGI over fewer people says nothing and is not given.
pub(crate) const SAMPLE_MIN: u64 = 30;

/// What a portrait is to show.
#[derive(Debug, Clone, PartialEq)]
pub struct PortraitRequest {
    /// Whose.
    pub segment: SegmentId,
    /// Beside whom; everybody when left out.
    pub against: Option<SegmentId>,
    /// Features, each with the edges of its buckets when it is a number; edges of its own choosing when there are none.
    pub features: Vec<(String, Vec<Number>)>,
}

/// A portrait.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PortraitView {
    /// Members of the segment that the key sees.
    pub segment_count: u64,
    /// Customers of the base that the key sees.
    pub base_count: u64,
    /// One for each feature asked for.
    pub features: Vec<FeaturePortrait>,
    /// When it was true.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Rfc3339,
    /// The last event that is taken into account.
    pub position: i64,
    /// How TGI is reckoned.
    pub convention: String,
}

/// The distribution over one feature.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FeaturePortrait {
    /// As asked for.
    pub feature: String,
    /// Every customer of segment and base is in exactly one.
    pub buckets: Vec<BucketView>,
}

/// One bucket.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BucketView {
    /// `深圳`, `20 to 30` (from 20, below 30), `other`, or `unknown` where the feature is absent.
    pub label: String,
    /// Members of the segment.
    pub segment_count: u64,
    /// Customers of the base.
    pub base_count: u64,
    /// Part of the segment in per cent, one place.
    pub segment_share: String,
    /// Part of the base in per cent, one place.
    pub base_share: String,
    /// The target group index, one place; absent for too few people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tgi: Option<Tgi>,
}

/// A target group index: 100 times the share in the segment over the share in the base, in tenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tgi {
    tenths: u64,
}

impl Tgi {
    /// The index of a bucket, rounded half up to one place; `None` when fewer than 30 people stand behind either side or the base.
    pub fn of(in_segment: u64, segment: u64, in_base: u64, base: u64) -> Option<Tgi> {
        if in_segment < SAMPLE_MIN || in_base < SAMPLE_MIN {
            return None;
        }
        let above = u128::from(in_segment) * u128::from(base) * 1000;
        let below = u128::from(segment) * u128::from(in_base);
        u64::try_from((above + below / 2).checked_div(below)?).ok().map(|tenths| Tgi { tenths })
    }
}

impl std::fmt::Display for Tgi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.tenths / 10, self.tenths % 10)
    }
}

impl Serialize for Tgi {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn share(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2).checked_div(u128::from(whole)).unwrap_or(0);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The people on both sides.
struct Sides {
    segment: Rows,
    base: Rows,
    segment_count: u64,
    base_count: u64,
}

impl Sides {
    fn bucket(&self, label: String, in_segment: u64, in_base: u64) -> BucketView {
        BucketView {
            label,
            segment_count: in_segment,
            base_count: in_base,
            segment_share: share(in_segment, self.segment_count),
            base_share: share(in_base, self.base_count),
            tgi: Tgi::of(in_segment, self.segment_count, in_base, self.base_count),
        }
    }

    /// How many of each side pass a question.
    fn count(&self, frame: &Frame, question: &Question) -> (u64, u64) {
        let (mut in_segment, mut in_base) = (0, 0);
        for chunk in 0..frame.living.chunks() {
            let Some(living) = frame.living.chunk(chunk) else { continue };
            let found = question.ask(frame, chunk, living);
            for (side, count) in [(&self.segment, &mut in_segment), (&self.base, &mut in_base)] {
                if let Some(rows) = side.chunk(chunk) {
                    let mut both = found.clone();
                    cut(&mut both, rows);
                    *count += ones(&both);
                }
            }
        }
        (in_segment, in_base)
    }
}

impl Know {
    /// Draws the portrait of a segment.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `invalid_request` and `bad_predicate` with the field; the database's.
    pub async fn portrait(&self, actor: &Actor, request: &PortraitRequest) -> Result<PortraitView, Problem> {
        actor.require_any(&[Scope::Admin, Scope::App])?;
        if request.features.is_empty() || request.features.len() > FEATURES_MAX {
            return Err(Problem::invalid("features", format!("expected 1 to {FEATURES_MAX} features")));
        }
        let (catalogue, counters) = self.fresh_view().await?;
        let mut wanted = Vec::new();
        for (index, (name, edges)) in request.features.iter().enumerate() {
            let field = format!("features[{index}]");
            let reference = catalogue.resolve(name);
            let detail = || format!("there is no feature {}; list them at /v1/features", name.chars().take(64).collect::<String>());
            wanted.push(reference.ok_or_else(|| Problem::new(codes::BAD_PREDICATE, detail()).field(&field))?);
            check_edges(edges, &field)?;
        }
        let at_ms = self.now_ms();
        let anything = Test::Exists(true);
        let mut keys: Vec<Key> = Vec::new();
        for (name, _) in &request.features {
            Question::of(&catalogue, self.grid(), &Predicate::Feature { name: name.clone(), test: anything.clone() }, at_ms)?
                .keys(&mut keys);
        }
        let sides = self.sides(actor, request).await?;
        let frame = self.frame(&catalogue, &keys).await?;
        let sides = sides.cut_to(&frame);
        let mut features = Vec::with_capacity(wanted.len());
        for ((name, edges), reference) in request.features.iter().zip(&wanted) {
            let buckets = self.buckets(&catalogue, &frame, &sides, name, reference, edges, at_ms)?;
            features.push(FeaturePortrait { feature: name.clone(), buckets });
        }
        Ok(PortraitView {
            segment_count: sides.segment_count,
            base_count: sides.base_count,
            features,
            as_of: Rfc3339(Timestamp::clamped(at_ms)),
            position: counters.position,
            convention: format!(
                "TGI is 100 times the share in the segment over the share in the base, rounded half up to one place; it is left out where \
                 the bucket has fewer than {SAMPLE_MIN} people on either side. Shares are of all people of a side, the unknown among them."
            ),
        })
    }

    async fn sides(&self, actor: &Actor, request: &PortraitRequest) -> Result<Sides, Problem> {
        let reader = self.db().reader();
        let visible = self.visible(actor).await?;
        let mut sets = Vec::new();
        for id in std::iter::once(&request.segment).chain(&request.against) {
            self.segment(actor, id).await?;
            sets.push(bitmap::whole(reader, &bitmap::of_segment(id.as_str())).await? & &visible);
        }
        let mut sets = sets.into_iter();
        let segment = sets.next().unwrap_or_default();
        let base = sets.next().unwrap_or(visible);
        Ok(Sides { segment_count: segment.len(), base_count: base.len(), segment: Rows::of(segment), base: Rows::of(base) })
    }

    #[expect(clippy::too_many_arguments, reason = "one bucket needs the whole of what the portrait is drawn from")]
    fn buckets(
        &self,
        catalogue: &Catalogue,
        frame: &Frame,
        sides: &Sides,
        name: &str,
        reference: &Reference,
        edges: &[Number],
        at_ms: i64,
    ) -> Result<Vec<BucketView>, Problem> {
        let count = |test: Test| -> Result<(u64, u64), Problem> {
            let predicate = Predicate::Feature { name: name.to_owned(), test };
            Ok(sides.count(frame, &Question::of(catalogue, self.grid(), &predicate, at_ms)?))
        };
        let Some(column) = frame.column(catalogue, reference) else { return Ok(Vec::new()) };
        let mut buckets = Vec::new();
        let mut left = (sides.segment_count, sides.base_count);
        let mut take = |label: String, (in_segment, in_base): (u64, u64), buckets: &mut Vec<BucketView>| {
            left = (left.0.saturating_sub(in_segment), left.1.saturating_sub(in_base));
            if in_segment > 0 || in_base > 0 {
                buckets.push(sides.bucket(label, in_segment, in_base));
            }
        };
        for (label, test) in number_tests(column, sides, edges) {
            take(label, count(test)?, &mut buckets);
        }
        let mut words = Vec::new();
        for word in column.words().iter().take(WORDS_READ_MAX) {
            let (in_segment, in_base) = count(Test::Is(word.clone()))?;
            words.push((word, in_segment, in_base));
        }
        words.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(b.0)));
        let rare = words.split_off(words.len().min(WORDS_MAX));
        for (word, in_segment, in_base) in words {
            take(word.spelled(), (in_segment, in_base), &mut buckets);
        }
        let rest = rare.iter().fold((0, 0), |(s, b), (_, in_segment, in_base)| (s + in_segment, b + in_base));
        take("other".into(), rest, &mut buckets);
        let unknown = count(Test::Exists(false))?;
        take("unknown".into(), unknown, &mut buckets);
        // Words beyond those that were looked at.
        if left.0 > 0 || left.1 > 0 {
            buckets.push(sides.bucket("further words".into(), left.0, left.1));
        }
        Ok(buckets)
    }
}

impl Sides {
    /// Columns may follow a moment later than bitmaps: whoever went in between is left out of both.
    fn cut_to(self, frame: &Frame) -> Sides {
        let within = |rows: Rows| {
            let mut kept = Rows::default();
            let mut count = 0;
            for chunk in 0..rows.chunks().min(frame.living.chunks()) {
                if let (Some(rows), Some(living)) = (rows.chunk(chunk), frame.living.chunk(chunk)) {
                    let mut both = rows.clone();
                    cut(&mut both, living);
                    count += ones(&both);
                    kept.put(chunk, both);
                }
            }
            (kept, count)
        };
        let ((segment, segment_count), (base, base_count)) = (within(self.segment), within(self.base));
        Sides { segment, base, segment_count, base_count }
    }
}

fn check_edges(edges: &[Number], field: &str) -> Result<(), Problem> {
    if edges.len() > EDGES_MAX {
        return Err(Problem::invalid(&format!("{field}.edges"), format!("expected at most {EDGES_MAX} edges")));
    }
    if edges.windows(2).all(|pair| pair[0] < pair[1]) {
        return Ok(());
    }
    Err(Problem::invalid(&format!("{field}.edges"), "expected edges in ascending order, each once"))
}

/// The buckets of numbers: below the first edge, between each two, from the last on.
fn number_tests(column: &Column, sides: &Sides, edges: &[Number]) -> Vec<(String, Test)> {
    let Some((least, most)) = column.extent(&sides.base) else { return Vec::new() };
    let chosen = if edges.is_empty() { nice_edges(least, most) } else { edges.to_vec() };
    let mut tests = Vec::new();
    let from = |edge: Number| Some((edge, Edge::Within));
    let to = |edge: Number| Some((edge, Edge::Beyond));
    let (Some(first), Some(last)) = (chosen.first(), chosen.last()) else { return tests };
    tests.push((format!("below {first}"), Test::Between { from: None, to: to(*first) }));
    for pair in chosen.windows(2) {
        tests.push((format!("{} to {}", pair[0], pair[1]), Test::Between { from: from(pair[0]), to: to(pair[1]) }));
    }
    tests.push((format!("{last} and more"), Test::Between { from: from(*last), to: None }));
    tests
}

/// Up to ten buckets of equal width, whose width is one, two or five times a power of ten.
fn nice_edges(least: Number, most: Number) -> Vec<Number> {
    const ONE: i128 = 1_000_000_000;
    let span = (most.billionths() - least.billionths()).max(ONE);
    let mut width = 1i128;
    // The smallest nice width that needs no more than nine edges.
    'found: for power in 0..36u32 {
        for times in [1, 2, 5] {
            width = times * 10i128.pow(power);
            if span / width < 9 {
                break 'found;
            }
        }
    }
    let first = (least.billionths().div_euclid(width) + 1) * width;
    let edges = (0..10).map(|place| first + place * width).take_while(|edge| *edge <= most.billionths());
    let edges: Vec<Number> = edges.map(Number::from_billionths).collect();
    if edges.is_empty() { vec![least] } else { edges }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tgi_is_exact_rounded_half_up_and_silent_about_few_people() {
        for (in_segment, segment, in_base, base, expected) in [
            (50, 100, 500, 1000, Some("100.0")),
            (60, 100, 300, 1000, Some("200.0")),
            (30, 90, 100, 1000, Some("333.3")),
            (45, 800, 900, 10_000, Some("62.5")),
            (29, 100, 500, 1000, None),
            (50, 100, 29, 1000, None),
            (0, 0, 0, 0, None),
        ] {
            assert_eq!(Tgi::of(in_segment, segment, in_base, base).map(|tgi| tgi.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn edges_are_round_and_few() {
        for (least, most, expected) in [("18", "70", "20 30 40 50 60 70"), ("0", "0.9", "0.2 0.4 0.6 0.8"), ("5", "5", "5")] {
            let number = |text| Number::parse(text).expect("a number");
            let edges = nice_edges(number(least), number(most));
            let edges: Vec<String> = edges.iter().map(Number::to_string).collect();
            assert_eq!(edges.join(" "), expected);
        }
    }
}
