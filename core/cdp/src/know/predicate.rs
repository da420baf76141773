//! Conditions over features and tags, as JSON: what rule tags, segments and audiences are written in.

use super::codes;
use super::value::{self, Number, Value};
use heyuan_kernel::Problem;
use serde_json::{Map, Value as Json};

/// How deep conditions may nest.
pub(crate) const DEPTH_MAX: usize = 8;
/// Conditions of one predicate.
pub(crate) const NODES_MAX: usize = 100;
/// Values of one `one_of`.
const CHOICES_MAX: usize = 200;
/// Longest text that is compared with, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// A condition. What is absent compares with nothing: only `is_not` and `exists: false` hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// All hold; an empty list holds for everybody.
    All(Vec<Predicate>),
    /// At least one holds.
    Any(Vec<Predicate>),
    /// It does not hold, among the living customers.
    Not(Box<Predicate>),
    /// A feature stands so.
    Feature {
        /// The feature as written: a declared name, an expression that is declared, or `tag.…`.
        name: String,
        /// How it must stand.
        test: Test,
    },
}

/// How one value must stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Equal.
    Is(Value),
    /// Not equal, or absent.
    IsNot(Value),
    /// Equal to one of these.
    OneOf(Vec<Value>),
    /// A number within bounds; each bound with whether it is itself within.
    Between {
        /// The lower bound.
        from: Option<(Number, Edge)>,
        /// The upper bound.
        to: Option<(Number, Edge)>,
    },
    /// There, or not there.
    Exists(bool),
}

/// Whether a bound is itself within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// `at_least`, `at_most`
    Within,
    /// `above`, `below`
    Beyond,
}

impl Test {
    /// The same test for a tag, whose values are text.
    fn spelled(self) -> Test {
        let spell = |value: Value| Value::text(&value.spelled());
        match self {
            Test::Is(value) => Test::Is(spell(value)),
            Test::IsNot(value) => Test::IsNot(spell(value)),
            Test::OneOf(values) => Test::OneOf(values.into_iter().map(spell).collect()),
            other => other,
        }
    }

    /// Whether a value, or its absence, passes.
    pub fn passes(&self, found: Option<&Value>) -> bool {
        match self {
            Test::Is(wanted) => found == Some(wanted),
            Test::IsNot(unwanted) => found != Some(unwanted),
            Test::OneOf(wanted) => found.is_some_and(|found| wanted.contains(found)),
            Test::Exists(wanted) => found.is_some() == *wanted,
            Test::Between { from, to } => {
                let number = match found {
                    Some(Value::Number(number)) => *number,
                    // A tag that is a number is kept as text.
                    Some(Value::Text(text)) => match Number::parse(text) {
                        Some(number) => number,
                        None => return false,
                    },
                    _ => return false,
                };
                let above = from.is_none_or(|(from, edge)| number > from || (edge == Edge::Within && number == from));
                let below = to.is_none_or(|(to, edge)| number < to || (edge == Edge::Within && number == to));
                above && below
            }
        }
    }

    /// The numbers at which the answer can turn as a number grows.
    pub(crate) fn thresholds(&self) -> Vec<Number> {
        let whole = |value: &Value| value.number();
        match self {
            Test::Is(value) | Test::IsNot(value) => whole(value).into_iter().collect(),
            Test::OneOf(values) => values.iter().filter_map(whole).collect(),
            Test::Between { from, to } => [from, to].into_iter().flatten().map(|(number, _)| *number).collect(),
            Test::Exists(_) => Vec::new(),
        }
    }
}

impl Predicate {
    /// Whether it holds for a customer whose values `lookup` knows.
    pub fn holds(&self, lookup: &dyn Fn(&str) -> Option<Value>) -> bool {
        match self {
            Predicate::All(list) => list.iter().all(|one| one.holds(lookup)),
            Predicate::Any(list) => list.iter().any(|one| one.holds(lookup)),
            Predicate::Not(one) => !one.holds(lookup),
            Predicate::Feature { name, test } => test.passes(lookup(name).as_ref()),
        }
    }

    /// Calls `visit` for every test of a feature.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a Test)) {
        match self {
            Predicate::All(list) | Predicate::Any(list) => list.iter().for_each(|one| one.visit(visit)),
            Predicate::Not(one) => one.visit(visit),
            Predicate::Feature { name, test } => visit(name, test),
        }
    }

    /// The features that it reads.
    pub fn features(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit(&mut |name, _| names.push(name));
        names
    }

    /// Reads a predicate and names the place that is wrong, as a path below `field`.
    ///
    /// # Errors
    /// `bad_predicate`.
    pub fn parse(json: &Json, field: &str) -> Result<Predicate, Problem> {
        let mut left = NODES_MAX;
        parse(json, field, 0, &mut left)
    }
}

fn wrong(field: &str, detail: impl Into<String>) -> Problem {
    Problem::new(codes::BAD_PREDICATE, detail).field(field)
}

fn parse(json: &Json, field: &str, depth: usize, left: &mut usize) -> Result<Predicate, Problem> {
    if depth > DEPTH_MAX {
        return Err(wrong(field, format!("conditions nest at most {DEPTH_MAX} deep")));
    }
    *left = left.checked_sub(1).ok_or_else(|| wrong(field, format!("a predicate has at most {NODES_MAX} conditions")))?;
    let Json::Object(object) = json else {
        return Err(wrong(field, "expected an object with all, any, not or feature"));
    };
    let list = |key: &str, left: &mut usize| -> Result<Vec<Predicate>, Problem> {
        let path = format!("{field}.{key}");
        let Some(Json::Array(items)) = object.get(key) else { return Err(wrong(&path, "expected a list of conditions")) };
        let alone = object.len() == 1;
        if !alone {
            return Err(wrong(field, format!("`{key}` stands alone in its object")));
        }
        items.iter().enumerate().map(|(index, item)| parse(item, &format!("{path}[{index}]"), depth + 1, left)).collect()
    };
    if object.contains_key("all") {
        list("all", left).map(Predicate::All)
    } else if object.contains_key("any") {
        list("any", left).map(Predicate::Any)
    } else if let Some(inner) = object.get("not") {
        if object.len() != 1 {
            return Err(wrong(field, "`not` stands alone in its object"));
        }
        parse(inner, &format!("{field}.not"), depth + 1, left).map(|one| Predicate::Not(Box::new(one)))
    } else {
        parse_feature(object, field)
    }
}

fn parse_feature(object: &Map<String, Json>, field: &str) -> Result<Predicate, Problem> {
    let name = match (object.get("feature"), object.get("tag")) {
        (Some(Json::String(name)), None) => name.clone(),
        (None, Some(Json::String(tag))) => format!("tag.{tag}"),
        _ => return Err(wrong(field, "expected all, any, not, or a feature (or a tag) by its name")),
    };
    if name.is_empty() || name.len() > super::parse::EXPRESSION_BYTES_MAX {
        return Err(wrong(field, "a feature is a declared name or a declared expression"));
    }
    let mut tests = Vec::new();
    let (mut from, mut to) = (None, None);
    for (key, json) in object.iter().filter(|(key, _)| !matches!(key.as_str(), "feature" | "tag")) {
        let path = format!("{field}.{key}");
        let number = || match scalar(json, &path)? {
            Value::Number(number) => Ok(number),
            _ => Err(wrong(&path, "expected a number")),
        };
        match key.as_str() {
            "is" => tests.push(Test::Is(scalar(json, &path)?)),
            "is_not" => tests.push(Test::IsNot(scalar(json, &path)?)),
            "one_of" => tests.push(Test::OneOf(choices(json, &path)?)),
            "exists" => tests.push(Test::Exists(json.as_bool().ok_or_else(|| wrong(&path, "expected true or false"))?)),
            "at_least" => bound(&mut from, number()?, Edge::Within, &path)?,
            "above" => bound(&mut from, number()?, Edge::Beyond, &path)?,
            "at_most" => bound(&mut to, number()?, Edge::Within, &path)?,
            "below" => bound(&mut to, number()?, Edge::Beyond, &path)?,
            _ => return Err(wrong(&path, "expected is, is_not, one_of, at_least, above, at_most, below or exists")),
        }
    }
    if from.is_some() || to.is_some() {
        tests.push(Test::Between { from, to });
    }
    // Tags are kept as text, whatever their kind.
    let of_tag = name.starts_with("tag.");
    let mut tests = tests.into_iter().map(|test| if of_tag { test.spelled() } else { test });
    match (tests.next(), tests.next()) {
        (Some(test), None) => Ok(Predicate::Feature { name, test }),
        (None, _) => {
            Err(wrong(field, "expected how the feature must stand: is, is_not, one_of, at_least, above, at_most, below or exists"))
        }
        (Some(_), Some(_)) => Err(wrong(field, "expected one test; put several into `all`")),
    }
}

fn bound(slot: &mut Option<(Number, Edge)>, number: Number, edge: Edge, path: &str) -> Result<(), Problem> {
    match slot.replace((number, edge)) {
        None => Ok(()),
        Some(_) => Err(wrong(path, "there are two bounds on the same side")),
    }
}

fn scalar(json: &Json, path: &str) -> Result<Value, Problem> {
    match value::from_json(json) {
        Some(Value::Text(text)) if text.len() > TEXT_BYTES_MAX => Err(wrong(path, format!("a text has at most {TEXT_BYTES_MAX} bytes"))),
        Some(value) => Ok(value),
        None => Err(wrong(path, "expected a number, a text, true or false")),
    }
}

fn choices(json: &Json, path: &str) -> Result<Vec<Value>, Problem> {
    let Json::Array(items) = json else { return Err(wrong(path, "expected a list of values")) };
    if items.is_empty() || items.len() > CHOICES_MAX {
        return Err(wrong(path, format!("expected 1 to {CHOICES_MAX} values")));
    }
    items.iter().enumerate().map(|(index, item)| scalar(item, &format!("{path}[{index}]"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn holds_as_written_and_absence_compares_with_nothing() {
        let lookup = |name: &str| match name {
            "views" => Some(Value::whole(5)),
            "city" => Some(Value::text("深圳")),
            "tag.hot" => Some(Value::text("yes")),
            _ => None,
        };
        for (predicate, expected) in [
            (json!({"all": []}), true),
            (json!({"any": []}), false),
            (json!({"feature": "views", "at_least": 5}), true),
            (json!({"feature": "views", "above": 5}), false),
            (json!({"feature": "views", "at_least": 3, "below": 5.5}), true),
            (json!({"feature": "city", "is": "深圳"}), true),
            (json!({"feature": "city", "one_of": ["广州", "深圳"]}), true),
            (json!({"tag": "hot", "is": "yes"}), true),
            (json!({"not": {"feature": "views", "at_most": 4}}), true),
            (json!({"feature": "age", "below": 30}), false),
            (json!({"not": {"feature": "age", "below": 30}}), true),
            (json!({"feature": "age", "is_not": 30}), true),
            (json!({"feature": "age", "exists": false}), true),
            (
                json!({"all": [{"feature": "views", "exists": true}, {"any": [{"feature": "city", "is": "x"}, {"tag": "hot", "exists": true}]}]}),
                true,
            ),
        ] {
            let parsed = Predicate::parse(&predicate, "predicate").unwrap_or_else(|problem| panic!("{predicate}: {problem}"));
            assert_eq!(parsed.holds(&lookup), expected, "{predicate}");
        }
    }

    #[test]
    fn names_the_place_that_is_wrong() {
        let deep = (0..20).fold(json!({"feature": "a", "exists": true}), |inner, _| json!({ "not": inner }));
        let wide = json!({"all": (0..200).map(|_| json!({"feature": "a", "exists": true})).collect::<Vec<_>>()});
        for (predicate, field) in [
            (json!([]), "p"),
            (json!({}), "p"),
            (json!({"all": {}}), "p.all"),
            (json!({"all": [{"feature": "a", "is": 1}, {"feature": 7}]}), "p.all[1]"),
            (json!({"not": {"feature": "a", "like": "x"}}), "p.not.like"),
            (json!({"feature": "a"}), "p"),
            (json!({"feature": "a", "at_least": "x"}), "p.at_least"),
            (json!({"feature": "a", "at_least": 1, "above": 2}), "p.at_least"),
            (json!({"feature": "a", "is": 1, "is_not": 2}), "p"),
            (json!({"feature": "a", "is": null}), "p.is"),
            (json!({"feature": "a", "one_of": [1, {}]}), "p.one_of[1]"),
            (json!({"feature": "a", "one_of": []}), "p.one_of"),
            (json!({"all": [], "any": []}), "p"),
            (deep, &format!("p{}", ".not".repeat(9))),
            (wide, "p.all[99]"),
        ] {
            let problem = Predicate::parse(&predicate, "p").expect_err(&predicate.to_string());
            assert_eq!(problem.body().field.as_deref(), Some(field), "{predicate}");
        }
    }
}
