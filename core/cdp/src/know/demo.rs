//! The definitions that the demo group begins with.

use super::Know;
use super::catalogue::TagCase;
use super::segment::SegmentDefinition;
use heyuan_contract::SegmentId;
use heyuan_kernel::{Actor, Problem};
use serde_json::json;

/// What the demo declares.
#[derive(Debug, Clone, PartialEq)]
pub struct DemoDefinitions {
    /// Names and expressions.
    pub features: Vec<(&'static str, String)>,
    /// Names and cases.
    pub tags: Vec<(&'static str, Vec<TagCase>)>,
    /// Ids and definitions.
    pub segments: Vec<(&'static str, SegmentDefinition)>,
}

/// Features, one rule tag and segments over the events of the demo group; the features that `home-upgrader` reads are among them.
pub fn demo_definitions() -> DemoDefinitions {
    let feature = |name, expression: &str| (name, expression.to_owned());
    let mut features = vec![
        feature("age", "profile.age"),
        feature("city", "profile.city"),
        feature("gender", "profile.gender"),
        feature("household_size", "profile.household_size"),
        feature("annual_income", "profile.annual_income"),
        feature("unit_views_7d", "count(unit_viewed) over 7d"),
        feature("last_unit_type", "last(unit_viewed.unit_type)"),
        feature("since_visit", "seconds_since(visit_checked_in)"),
        feature("visits_90d", "count(visit_checked_in) over 90d"),
        feature("orders_90d", "count(order_paid) over 90d"),
        feature("spent_90d", "sum(order_paid.amount) over 90d"),
        feature("tier", "member.tier"),
        feature("points_balance", "points"),
    ];
    for unit_type in ["2br", "3br", "4br"] {
        let name = match unit_type {
            "2br" => "dwell_2br_30d",
            "3br" => "dwell_3br_30d",
            _ => "dwell_4br_30d",
        };
        features.push((name, format!("sum(unit_viewed.dwell_seconds where unit_type = '{unit_type}') over 30d")));
    }
    let high_intent = vec![
        TagCase {
            value: "high".into(),
            when: json!({"any": [{"feature": "unit_views_7d", "at_least": 5}, {"feature": "since_visit", "below": 1_209_600}]}),
        },
        TagCase { value: "some".into(), when: json!({"feature": "unit_views_7d", "at_least": 1}) },
    ];
    let segment = |id, name: &str, predicate, purpose: Option<&str>| {
        (id, SegmentDefinition { name: name.into(), predicate, purpose: purpose.map(str::to_owned) })
    };
    DemoDefinitions {
        features,
        tags: vec![("high_intent", high_intent)],
        segments: vec![
            segment("ready-to-buy", "高意向客户", json!({"tag": "high_intent", "is": "high"}), None),
            segment(
                "families-in-shenzhen",
                "深圳多口之家",
                json!({"all": [{"feature": "city", "is": "深圳"}, {"feature": "household_size", "at_least": 3}]}),
                None,
            ),
            segment(
                "mall-regulars",
                "商场常客",
                json!({"all": [{"feature": "orders_90d", "at_least": 3}, {"not": {"tag": "high_intent", "is": "high"}}]}),
                None,
            ),
        ],
    }
}

impl Know {
    /// Puts the demo's definitions; what is there already stays as it is.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn put_demo(&self, actor: &Actor) -> Result<(), Problem> {
        let demo = demo_definitions();
        for (name, expression) in &demo.features {
            self.put_feature(actor, name, expression).await?;
        }
        for (name, cases) in demo.tags {
            self.put_tag(actor, name, cases).await?;
        }
        for (id, definition) in demo.segments {
            let id = SegmentId::new(id).map_err(|error| Problem::invalid("id", error.to_string()))?;
            self.put_segment(actor, &id, definition).await?;
        }
        Ok(())
    }
}
