//! Fixtures: inputs and expected answers that lie beside a plugin's source, run through the same host as production.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    BenefitInput, BenefitRule, CallError, Description, Digest, Effect, Error, FeatureKind, Host, NumberColumn, Tagger, TaggerBatch,
    TextColumn,
};

/// How one case of a fixture went.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseResult {
    pub name: String,
    /// `None` when the answer was the expected one.
    pub difference: Option<Difference>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub expected: Value,
    pub answered: Value,
}

#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    #[error("read the fixture")]
    Format(#[from] serde_json::Error),
    #[error("case {case} gives feature {feature}, which the plugin does not read")]
    UnknownFeature { case: String, feature: String },
    #[error("case {case} gives feature {feature} as {value}, which is not of its kind")]
    Kind { case: String, feature: String, value: Value },
    #[error("find the plugin")]
    Plugin(#[from] Error),
    #[error("call the plugin")]
    Call(#[from] CallError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaggerFixture {
    now_ms: i64,
    utc_offset_seconds: i32,
    cases: Vec<TaggerCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaggerCase {
    name: String,
    /// By the feature's spelling; what is not here is absent.
    features: BTreeMap<String, Value>,
    /// By the tag's name; what is not here is expected to be absent.
    tags: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BenefitFixture {
    cases: Vec<BenefitCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BenefitCase {
    name: String,
    input: BenefitInput,
    effects: Vec<Effect>,
}

impl Host {
    /// Runs a fixture and says of each case whether the answer was the expected one. All cases of a tagger are one batch.
    pub fn run_fixture(&self, digest: &Digest, fixture: &[u8]) -> Result<Vec<CaseResult>, FixtureError> {
        match self.describe(digest)? {
            Description::Tagger(_) => run_tagger(&self.tagger(digest)?, &serde_json::from_slice(fixture)?),
            Description::BenefitRule(_) => run_benefit_rule(&self.benefit_rule(digest)?, serde_json::from_slice(fixture)?),
        }
    }
}

fn result(name: String, expected: Value, answered: Value) -> CaseResult {
    let difference = (expected != answered).then_some(Difference { expected, answered });
    CaseResult { name, difference }
}

fn run_tagger(tagger: &Tagger, fixture: &TaggerFixture) -> Result<Vec<CaseResult>, FixtureError> {
    let reads = &tagger.description().reads;
    for case in &fixture.cases {
        if let Some(feature) = case.features.keys().find(|name| reads.iter().all(|feature| &feature.name != *name)) {
            return Err(FixtureError::UnknownFeature { case: case.name.clone(), feature: feature.clone() });
        }
    }
    let mut batch = TaggerBatch {
        now_ms: fixture.now_ms,
        utc_offset_seconds: fixture.utc_offset_seconds,
        rows: fixture.cases.len(),
        ..TaggerBatch::default()
    };
    for feature in reads {
        let column = || fixture.cases.iter().map(|case| (case, case.features.get(&feature.name)));
        let wrong = |case: &TaggerCase, value: &Value| FixtureError::Kind {
            case: case.name.clone(),
            feature: feature.name.clone(),
            value: value.clone(),
        };
        if feature.kind == FeatureKind::Text {
            let texts: Vec<Option<&str>> = column()
                .map(|(case, value)| value.map(|value| value.as_str().ok_or_else(|| wrong(case, value))).transpose())
                .collect::<Result<_, _>>()?;
            batch.texts.push(texts.into_iter().collect::<TextColumn>());
        } else {
            let numbers: Vec<Option<f64>> = column()
                .map(|(case, value)| value.map(|value| value.as_f64().ok_or_else(|| wrong(case, value))).transpose())
                .collect::<Result<_, _>>()?;
            batch.numbers.push(numbers.into_iter().collect::<NumberColumn>());
        }
    }
    let answer = tagger.evaluate(&batch)?;
    let tags = |row: usize| -> Result<Value, serde_json::Error> {
        let named = tagger.description().writes.iter().zip(&answer.columns);
        let present = named.filter_map(|(tag, column)| column.value(row).map(|value| (tag.name.clone(), value)));
        serde_json::to_value(present.collect::<BTreeMap<_, _>>())
    };
    let cases = fixture.cases.iter().enumerate();
    cases.map(|(row, case)| Ok(result(case.name.clone(), serde_json::to_value(&case.tags)?, tags(row)?))).collect()
}

fn run_benefit_rule(rule: &BenefitRule, fixture: BenefitFixture) -> Result<Vec<CaseResult>, FixtureError> {
    let case = |case: BenefitCase| {
        let decision = rule.decide(&case.input.canonical_bytes())?;
        Ok(result(case.name, serde_json::to_value(case.effects)?, serde_json::to_value(decision.effects)?))
    };
    fixture.cases.into_iter().map(case).collect()
}
