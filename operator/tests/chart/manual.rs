//! The manual: its examples fit the definitions, and what it names is there.

use crate::{objects, text};
use heyuan_operator::crd;
use heyuan_operator::reason::Reason;
use serde_json::Value;

/// Blocks of a language in the manual.
fn blocks(language: &str) -> Vec<String> {
    let (manual, begin) = (text("docs/operator.md"), format!("```{language}\n"));
    manual.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// What in an object the schema of its definition does not know, or misses.
fn misfits(at: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.push(format!("{at}.{name} is missing"));
                }
            }
            for (name, inner) in fields {
                let known = [&schema["properties"][name], &schema["additionalProperties"]].into_iter().find(|one| one.is_object());
                match known {
                    Some(known) => misfits(&format!("{at}.{name}"), known, inner, found),
                    None => found.push(format!("{at}.{name} is unknown")),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| misfits(&format!("{at}[]"), &schema["items"], item, found)),
        other => {
            let fits = match schema["type"].as_str() {
                Some("string") => other.is_string(),
                Some("integer") => other.is_i64(),
                Some("boolean") => other.is_boolean(),
                _ => false,
            };
            let listed = schema["enum"].as_array().is_none_or(|values| values.contains(other));
            if !fits || !listed {
                found.push(format!("{at} can't be {other}"));
            }
        }
    }
}

#[test]
fn examples_fit_the_definitions() {
    let definitions = crd::definitions();
    let mut kinds = Vec::new();
    for object in blocks("yaml").iter().flat_map(|block| objects(block)).filter(|object| object["apiVersion"] == "heyuan.dev/v1alpha1") {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let definition = definitions.iter().find(|one| one.spec.names.kind == kind).unwrap_or_else(|| panic!("there is no kind {kind}"));
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).expect("a schema is JSON");
        let mut found = Vec::new();
        misfits("spec", &schema["openAPIV3Schema"]["properties"]["spec"], &object["spec"], &mut found);
        assert!(found.is_empty(), "{kind} {}: {}", object["metadata"]["name"], found.join(", "));
        kinds.push(kind);
    }
    for definition in &definitions {
        assert!(kinds.contains(&definition.spec.names.kind), "no example of a {}", definition.spec.names.kind);
    }
}

#[test]
fn every_reason_has_its_anchor_once() {
    let manual = text("docs/operator.md");
    for reason in Reason::ALL {
        let anchor = format!("<a id=\"{}\"></a>", reason.anchor());
        assert_eq!(manual.matches(&anchor).count(), 1, "{reason}");
    }
}

#[test]
fn every_reason_of_a_plugin_is_explained() {
    let source = include_str!("../../src/plugins.rs");
    let manual = text("docs/operator.md");
    let calls = source.split("refused(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    let named: Vec<&str> = calls.collect();
    assert!(named.len() > 5, "{named:?}");
    for reason in named.into_iter().chain(["NotAsWished"]) {
        assert!(manual.contains(&format!("| `{reason}` |")), "docs/operator.md says nothing of a plugin's reason {reason}");
    }
}

#[test]
fn links_lead_somewhere() {
    let manual = text("docs/operator.md");
    let anchors: Vec<String> = manual.lines().filter_map(|line| line.strip_prefix('#')).map(slug).collect();
    for target in manual.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        match target.strip_prefix('#') {
            Some(anchor) => {
                let there = anchors.iter().any(|one| one == anchor) || manual.contains(&format!("<a id=\"{anchor}\"></a>"));
                assert!(there, "#{anchor} leads nowhere");
            }
            None if target.starts_with("http") => {}
            None => assert!(crate::path(&format!("docs/{target}")).exists(), "{target} is not there"),
        }
    }
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_').map(|c| if c == ' ' { '-' } else { c }).collect()
}
