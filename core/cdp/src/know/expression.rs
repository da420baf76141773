//! Feature definitions as parsed: what is read, from which events, over which window.

use super::value::Value;
use std::fmt;

/// How events are folded into one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// How many; nothing counts as 0.
    Count,
    /// Exact sum of a number; absent when there is none.
    Sum,
    /// Least number.
    Min,
    /// Greatest number.
    Max,
    /// The value that is latest by own time, then by message id.
    Last,
    /// Seconds since the latest event.
    SecondsSince,
}

impl Aggregation {
    /// Every aggregation.
    pub const ALL: [Aggregation; 6] =
        [Aggregation::Count, Aggregation::Sum, Aggregation::Min, Aggregation::Max, Aggregation::Last, Aggregation::SecondsSince];

    /// The spelling in expressions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Aggregation::Count => "count",
            Aggregation::Sum => "sum",
            Aggregation::Min => "min",
            Aggregation::Max => "max",
            Aggregation::Last => "last",
            Aggregation::SecondsSince => "seconds_since",
        }
    }
}

/// How a filter compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Is,
    /// `!=`; an absent property is not equal to anything.
    IsNot,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `<`
    Below,
}

impl Comparison {
    /// Every comparison, longer spellings first.
    pub const ALL: [Comparison; 6] =
        [Comparison::IsNot, Comparison::AtLeast, Comparison::AtMost, Comparison::Is, Comparison::Above, Comparison::Below];

    /// The spelling in expressions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Comparison::Is => "=",
            Comparison::IsNot => "!=",
            Comparison::AtLeast => ">=",
            Comparison::AtMost => "<=",
            Comparison::Above => ">",
            Comparison::Below => "<",
        }
    }

    /// Whether `found` stands so to `wanted`. What is absent, or of another kind, compares with nothing, so that only
    /// [`Comparison::IsNot`] holds for it.
    pub fn holds(self, found: Option<&Value>, wanted: &Value) -> bool {
        let Some(found) = found else { return self == Comparison::IsNot };
        if std::mem::discriminant(found) != std::mem::discriminant(wanted) {
            return self == Comparison::IsNot;
        }
        match self {
            Comparison::Is => found == wanted,
            Comparison::IsNot => found != wanted,
            Comparison::AtLeast => found >= wanted,
            Comparison::AtMost => found <= wanted,
            Comparison::Above => found > wanted,
            Comparison::Below => found < wanted,
        }
    }
}

/// One condition of a filter: a property of the event against a fixed value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The property of the event.
    pub property: String,
    /// How it must compare.
    pub comparison: Comparison,
    /// What it is compared with.
    pub value: Value,
}

/// The width of the steps in which a window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Windows up to 24 hours, and features without a window.
    Minute,
    /// Windows up to 31 days.
    Hour,
    /// Longer windows, in the tenant's calendar days.
    Day,
}

/// A window of so many minutes, which moves in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    minutes: u32,
}

pub(crate) const DAY_MINUTES: u32 = 24 * 60;
/// Three years: more days than anybody's budget for state.
pub(crate) const WINDOW_MINUTES_MAX: u32 = 1096 * DAY_MINUTES;

impl Window {
    /// A window that is a whole number of its own steps.
    ///
    /// # Errors
    /// What would be right.
    pub fn minutes(minutes: u32) -> Result<Window, String> {
        if minutes == 0 || minutes > WINDOW_MINUTES_MAX {
            return Err("a window of 1m to 1096d".into());
        }
        let window = Window { minutes };
        if !minutes.is_multiple_of(window.step_minutes()) {
            let whole =
                if window.step() == Step::Hour { "hours, since it is longer than 24h" } else { "days, since it is longer than 31d" };
            return Err(format!("a window in whole {whole}"));
        }
        Ok(window)
    }

    /// A minute up to 24 h, an hour up to 31 d, a day beyond.
    pub fn step(self) -> Step {
        match self.minutes {
            0..=1440 => Step::Minute,
            1441..=44640 => Step::Hour,
            _ => Step::Day,
        }
    }

    fn step_minutes(self) -> u32 {
        match self.step() {
            Step::Minute => 1,
            Step::Hour => 60,
            Step::Day => DAY_MINUTES,
        }
    }

    /// How many steps it spans.
    pub fn steps(self) -> i64 {
        i64::from(self.minutes / self.step_minutes())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minutes {
            m if m % DAY_MINUTES == 0 => write!(f, "{}d", m / DAY_MINUTES),
            m if m % 60 == 0 => write!(f, "{}h", m / 60),
            m => write!(f, "{m}m"),
        }
    }
}

/// A fold over the events of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fold {
    /// How.
    pub aggregation: Aggregation,
    /// The event's name.
    pub event: String,
    /// The property that is folded; an event without it does not count.
    pub property: Option<String>,
    /// Conditions that all must hold.
    pub filter: Vec<Condition>,
    /// `None` is from the beginning.
    pub window: Option<Window>,
}

impl Fold {
    /// The step in which the answer can change by time alone.
    pub fn step(&self) -> Step {
        self.window.map_or(Step::Minute, Window::step)
    }
}

/// A feature definition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expression {
    /// `profile.age`: what was last said of the customer.
    Trait(String),
    /// `tag.high_intent`: a tag of the customer.
    Tag(String),
    /// `member.tier`
    Tier,
    /// `points`: the spendable balance, as the last transaction left it.
    Points,
    /// `count(…)`, `sum(…)`, …
    Fold(Fold),
}

/// The event under which traits are read: what an SDK calls `identify`.
pub(crate) const PROFILE: &str = "profile";

impl Expression {
    /// The fold over events that answers it; `None` for a tag, which is read where it stands.
    pub fn fold(&self) -> Option<Fold> {
        let last = |event: &str, property: &str| Fold {
            aggregation: Aggregation::Last,
            event: event.to_owned(),
            property: Some(property.to_owned()),
            filter: Vec::new(),
            window: None,
        };
        match self {
            Expression::Trait(name) => Some(last(PROFILE, name)),
            Expression::Tier => Some(last("tier_changed", "tier")),
            Expression::Points => Some(last("transaction_posted", "points_balance")),
            Expression::Fold(fold) => Some(fold.clone()),
            Expression::Tag(_) => None,
        }
    }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.spelled(),
    }
}

/// The canonical spelling, by which two texts are the same feature.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fold = match self {
            Expression::Trait(name) => return write!(f, "profile.{name}"),
            Expression::Tag(name) => return write!(f, "tag.{name}"),
            Expression::Tier => return f.write_str("member.tier"),
            Expression::Points => return f.write_str("points"),
            Expression::Fold(fold) => fold,
        };
        write!(f, "{}({}", fold.aggregation.as_str(), fold.event)?;
        if let Some(property) = &fold.property {
            write!(f, ".{property}")?;
        }
        for (index, condition) in fold.filter.iter().enumerate() {
            let word = if index == 0 { "where" } else { "and" };
            write!(f, " {word} {} {} {}", condition.property, condition.comparison.as_str(), quoted(&condition.value))?;
        }
        f.write_str(")")?;
        fold.window.map_or(Ok(()), |window| write!(f, " over {window}"))
    }
}
