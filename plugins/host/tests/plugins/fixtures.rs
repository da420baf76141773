//! The examples answer what their fixtures expect.

use heyuan_plugin_host::{Description, EffectKind, FeatureKind};

use crate::setup::{fixture, host_with};

fn check(plugin: &str, file: &str, cases: usize) {
    let (_dir, host, digest) = host_with(plugin);
    let results = host.run_fixture(&digest, &fixture(plugin, file)).expect("the fixture runs");
    assert_eq!(results.len(), cases);
    for result in results {
        assert_eq!(result.difference, None, "case {}", result.name);
    }
}

#[test]
fn home_upgrader_answers_its_fixture() {
    check("home-upgrader", "intent.json", 8);
}

#[test]
fn member_day_answers_its_fixture() {
    check("member-day", "days.json", 9);
}

#[test]
fn home_upgrader_says_what_it_reads_and_writes() {
    let (_dir, host, digest) = host_with("home-upgrader");
    let Description::Tagger(description) = host.describe(&digest).expect("it is installed") else {
        panic!("home-upgrader is a tagger");
    };
    assert_eq!(description.name, "home-upgrader");
    assert_eq!(description.count(FeatureKind::Number), 5);
    assert_eq!(description.refresh_seconds, 86_400);
    let tags: Vec<(&str, Vec<&str>)> =
        description.writes.iter().map(|tag| (tag.name.as_str(), tag.values.iter().map(String::as_str).collect())).collect();
    assert_eq!(tags, [("home_upgrader", vec!["none", "warm", "hot"]), ("home_upgrader_unit_type", vec!["2br", "3br", "4br"])]);
}

#[test]
fn member_day_declares_points_and_no_part_of_the_input() {
    let (_dir, host, digest) = host_with("member-day");
    let Description::BenefitRule(description) = host.describe(&digest).expect("it is installed") else {
        panic!("member-day is a benefit rule");
    };
    assert_eq!(description.effects, [EffectKind::Points]);
    assert!(description.parts.is_empty());
    assert_eq!(description.reads[0].name, "rule.points_this_month");
}
