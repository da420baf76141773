//! Declaring features, writing tag rules, and looking them up.

use super::catalogue::{Catalogue, DEFINITIONS, DEFINITIONS_MAX, Feature, TagCase, TagRule};
use super::expression::Expression;
use super::predicate::Predicate;
use super::{Know, codes, parse};
use futures::FutureExt;
use heyuan_contract::TagName;
use heyuan_kernel::{Actor, Error, Problem, Reach, Scope, Tx, audit, sql};
use sea_orm::Value as Parameter;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Lines of one tag rule.
const CASES_MAX: usize = 20;
/// Longest value of a tag and longest name of a segment, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// A declared feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FeatureView {
    /// Its name.
    pub name: String,
    /// Its definition, in the canonical spelling.
    pub expression: String,
    /// `declared`, `filling` (history is being read) or `ready`.
    pub state: String,
}

/// A tag: by a rule, or by a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TagView {
    /// Its name.
    pub name: String,
    /// `rule` or `plugin`.
    pub by: String,
    /// The rule's version (`v3`), or the plugin with the beginning of its digest.
    pub version: String,
    /// The rule: the first case whose condition holds gives the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub cases: Option<Vec<TagCase>>,
    /// Whether customers are still being looked at anew.
    pub rebuilding: bool,
}

fn wrong_name(field: &str) -> Problem {
    Problem::invalid(field, "expected 1 to 64 characters of a-z 0-9 _ that begin with a letter")
}

pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let fits = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fits { Ok(()) } else { Err(wrong_name(field)) }
}

pub(crate) fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    let fits = !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
    if fits { Ok(()) } else { Err(Problem::invalid(field, format!("expected 1 to {TEXT_BYTES_MAX} bytes of text"))) }
}

fn require_group(actor: &Actor) -> Result<(), Problem> {
    actor.require(Scope::Admin)?;
    match actor.reach() {
        Reach::Everything => Ok(()),
        Reach::Units(_) => Err(Problem::new(
            heyuan_kernel::error::codes::FORBIDDEN,
            "features and tags are the whole group's: this needs a key without a unit",
        )),
    }
}

/// A predicate whose features are all declared.
pub(crate) fn checked(catalogue: &Catalogue, json: &serde_json::Value, field: &str) -> Result<Predicate, Problem> {
    let predicate = Predicate::parse(json, field)?;
    for name in predicate.features() {
        if catalogue.resolve(name).is_none() {
            let detail = match parse(name) {
                Ok(_) => format!("no feature is declared with the expression {name}; declare it at /v1/features first"),
                Err(_) => format!("there is no feature {name}; list them at /v1/features"),
            };
            return Err(Problem::new(codes::BAD_PREDICATE, detail).field(field));
        }
    }
    Ok(predicate)
}

fn feature_view(feature: &Feature) -> FeatureView {
    FeatureView { name: feature.name.clone(), expression: feature.expression.to_string(), state: feature.state.as_str().into() }
}

fn rule_view(rule: &TagRule) -> TagView {
    TagView {
        name: rule.name.clone(),
        by: "rule".into(),
        version: format!("v{}", rule.version),
        cases: Some(rule.written.clone()),
        rebuilding: rule.cursor.is_some(),
    }
}

/// A change of what is defined: the row's statement, and the record of who did it.
pub(crate) struct Change {
    pub(crate) statement: &'static str,
    pub(crate) values: Vec<Parameter>,
    pub(crate) entry: audit::Entry,
    pub(crate) takes_feature_id: bool,
}

impl Know {
    /// Declares a feature, or gives a name another definition.
    ///
    /// # Errors
    /// `forbidden`; `bad_expression` with the position; `tag_circle`; `definitions_full`.
    pub async fn put_feature(&self, actor: &Actor, name: &str, expression: &str) -> Result<FeatureView, Problem> {
        Ok(self.db().settle(|| self.try_feature(actor, name, expression)).await?)
    }

    async fn try_feature(&self, actor: &Actor, name: &str, expression: &str) -> Result<FeatureView, Error> {
        require_group(actor)?;
        check_name("name", name)?;
        if parse(name).is_ok() {
            return Err(Problem::invalid("name", "that name means something in expressions already").into());
        }
        let expression = parse(expression).map_err(|error| Problem::new(codes::BAD_EXPRESSION, error.to_string()).field("expression"))?;
        let (catalogue, _) = self.fresh_view().await?;
        if let Some(same) = catalogue.features.iter().find(|feature| feature.name == name && feature.expression == expression) {
            return Ok(feature_view(same));
        }
        if let Expression::Tag(tag) = &expression {
            self.refuse_circle_through(&catalogue, name, tag)?;
        }
        full(catalogue.features.len())?;
        let change = Change {
            statement: "INSERT INTO cdp_feature (name, expression, declared_at, declared_by, id, state, history_until, history_cursor)
               VALUES ($1, $2, $3, $4, $5, 'declared', 0, 0)
               ON CONFLICT (name) DO UPDATE SET id = excluded.id, expression = excluded.expression, state = excluded.state,
                 history_until = 0, history_cursor = 0, cursor = NULL, declared_at = excluded.declared_at, declared_by = excluded.declared_by",
            values: vec![name.into(), expression.to_string().into(), self.now_ms().into(), actor.name().into()],
            entry: audit::Entry::new(actor, "declare feature", name).detail("expression", expression.to_string()),
            takes_feature_id: true,
        };
        self.change(catalogue.version, change).await?;
        Ok(self.feature(actor, name).await?)
    }

    /// A name that rules read may not come to mean a tag that those rules write.
    fn refuse_circle_through(&self, catalogue: &Catalogue, name: &str, tag: &str) -> Result<(), Problem> {
        let readers = catalogue.rules.iter().filter(|rule| rule.cases.iter().any(|(_, when)| when.features().contains(&name)));
        let writes: Vec<&str> = readers.map(|rule| rule.name.as_str()).collect();
        match catalogue.circle(&writes, &[&format!("tag.{tag}")]) {
            Some(tag) => Err(Problem::new(codes::TAG_CIRCLE, format!("the tag {tag} would read itself")).field("expression")),
            None => Ok(()),
        }
    }

    /// The declared features.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn features(&self, actor: &Actor) -> Result<Vec<FeatureView>, Problem> {
        actor.require_any(&[Scope::Admin, Scope::App])?;
        let (catalogue, _) = self.fresh_view().await?;
        let mut features: Vec<FeatureView> = catalogue.features.iter().map(feature_view).collect();
        features.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(features)
    }

    /// One declared feature.
    ///
    /// # Errors
    /// `forbidden`; `not_found`.
    pub async fn feature(&self, actor: &Actor, name: &str) -> Result<FeatureView, Problem> {
        let features = self.features(actor).await?;
        features.into_iter().find(|feature| feature.name == name).ok_or_else(|| Problem::not_found("feature", printable(name)))
    }

    /// Whether everything that a tagger reads is declared, by name or by expression.
    ///
    /// # Errors
    /// `feature_missing` with the first that is not.
    pub async fn check_features(&self, names: &[String]) -> Result<(), Problem> {
        let (catalogue, _) = self.fresh_view().await?;
        match names.iter().find(|name| catalogue.resolve(name).is_none()) {
            None => Ok(()),
            Some(name) => {
                Err(Problem::new(codes::FEATURE_MISSING, format!("the feature {name} is not declared; declare it at /v1/features first")))
            }
        }
    }

    /// Whether a tagger may come into force: what it reads is declared, nobody else writes its tags, and no tag would read itself.
    ///
    /// # Errors
    /// `feature_missing`, `tag_taken`, `tag_circle`.
    pub async fn check_tagger(&self, name: &str, reads: &[String], writes: &[String]) -> Result<(), Problem> {
        self.check_features(reads).await?;
        let (catalogue, _) = self.fresh_view().await?;
        for tag in writes {
            let by_rule = catalogue.rules.iter().any(|rule| rule.name == *tag);
            let by_other = catalogue.taggers.iter().any(|tagger| tagger.plugin.name != name && tagger.plugin.tags.contains(tag));
            if by_rule || by_other {
                return Err(Problem::new(codes::TAG_TAKEN, format!("the tag {tag} is written by another rule or plugin")));
            }
        }
        let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
        let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
        match catalogue.circle(&writes, &reads) {
            Some(tag) => Err(Problem::new(codes::TAG_CIRCLE, format!("the tag {tag} would read itself"))),
            None => Ok(()),
        }
    }

    /// Writes a tag rule, or another one under the same name; customers are then looked at anew in steps.
    ///
    /// # Errors
    /// `forbidden`; `bad_predicate` with the place; `tag_taken`; `tag_circle`; `definitions_full`.
    pub async fn put_tag(&self, actor: &Actor, name: &str, cases: Vec<TagCase>) -> Result<TagView, Problem> {
        Ok(self.db().settle(|| self.try_tag(actor, name, &cases)).await?)
    }

    async fn try_tag(&self, actor: &Actor, name: &str, cases: &[TagCase]) -> Result<TagView, Error> {
        require_group(actor)?;
        check_name("name", name)?;
        TagName::new(name).map_err(|_| wrong_name("name"))?;
        if cases.is_empty() || cases.len() > CASES_MAX {
            return Err(Problem::invalid("cases", format!("expected 1 to {CASES_MAX} cases")).into());
        }
        let (catalogue, _) = self.fresh_view().await?;
        let mut reads = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            check_text(&format!("cases[{index}].value"), &case.value)?;
            let when = checked(&catalogue, &case.when, &format!("cases[{index}].when"))?;
            reads.extend(when.features().into_iter().map(str::to_owned));
        }
        if catalogue.taggers.iter().any(|tagger| tagger.plugin.tags.iter().any(|tag| tag == name)) {
            return Err(Problem::new(codes::TAG_TAKEN, format!("the tag {name} is written by a plugin")).field("name").into());
        }
        let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
        if let Some(tag) = catalogue.circle(&[name], &reads) {
            return Err(Problem::new(codes::TAG_CIRCLE, format!("the tag {tag} would read itself")).field("cases").into());
        }
        let known = catalogue.rules.iter().find(|rule| rule.name == name);
        if let Some(same) = known.filter(|rule| rule.written == *cases) {
            return Ok(rule_view(same));
        }
        full(catalogue.rules.len())?;
        let version = known.map_or(1, |rule| rule.version + 1);
        let text = serde_json::to_string(cases).map_err(|_| super::internal("a tag rule can't be written as JSON"))?;
        let change = Change {
            statement: "INSERT INTO cdp_tag_rule (name, cases, version, cursor, defined_at, defined_by) VALUES ($1, $2, $3, 0, $4, $5)
               ON CONFLICT (name) DO UPDATE SET cases = excluded.cases, version = excluded.version, cursor = 0,
                 defined_at = excluded.defined_at, defined_by = excluded.defined_by",
            values: vec![name.into(), text.into(), version.into(), self.now_ms().into(), actor.name().into()],
            entry: audit::Entry::new(actor, "write tag rule", name).detail("version", version.to_string()),
            takes_feature_id: false,
        };
        self.change(catalogue.version, change).await?;
        Ok(self.tag(actor, name).await?)
    }

    /// The tags, by name.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn tags(&self, actor: &Actor) -> Result<Vec<TagView>, Problem> {
        actor.require_any(&[Scope::Admin, Scope::App])?;
        let (catalogue, _) = self.fresh_view().await?;
        let mut tags: Vec<TagView> = catalogue.rules.iter().map(rule_view).collect();
        tags.extend(catalogue.taggers.iter().flat_map(|tagger| {
            tagger.plugin.tags.iter().map(|tag| TagView {
                name: tag.clone(),
                by: "plugin".into(),
                version: tagger.plugin.version(),
                cases: None,
                rebuilding: tagger.cursor.is_some(),
            })
        }));
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tags)
    }

    /// One tag.
    ///
    /// # Errors
    /// `forbidden`; `not_found`.
    pub async fn tag(&self, actor: &Actor, name: &str) -> Result<TagView, Problem> {
        let tags = self.tags(actor).await?;
        tags.into_iter().find(|tag| tag.name == name).ok_or_else(|| Problem::not_found("tag", printable(name)))
    }

    /// Writes a definition when nothing was defined since it was decided on.
    pub(crate) async fn change(&self, version: i64, change: Change) -> Result<(), Error> {
        let change = Arc::new(change);
        self.db()
            .write("change a definition", move |tx: &Tx| {
                let change = change.clone();
                async move {
                    let text = "UPDATE cdp_know_counter SET value = value + 1 WHERE name = 'definitions' AND value = $1";
                    if sql::execute(tx.conn(), text, [version.into()]).await? != 1 {
                        return Err(Error::Stale("what is defined"));
                    }
                    tx.wake(DEFINITIONS);
                    let mut values = change.values.clone();
                    if change.takes_feature_id {
                        sql::execute(tx.conn(), "UPDATE cdp_know_counter SET value = value + 1 WHERE name = 'feature'", []).await?;
                        let row = sql::one(tx.conn(), "SELECT value FROM cdp_know_counter WHERE name = 'feature'", []).await?;
                        let id: i64 = row.map_or(Ok(1), |row| sql::get(&row, "value"))?;
                        values.push(id.into());
                    }
                    sql::execute(tx.conn(), change.statement, values).await?;
                    audit::record(tx, &change.entry).await
                }
                .boxed()
            })
            .await
    }
}

pub(crate) fn full(count: usize) -> Result<(), Problem> {
    if (count as u64) < DEFINITIONS_MAX {
        return Ok(());
    }
    Err(Problem::new(codes::DEFINITIONS_FULL, format!("a tenant has at most {DEFINITIONS_MAX} definitions of a kind")))
}

/// A name from a path, short enough for an answer.
fn printable(name: &str) -> String {
    name.chars().take(64).collect()
}
