//! What a plugin says about itself, checked once when it is taken in.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::worlds::{
    benefit_rule::exports::heyuan::plugins::benefits,
    tagger::exports::heyuan::plugins::tagging::{self, FeatureKind as TaggerFeatureKind},
};

const NAME_BYTES_MAX: usize = 64;
const SUMMARY_BYTES_MAX: usize = 512;
const FEATURE_BYTES_MAX: usize = 256;
/// What a tenant approves is features and parts of the input, side by side; this keeps them apart.
const INPUT_PART: &str = "input.";
const FEATURES_MAX: usize = 128;
const TAGS_MAX: usize = 32;
const VALUES_MAX: usize = 256;
/// Also the bound for each text that a tagger answers.
pub(crate) const VALUE_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Description {
    Tagger(TaggerDescription),
    BenefitRule(BenefitRuleDescription),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggerDescription {
    pub name: String,
    pub summary: String,
    /// In the order in which the plugin declared them; a batch carries the numbers and the texts of these in this order.
    pub reads: Vec<Feature>,
    /// In the order of the answer's columns.
    pub writes: Vec<Tag>,
    /// After how long an answer may change although no feature did; 0 when time alone changes nothing.
    pub refresh_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenefitRuleDescription {
    pub name: String,
    pub summary: String,
    /// In the order of the input's features.
    pub reads: Vec<Feature>,
    pub parts: Vec<InputPart>,
    pub effects: Vec<EffectKind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// As the tenant spells it.
    pub name: String,
    pub kind: FeatureKind,
}

/// Taggers read numbers and texts; benefit rules read integers, ratios and texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    Number,
    Integer,
    Ratio,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    pub name: String,
    pub kind: TagKind,
    /// The values that a text tag can take; empty when any text may come.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagKind {
    Flag,
    Number,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputPart {
    Member,
    OrderLines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    Growth,
    Points,
    Benefit,
    Voucher,
    Discount,
}

impl Description {
    pub fn name(&self) -> &str {
        match self {
            Self::Tagger(tagger) => &tagger.name,
            Self::BenefitRule(rule) => &rule.name,
        }
    }

    pub fn summary(&self) -> &str {
        match self {
            Self::Tagger(tagger) => &tagger.summary,
            Self::BenefitRule(rule) => &rule.summary,
        }
    }

    pub fn reads(&self) -> &[Feature] {
        match self {
            Self::Tagger(tagger) => &tagger.reads,
            Self::BenefitRule(rule) => &rule.reads,
        }
    }

    /// `tagger` or `benefit rule`.
    pub fn world(&self) -> &'static str {
        match self {
            Self::Tagger(_) => "tagger",
            Self::BenefitRule(_) => "benefit rule",
        }
    }
}

fn check_identity(name: &str, summary: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(format!("its name must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and dashes"));
    }
    if summary.len() > SUMMARY_BYTES_MAX {
        return Err(format!("its summary is longer than {SUMMARY_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn check_features(reads: &[Feature]) -> Result<(), String> {
    if reads.len() > FEATURES_MAX {
        return Err(format!("it reads {} features, {FEATURES_MAX} are allowed", reads.len()));
    }
    let mut names = HashSet::new();
    for feature in reads {
        if feature.name.is_empty() || feature.name.len() > FEATURE_BYTES_MAX {
            return Err(format!("a feature's name must be 1 to {FEATURE_BYTES_MAX} bytes"));
        }
        if feature.name.starts_with(INPUT_PART) {
            return Err(format!("no feature begins with {INPUT_PART}, which names a part of the input: {}", feature.name));
        }
        if !names.insert(&feature.name) {
            return Err(format!("it reads feature {} twice", feature.name));
        }
    }
    Ok(())
}

fn check_tags(writes: &[Tag]) -> Result<(), String> {
    if writes.is_empty() || writes.len() > TAGS_MAX {
        return Err(format!("it writes {} tags, 1 to {TAGS_MAX} are allowed", writes.len()));
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let mut names = HashSet::new();
    for tag in writes {
        if tag.name.is_empty() || tag.name.len() > NAME_BYTES_MAX || !tag.name.bytes().all(allowed) {
            return Err(format!("a tag's name must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and underscores"));
        }
        if !names.insert(&tag.name) {
            return Err(format!("it writes tag {} twice", tag.name));
        }
        if !tag.values.is_empty() && tag.kind != TagKind::Text {
            return Err(format!("tag {} lists values but is no text", tag.name));
        }
        let distinct: HashSet<&String> = tag.values.iter().collect();
        if tag.values.len() > VALUES_MAX || distinct.len() < tag.values.len() {
            return Err(format!("the values of tag {} must be distinct and at most {VALUES_MAX}", tag.name));
        }
        if tag.values.iter().any(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(format!("a value of tag {} is longer than {VALUE_BYTES_MAX} bytes", tag.name));
        }
    }
    Ok(())
}

impl TaggerDescription {
    pub(crate) fn checked(guest: tagging::Description) -> Result<Self, String> {
        let kind = |kind| match kind {
            TaggerFeatureKind::Number => FeatureKind::Number,
            TaggerFeatureKind::Text => FeatureKind::Text,
        };
        let tag_kind = |kind| match kind {
            tagging::TagKind::Flag => TagKind::Flag,
            tagging::TagKind::Number => TagKind::Number,
            tagging::TagKind::Text => TagKind::Text,
        };
        let description = Self {
            name: guest.name,
            summary: guest.summary,
            reads: guest.reads.into_iter().map(|feature| Feature { name: feature.name, kind: kind(feature.kind) }).collect(),
            writes: guest.writes.into_iter().map(|tag| Tag { name: tag.name, kind: tag_kind(tag.kind), values: tag.values }).collect(),
            refresh_seconds: guest.refresh_seconds,
        };
        check_identity(&description.name, &description.summary)?;
        check_features(&description.reads)?;
        check_tags(&description.writes)?;
        Ok(description)
    }

    /// How many features of this kind a batch carries.
    pub fn count(&self, kind: FeatureKind) -> usize {
        self.reads.iter().filter(|feature| feature.kind == kind).count()
    }
}

impl BenefitRuleDescription {
    pub(crate) fn checked(guest: benefits::Description) -> Result<Self, String> {
        let kind = |kind| match kind {
            benefits::FeatureKind::Integer => FeatureKind::Integer,
            benefits::FeatureKind::Ratio => FeatureKind::Ratio,
            benefits::FeatureKind::Text => FeatureKind::Text,
        };
        let parts = [(benefits::Parts::MEMBER, InputPart::Member), (benefits::Parts::ORDER_LINES, InputPart::OrderLines)];
        let effects = [
            (benefits::EffectKinds::GROWTH, EffectKind::Growth),
            (benefits::EffectKinds::POINTS, EffectKind::Points),
            (benefits::EffectKinds::BENEFIT, EffectKind::Benefit),
            (benefits::EffectKinds::VOUCHER, EffectKind::Voucher),
            (benefits::EffectKinds::DISCOUNT, EffectKind::Discount),
        ];
        let description = Self {
            name: guest.name,
            summary: guest.summary,
            reads: guest.reads.into_iter().map(|feature| Feature { name: feature.name, kind: kind(feature.kind) }).collect(),
            parts: parts.into_iter().filter(|(flag, _)| guest.parts.contains(*flag)).map(|(_, part)| part).collect(),
            effects: effects.into_iter().filter(|(flag, _)| guest.effects.contains(*flag)).map(|(_, kind)| kind).collect(),
        };
        check_identity(&description.name, &description.summary)?;
        check_features(&description.reads)?;
        if description.effects.is_empty() {
            return Err("it declares no kind of effect".to_owned());
        }
        Ok(description)
    }
}
