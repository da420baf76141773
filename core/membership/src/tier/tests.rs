//! The function of tiers: tables for its rules, and a second, plain reading of them over random histories.

use super::history::History;
use super::policy::{DAY_MS, TierDowngrade, TierLook, TierMeasure, TierPolicy, TierStep, in_force};
use super::replay::{Frame, Granted, Standing, holds_until, replayed, standing};
use heyuan_kernel::Zone;
use jiff::civil::Date;

/// Growth by day.
type Grown<'a> = &'a [(&'a str, i64)];
/// The tier from a day on.
type Expected<'a> = &'a [(&'a str, &'a str)];

const ALWAYS: i64 = -62_135_596_800_000;

fn zone() -> Zone {
    Zone::named("Asia/Shanghai").expect("a zone")
}

/// The start of a day in the tenant's zone.
fn day(text: &str) -> i64 {
    zone().day_start(text.parse().expect("a day")).ms()
}

fn ladder(measure: TierMeasure, look: TierLook, downgrade: TierDowngrade, grace_days: i32) -> TierPolicy {
    let window_days = if measure == TierMeasure::Rolling { 365 } else { 0 };
    TierPolicy { measure, window_days, look, downgrade, grace_days, ..TierPolicy::first() }
}

fn tier_at(policies: &[TierPolicy], history: &History, grants: &[Granted], at_ms: i64) -> String {
    let zone = zone();
    let frame = Frame { policies, zone: &zone, joined_ms: day("2020-01-01"), grants };
    let found = standing(frame, history, at_ms).expect("a version is in force");
    found.tier().to_owned()
}

/// Checks the tier at each of these days, and one millisecond before it for the days that change it.
fn check(name: &str, policies: &[TierPolicy], growth: Grown<'_>, grants: &[Granted], expected: Expected<'_>) {
    let history = History::new(growth.iter().map(|(when, amount)| (day(when), *amount)));
    let mut before = tier_at(policies, &history, grants, day(expected[0].0) - 1);
    for (when, tier) in expected {
        assert_eq!(tier_at(policies, &history, grants, day(when) - 1), before, "{name}: just before {when}");
        assert_eq!(tier_at(policies, &history, grants, day(when)), *tier, "{name}: at {when}");
        before = (*tier).to_owned();
    }
}

#[test]
fn a_body_of_the_first_release_keeps_its_meaning() {
    let stored = r#"{"version":1,"window_days":365,"steps":[{"tier":"silver","growth_min":0},{"tier":"gold","growth_min":5000},
        {"tier":"platinum","growth_min":20000}]}"#;
    let policy: TierPolicy = serde_json::from_str(stored).expect("it is one");
    assert_eq!(policy, TierPolicy::first());
    assert!(policy.follows_growth());
    let history = History::new([(0, 4_999), (10 * DAY_MS, 1), (20 * DAY_MS, 15_000), (21 * DAY_MS, -1)]);
    for (day, tier) in
        [(0, "silver"), (9, "silver"), (10, "gold"), (20, "platinum"), (21, "gold"), (364, "gold"), (365, "gold"), (386, "silver")]
    {
        assert_eq!(tier_at(std::slice::from_ref(&policy), &history, &[], day * DAY_MS), tier, "day {day}");
    }
}

#[test]
fn a_tier_is_lost_as_the_policy_says() {
    use TierDowngrade::{OneStep, ToBalance};
    use TierLook::{Always, Day, Month, Year};
    use TierMeasure::{CalendarYear, Lifetime, Rolling};
    let once: Grown<'_> = &[("2026-03-10", 21_000)];
    let cases: [(&str, TierPolicy, Grown<'_>, Expected<'_>); 12] = [
        ("at once", ladder(Rolling, Always, ToBalance, 0), once, &[("2026-03-10", "platinum"), ("2027-03-10", "silver")]),
        ("after a grace", ladder(Rolling, Always, ToBalance, 30), once, &[("2026-03-10", "platinum"), ("2027-04-09", "silver")]),
        ("by months", ladder(Rolling, Month, ToBalance, 0), once, &[("2026-03-10", "platinum"), ("2027-04-01", "silver")]),
        ("by months after a grace", ladder(Rolling, Month, ToBalance, 10), once, &[("2026-03-10", "platinum"), ("2027-04-11", "silver")]),
        (
            "a step a day",
            ladder(Rolling, Day, OneStep, 0),
            once,
            &[("2026-03-10", "platinum"), ("2027-03-10", "gold"), ("2027-03-11", "silver")],
        ),
        (
            "a step a month, each after a grace",
            ladder(Rolling, Month, OneStep, 5),
            once,
            &[("2026-03-10", "platinum"), ("2027-04-06", "gold"), ("2027-05-06", "silver")],
        ),
        (
            "what comes within the grace keeps it",
            ladder(Rolling, Always, ToBalance, 30),
            &[("2026-03-10", 21_000), ("2027-04-08", 20_000)],
            &[("2026-03-10", "platinum"), ("2027-04-09", "platinum"), ("2028-05-07", "silver")],
        ),
        (
            "what comes within the grace may reach less",
            ladder(Rolling, Always, ToBalance, 30),
            &[("2026-03-10", 21_000), ("2027-04-08", 5_000)],
            &[("2026-03-10", "platinum"), ("2027-04-09", "gold")],
        ),
        ("a year and the next", ladder(CalendarYear, Always, ToBalance, 0), once, &[("2026-03-10", "platinum"), ("2028-01-01", "silver")]),
        (
            "the year before and this one are not added",
            ladder(CalendarYear, Always, ToBalance, 0),
            &[("2026-12-31", 4_000), ("2027-01-01", 4_000), ("2027-12-31", 1_000)],
            &[("2027-01-01", "silver"), ("2027-12-31", "gold"), ("2029-01-01", "silver")],
        ),
        (
            "a year's end is soft",
            ladder(CalendarYear, Year, OneStep, 31),
            once,
            &[("2026-03-10", "platinum"), ("2028-02-01", "gold"), ("2029-02-01", "silver")],
        ),
        ("all times", ladder(Lifetime, Always, ToBalance, 0), once, &[("2026-03-10", "platinum"), ("2099-01-01", "platinum")]),
    ];
    for (name, policy, growth, expected) in cases {
        check(name, &[policy], growth, &[], expected);
    }
}

#[test]
fn what_is_taken_back_was_never_there() {
    let policy = ladder(TierMeasure::CalendarYear, TierLook::Year, TierDowngrade::OneStep, 31);
    let with = [("2026-03-10", 21_000), ("2026-03-10", -21_000), ("2027-05-01", 6_000)];
    check("refunded", &[policy], &with, &[], &[("2026-03-10", "silver"), ("2027-05-01", "gold"), ("2029-02-01", "silver")]);
}

#[test]
fn a_lifetime_tier_is_not_lost_to_time() {
    let mut policy = TierPolicy::first();
    policy.steps[1].lifetime_min = Some(30_000);
    let growth = [("2026-03-10", 21_000), ("2026-06-10", 9_000)];
    check(
        "for good",
        std::slice::from_ref(&policy),
        &growth,
        &[],
        &[("2026-03-10", "platinum"), ("2027-03-10", "gold"), ("2060-01-01", "gold")],
    );
    let history = History::new(growth.map(|(when, amount)| (day(when), amount)));
    let zone = zone();
    let policies = [policy];
    let frame = Frame { policies: &policies, zone: &zone, joined_ms: 0, grants: &[] };
    assert_eq!(holds_until(frame, &history, day("2026-07-01")), Some((day("2027-03-10"), "gold".to_owned())));
    assert_eq!(holds_until(frame, &history, day("2027-07-01")), None);
    assert_eq!(standing(frame, &history, day("2027-07-01")).map(|found| found.due), Some(i64::MAX));
}

#[test]
fn a_version_takes_tiers_over_by_their_code() {
    let step = |tier: &str, growth_min| TierStep { tier: tier.to_owned(), growth_min, lifetime_min: None };
    let soft = TierPolicy {
        version: 2,
        starts_at_ms: day("2026-09-01"),
        grace_days: 60,
        steps: vec![step("basic", 0), step("gold", 10_000), step("black", 50_000)],
        ..TierPolicy::first()
    };
    let hard = TierPolicy { version: 3, starts_at_ms: day("2026-12-01"), ..TierPolicy::first() };
    let policies = [TierPolicy::first(), soft, hard];
    check(
        "gold is kept for the grace",
        &policies,
        &[("2026-03-10", 6_000)],
        &[],
        &[("2026-03-10", "gold"), ("2026-09-01", "gold"), ("2026-10-31", "basic"), ("2026-12-01", "gold"), ("2027-03-10", "silver")],
    );
    check(
        "what is not there any more goes to what the growth reaches",
        &policies,
        &[("2026-03-10", 21_000)],
        &[],
        &[("2026-03-10", "platinum"), ("2026-09-01", "gold"), ("2026-12-01", "platinum")],
    );
}

#[test]
fn the_higher_one_of_earned_and_granted_counts() {
    let granted =
        |tier: &str, from: &str, until: &str| Granted { id: "tgr_1".into(), tier: tier.into(), from_ms: day(from), until_ms: day(until) };
    let grants = [granted("gold", "2026-02-01", "2026-05-01"), granted("diamond", "2026-01-01", "2027-01-01")];
    check(
        "a grant",
        &[TierPolicy::first()],
        &[("2026-03-10", 21_000), ("2026-03-10", -1_500)],
        &grants,
        &[("2026-02-01", "gold"), ("2026-05-01", "gold"), ("2027-03-10", "silver")],
    );
    check(
        "a grant above",
        &[TierPolicy::first()],
        &[("2026-03-10", 6_000)],
        &[granted("platinum", "2026-04-01", "2026-05-01")],
        &[("2026-03-10", "gold"), ("2026-04-01", "platinum"), ("2026-05-01", "gold")],
    );
}

#[test]
fn what_can_not_be_a_policy_is_refused_with_its_field() {
    let wrong = |change: &dyn Fn(&mut TierPolicy)| {
        let mut policy = TierPolicy::first();
        change(&mut policy);
        policy.check().expect_err("it is none").body().field.unwrap_or_default()
    };
    for (field, found) in [
        ("window_days", wrong(&|policy| policy.window_days = 0)),
        ("window_days", wrong(&|policy| policy.measure = TierMeasure::Lifetime)),
        ("grace_days", wrong(&|policy| policy.grace_days = -1)),
        ("look", wrong(&|policy| policy.downgrade = TierDowngrade::OneStep)),
        ("steps", wrong(&|policy| policy.steps.clear())),
        ("steps[0].growth_min", wrong(&|policy| policy.steps[0].growth_min = 1)),
        ("steps[1].growth_min", wrong(&|policy| policy.steps[1].growth_min = 0)),
        ("steps[2].growth_min", wrong(&|policy| policy.steps[2].growth_min = 5_000)),
        ("steps[2].growth_min", wrong(&|policy| policy.steps.swap(1, 2))),
        ("steps[2].tier", wrong(&|policy| policy.steps[2].tier = "gold".into())),
        ("steps[1].tier", wrong(&|policy| policy.steps[1].tier = "Gold!".into())),
        ("steps[0].lifetime_min", wrong(&|policy| policy.steps[0].lifetime_min = Some(1))),
        (
            "steps[2].lifetime_min",
            wrong(&|policy| {
                policy.steps[1].lifetime_min = Some(100);
                policy.steps[2].lifetime_min = Some(100);
            }),
        ),
    ] {
        assert_eq!(found, field);
    }
    assert!(TierPolicy::first().check().is_ok());
    let mut promise = TierPolicy::first();
    promise.steps[1].lifetime_min = Some(50_000);
    let later = |min| {
        let mut later = TierPolicy::first();
        later.steps[1].lifetime_min = min;
        later.check_keeps(&promise).map_err(|problem| problem.body().field.unwrap_or_default())
    };
    assert_eq!(later(Some(40_000)), Ok(()));
    assert_eq!(later(Some(50_001)), Err("steps[1].lifetime_min".to_owned()));
    assert_eq!(later(None), Err("steps[1].lifetime_min".to_owned()));
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 % u64::try_from(bound).expect("a bound")).expect("it is below the bound")
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(i64::try_from(list.len()).expect("a short list"))).expect("a place")]
    }

    fn policy(&mut self, version: i64, start: Date) -> TierPolicy {
        let step = |tier: &str, growth_min| TierStep { tier: tier.to_owned(), growth_min, lifetime_min: None };
        let measure = self.one_of(&[TierMeasure::Rolling, TierMeasure::CalendarYear, TierMeasure::Lifetime]);
        let (b, c) = (10 + self.below(50), 70 + self.below(50));
        let (second, third) = (self.one_of(&["gold", "jade"]), self.one_of(&["black", "ruby"]));
        let mut steps = vec![step(self.one_of(&["silver", "basic"]), 0), step(second, b), step(third, c)];
        if self.below(3) == 0 {
            steps[1].lifetime_min = Some(200 + self.below(100));
        }
        TierPolicy {
            version,
            starts_at_ms: if version == 1 { ALWAYS } else { zone().day_start(plus(start, self.below(1_200))).ms() },
            measure,
            window_days: if measure == TierMeasure::Rolling { 1 + self.below(400) } else { 0 },
            look: self.one_of(&[TierLook::Always, TierLook::Day, TierLook::Month, TierLook::Year]),
            downgrade: self.one_of(&[TierDowngrade::ToBalance, TierDowngrade::OneStep]),
            grace_days: self.one_of(&[0, 0, 1, 10, 40]),
            steps,
        }
    }

    /// Growth at the starts of days, some of it taken back.
    fn growth(&mut self) -> Vec<(i64, i64)> {
        let mut entries = Vec::new();
        for _ in 0..self.below(25) {
            let (when, amount) = (self.below(1_000), 1 + self.below(60));
            entries.push((when, amount));
            if self.below(4) == 0 {
                entries.push((when, -(1 + self.below(amount))));
            }
        }
        entries
    }
}

fn plus(start: Date, days: i64) -> Date {
    start.checked_add(jiff::Span::new().days(days)).expect("a day")
}

/// The rules read plainly: every day is gone through, and every sum is taken anew.
fn plain(policies: &[TierPolicy], growth: &[(i64, i64)], start: Date, joined: i64, until: i64) -> String {
    let of_year = |when: i64| plus(start, when).year();
    let begins = growth.iter().map(|(when, _)| *when).chain([joined]).min().unwrap_or(joined);
    let (mut held, mut deadline, mut version) = (None::<String>, None, 0);
    for today in begins..=until {
        let date = plus(start, today);
        let policy = in_force(policies, zone().day_start(date).ms()).expect("one is in force");
        let sum =
            |counts: &dyn Fn(i64) -> bool| growth.iter().filter(|(when, _)| *when <= today && counts(*when)).map(|(_, n)| n).sum::<i64>();
        let counted = match policy.measure {
            TierMeasure::Rolling => sum(&|when| when > today - policy.window_days),
            TierMeasure::CalendarYear => sum(&|when| of_year(when) == date.year()).max(sum(&|when| of_year(when) == date.year() - 1)),
            TierMeasure::Lifetime => sum(&|_| true),
        };
        let total = sum(&|_| true);
        let place = |tier: &str| policy.steps.iter().position(|step| step.tier == tier);
        let reached = policy.steps.iter().filter(|step| counted >= step.growth_min || step.lifetime_min.is_some_and(|min| total >= min));
        let balance = reached.filter_map(|step| place(&step.tier)).max().unwrap_or(0);
        if version != policy.version {
            (version, deadline) = (policy.version, None);
        }
        let mut rank = held.as_deref().and_then(place).unwrap_or(0);
        let looks = match policy.look {
            TierLook::Always | TierLook::Day => true,
            TierLook::Month => date.day() == 1,
            TierLook::Year => date.day() == 1 && date.month() == 1,
        };
        if balance >= rank {
            (rank, deadline) = (balance, None);
        } else {
            if deadline.is_none() && looks {
                deadline = Some(today + i64::from(policy.grace_days));
            }
            if deadline == Some(today) {
                deadline = None;
                rank = if policy.downgrade == TierDowngrade::OneStep { rank - 1 } else { balance };
            }
        }
        held = Some(policy.steps[rank].tier.clone());
    }
    held.expect("at least a day")
}

/// A random member with what its tier follows from.
struct Case {
    policies: Vec<TierPolicy>,
    growth: Vec<(i64, i64)>,
    history: History,
    start: Date,
    joined: i64,
}

impl Case {
    fn random(dice: &mut Dice) -> Case {
        let start: Date = "2024-02-20".parse().expect("a day");
        let policies = (1..=1 + dice.below(3)).map(|version| dice.policy(version, start)).collect();
        let growth = dice.growth();
        let mut case = Case { policies, history: History::default(), growth, start, joined: dice.below(300) };
        case.history = History::new(case.growth.iter().map(|(when, amount)| (case.ms(*when), *amount)));
        case
    }

    fn ms(&self, when: i64) -> i64 {
        zone().day_start(plus(self.start, when)).ms()
    }

    fn at<'a>(&'a self, zone: &'a Zone, at_ms: i64) -> Standing<'a> {
        let frame = Frame { policies: &self.policies, zone, joined_ms: self.ms(self.joined), grants: &[] };
        let found = standing(frame, &self.history, at_ms).expect("one is in force");
        let slowly = replayed(frame, &self.history, at_ms).expect("one is in force");
        assert_eq!((found.tier(), found.earned), (slowly.tier(), slowly.earned), "the short way");
        found
    }
}

#[test]
fn the_function_equals_a_plain_reading_of_its_rules() {
    let zone = zone();
    for seed in 1..=400u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let case = Case::random(&mut dice);
        for _ in 0..6 {
            let when = case.joined + dice.below(1_500);
            let expected = plain(&case.policies, &case.growth, case.start, case.joined, when);
            let found = case.at(&zone, case.ms(when)).tier();
            assert_eq!(found, expected, "seed {seed} day {when}: {:?} {:?}", case.policies, case.growth);
        }
    }
}

#[test]
fn in_whatever_order_growth_comes_the_tier_is_the_same_and_time_changes_it_when_it_says() {
    let zone = zone();
    for seed in 1..=300u64 {
        let mut dice = Dice(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let mut case = Case::random(&mut dice);
        let at = case.ms(case.joined + dice.below(1_200)) + dice.below(DAY_MS);
        let found = case.at(&zone, at);
        let (tier, version, due) = (found.tier().to_owned(), found.policy.version, found.due);
        assert!(due > at, "seed {seed}");
        // Until it is due, nothing but a new version changes it.
        for _ in 0..5 {
            let later = at + dice.below(due.min(at + 900 * DAY_MS) - at);
            let later = case.at(&zone, later);
            assert!(later.policy.version != version || later.tier() == tier, "seed {seed} due {due}");
        }
        // One entry after the other, in another order.
        let mut entries = case.growth.clone();
        for place in (1..entries.len()).rev() {
            let other = usize::try_from(dice.below(i64::try_from(place).expect("a place") + 1)).expect("a place");
            entries.swap(place, other);
        }
        let whole = std::mem::take(&mut case.history);
        for (when, amount) in entries {
            let entry = (case.ms(when), amount);
            assert_eq!(case.history.plus(entry).plus((entry.0, -amount)), case.history, "seed {seed}");
            case.history = case.history.plus(entry);
        }
        assert_eq!(case.history, whole, "seed {seed}");
        assert_eq!(case.at(&zone, at).tier(), tier, "seed {seed}");
        // The sums of the short way, too.
        let policy = in_force(&case.policies, at).expect("one is in force");
        let since = policy.since(&zone, at);
        let entry = (at - dice.below(800 * DAY_MS), 5);
        let (before, after) = (whole.sums(policy, &zone, at), whole.plus(entry).sums(policy, &zone, at));
        let summed = before.plus(since, at, entry);
        assert_eq!(summed, after, "seed {seed}");
    }
}
