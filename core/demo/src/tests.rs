//! What must hold of every generated group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use sha2::Digest as _;

use crate::{Config, Error, Summary, generate};

/// A group of 4,000, generated once and only read.
struct Group {
    folder: tempfile::TempDir,
    summary: Summary,
}

fn group() -> &'static Group {
    static GROUP: OnceLock<Group> = OnceLock::new();
    GROUP.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let summary = generate(&Config { customers: 4_000, seed: 11, ..Config::default() }, folder.path()).unwrap();
        Group { folder, summary }
    })
}

impl Group {
    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn rows(&self, name: &str) -> Vec<Value> {
        self.text(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Identifier values that more than one person uses, by reason.
    fn shared(&self, reason: &str) -> BTreeSet<String> {
        self.rows("truth/shared_identifiers.ndjson").iter().filter(|row| row["reason"] == reason).map(|row| text(&row["value"])).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn instant(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// All identifiers that a line of `events.ndjson` carries.
fn identifiers(event: &Value) -> BTreeSet<(String, String)> {
    let message = &event["message"];
    let mut found = BTreeSet::from([("device".to_owned(), text(&message["anonymousId"]))]);
    let places = [("member", &message["userId"]), ("device", &message["context"]["device"]["id"])];
    let traits = ["phone", "openid", "unionid", "email", "plate"].map(|kind| (kind, &message["traits"][kind]));
    for (kind, value) in places.into_iter().chain(traits) {
        found.extend(value.as_str().map(|value| (kind.to_owned(), value.to_owned())));
    }
    for external in message["context"]["externalIds"].as_array().into_iter().flatten() {
        found.insert((text(&external["type"]), text(&external["id"])));
    }
    found
}

fn digests(folder: &Path) -> BTreeMap<String, String> {
    let mut digests = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                digests.insert(name, hex::encode(sha2::Sha256::digest(std::fs::read(&path).unwrap())));
            }
        }
    }
    digests
}

#[test]
fn same_input_same_bytes_and_another_seed_another_group() {
    let run = |seed| {
        let folder = tempfile::tempdir().unwrap();
        let summary = generate(&Config { customers: 300, days: 60, seed, ..Config::default() }, folder.path()).unwrap();
        (digests(folder.path()), summary)
    };
    let (first, second, other) = (run(5), run(5), run(6));
    assert_eq!(first, second);
    assert_eq!(first.0.len(), 13, "{:?}", first.0.keys());
    for (name, digest) in &first.0 {
        // So few customers may sign no contract.
        assert!(name == "truth/causes.ndjson" || (name == "org_units.json") == (*digest == other.0[name]), "{name}");
    }
}

/// A pinned digest shows that other machines and later releases of libraries give the same bytes. Whoever changes the group on purpose pins the new one.
#[test]
fn the_bytes_are_those_of_every_machine() {
    let folder = tempfile::tempdir().unwrap();
    generate(&Config { customers: 200, days: 50, seed: 42, ..Config::default() }, folder.path()).unwrap();
    let all: String = digests(folder.path()).into_iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
    assert_eq!(hex::encode(sha2::Sha256::digest(all)), "3ff9d42dbfe4a910cc51b7c5df81ddc34e2a8a683a4475e1959a3d2baabe8d64");
}

#[test]
fn every_size_works_and_bad_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |customers, days, end_date| generate(&Config { customers, days, seed: 3, end_date, ..Config::default() }, folder.path());
    let end = Config::default().end_date;
    for (customers, days) in [(1, 1), (2, 2), (7, 400), (60, 1), (150, 9), (90, 46)] {
        let summary = run(customers, days, end).unwrap();
        assert_eq!(summary.customers, customers);
        assert_eq!(std::fs::read_to_string(folder.path().join("truth/customers.ndjson")).unwrap().lines().count() as u64, customers);
    }
    assert!(matches!(run(0, 10, end), Err(Error::Config(_))));
    assert!(matches!(run(10, 0, end), Err(Error::Config(_))));
    assert!(matches!(run(crate::CUSTOMERS_MAX + 1, 10, end), Err(Error::Config(_))));
    assert!(matches!(run(10, 10, jiff::civil::date(1999, 1, 1)), Err(Error::Config(_))));
    assert!(matches!(run(10, 10, jiff::civil::date(9999, 1, 1)), Err(Error::Config(_))));
}

#[test]
fn counts_are_those_of_the_files_and_within_bounds() {
    let Group { summary, .. } = group();
    for (name, count) in [("events", summary.events), ("transactions", summary.transactions), ("leads", summary.sales_records)] {
        assert_eq!(group().text(&format!("{name}.ndjson")).lines().count() as u64, count, "{name}");
    }
    assert_eq!(summary.purchases + summary.refunds + summary.transactions_resent, summary.transactions);
    // A fifth of the default group, which may have a million events at most.
    assert!((65_000..130_000).contains(&summary.events), "{summary:?}");
    assert!((4_000..20_000).contains(&summary.transactions), "{summary:?}");
    assert!(summary.contracts >= 10 && summary.cancellations >= 2, "{summary:?}");
    assert!(summary.leads > summary.visits && summary.visits > summary.subscriptions && summary.subscriptions > summary.contracts);
    let manifest: Value = serde_json::from_str(&group().text("manifest.json")).unwrap();
    assert_eq!(manifest["files"]["events.ndjson"], summary.events);
}

#[test]
fn events_arrive_in_order_and_carry_what_sdks_send() {
    let (mut before, mut seen, mut repeated, mut late) = (jiff::Timestamp::MIN, HashMap::new(), 0, 0);
    for line in group().text("events.ndjson").lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let arrived = instant(&event["arrived_at"]);
        assert!(before <= arrived);
        before = arrived;
        let message = &event["message"];
        let (sent, happened) = (instant(&message["sentAt"]), instant(&message["timestamp"]));
        assert!(happened <= sent, "{line}");
        late += usize::from(sent.duration_since(happened).as_hours() > 0);
        match seen.insert(text(&message["messageId"]), message.clone()) {
            Some(earlier) => {
                assert_eq!(&earlier, message);
                repeated += 1;
            }
            None => assert!(matches!(message["type"].as_str(), Some("track" | "identify" | "page" | "screen"))),
        }
    }
    assert_eq!(repeated, group().summary.events_resent);
    assert!(late > 500, "{late}");
    let all = group().text("events.ndjson");
    for spelling in [
        "gdt_vid=",
        "clickid=",
        "bd_vid=",
        "\"gdt_vid\":",
        "utm_source=",
        "+08:00",
        "\"amount\":\"",
        "\"amount_fen\":",
        "originalTimestamp",
    ] {
        assert!(all.contains(spelling), "{spelling}");
    }
}

/// Identifiers come in no order that their owners have, and nothing in the files names a person or a household of the truth.
#[test]
fn identifiers_say_nothing_about_the_truth() {
    let customers = group().rows("truth/customers.ndjson");
    let mut by_kind: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for customer in &customers {
        for known in customer["identifiers"].as_array().unwrap() {
            by_kind.entry(text(&known["type"])).or_default().push(text(&known["value"]));
        }
    }
    assert_eq!(
        by_kind.keys().map(String::as_str).collect::<Vec<_>>(),
        ["device", "email", "member", "openid", "phone", "plate", "unionid"]
    );
    for (kind, values) in &by_kind {
        let different: Vec<_> = values.windows(2).filter(|pair| pair[0] != pair[1]).collect();
        let ascending = different.iter().filter(|pair| pair[0] < pair[1]).count() * 1000 / different.len();
        assert!((440..560).contains(&ascending), "{kind}: {ascending} of a thousand ascend");
    }
    for name in ["events.ndjson", "transactions.ndjson", "leads.ndjson"] {
        let all = group().text(name);
        for key in ["\"person\"", "\"household\"", "\"need_per_mille\"", "\"stranger\""] {
            assert!(!all.contains(key), "{name} has {key}");
        }
    }
}

/// The truth marks exactly those identifiers as observed that some file shows.
#[test]
fn the_truth_knows_every_identifier_in_the_files() {
    let mut shown = BTreeSet::new();
    for event in group().rows("events.ndjson") {
        shown.extend(identifiers(&event));
    }
    for transaction in group().rows("transactions.ndjson") {
        shown.extend(transaction["identifiers"].as_array().unwrap().iter().map(|known| (text(&known["type"]), text(&known["value"]))));
    }
    shown.extend(group().rows("leads.ndjson").iter().map(|record| ("phone".to_owned(), text(&record["phone"]))));
    let mut expected = BTreeSet::new();
    for customer in group().rows("truth/customers.ndjson") {
        let known = customer["identifiers"].as_array().unwrap().clone();
        expected.extend(known.iter().filter(|known| known["observed"] == true).map(|known| (text(&known["type"]), text(&known["value"]))));
    }
    let nobodys: BTreeSet<String> = group().shared("tablet").union(&group().shared("relay")).cloned().collect();
    shown.retain(|(_, value)| !nobodys.contains(value));
    assert_eq!(shown.symmetric_difference(&expected).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}

#[test]
fn families_tablets_relays_and_recycled_numbers_occur() {
    let mut with: HashMap<(String, String), BTreeSet<(String, String)>> = HashMap::new();
    for event in group().rows("events.ndjson") {
        let found = identifiers(&event);
        for one in &found {
            with.entry(one.clone()).or_default().extend(found.iter().filter(|other| *other != one).cloned());
        }
    }
    let met = |kind: &str, value: &String, other: &str| {
        let others = with.get(&(kind.to_owned(), value.clone()));
        others.map_or(0, |others| others.iter().filter(|(kind, _)| kind == other).count())
    };
    let families = group().shared("family").iter().filter(|phone| met("phone", phone, "member") >= 2).count();
    assert!(families >= 40, "{families} phones are seen with several members");
    let tablets = group().shared("tablet");
    assert!(!tablets.is_empty() && tablets.iter().all(|tablet| met("device", tablet, "phone") >= 40));
    let relays = group().shared("relay").iter().filter(|phone| met("phone", phone, "device") >= 2).count();
    assert!(relays >= 2, "{relays} relay numbers are seen on several devices");
    let leads = group().rows("leads.ndjson");
    for relay in group().shared("relay") {
        let numbers = leads.iter().filter(|record| record["stage"] == "lead" && record["phone"] == relay.as_str()).count();
        assert!(numbers >= 3, "{relay}: {numbers} leads");
    }
    let owners = group().rows("truth/customers.ndjson");
    for phone in group().shared("recycled") {
        let spans: Vec<&Value> = owners
            .iter()
            .flat_map(|owner| owner["identifiers"].as_array().unwrap())
            .filter(|known| known["value"] == phone.as_str())
            .collect();
        assert_eq!(spans.len(), 2, "{phone}");
        let free = instant(&spans[1]["from"]).duration_since(instant(&spans[0]["until"]));
        assert!(free.as_hours() >= 24 * 45, "{phone} lies idle for {free}");
    }
    let taken_over = group().shared("recycled").iter().filter(|phone| met("phone", phone, "member") >= 2).count();
    assert!(taken_over >= 2, "{taken_over}");
}

#[test]
fn refunds_belong_to_purchases_and_never_exceed_them() {
    let (mut purchases, mut refunds, mut ids, mut repeated) = (HashMap::new(), Vec::new(), HashMap::new(), 0);
    for (place, transaction) in group().rows("transactions.ndjson").into_iter().enumerate() {
        let amount = transaction["amount_fen"].as_i64().unwrap();
        let lines: i64 = transaction["lines"].as_array().unwrap().iter().map(|line| line["amount_fen"].as_i64().unwrap()).sum();
        assert!(amount > 0 && amount == lines, "{transaction}");
        let id = text(&transaction["id"]);
        if let Some(earlier) = ids.insert(id.clone(), transaction.clone()) {
            assert_eq!(earlier, transaction);
            repeated += 1;
        } else if transaction["kind"] == "purchase" {
            purchases.insert(id, (place, amount, instant(&transaction["occurred_at"])));
        } else {
            refunds.push((place, text(&transaction["refund_of"]), amount, instant(&transaction["occurred_at"])));
        }
    }
    let (mut early, mut partly, mut given_back) = (0, 0, HashMap::<&String, i64>::new());
    for (place, purchase, amount, at) in &refunds {
        let (bought, paid, bought_at) = purchases[purchase];
        assert!(bought_at < *at);
        let back = given_back.entry(purchase).or_default();
        *back += amount;
        assert!(*back <= paid, "{purchase}");
        early += usize::from(*place < bought);
        partly += usize::from(*amount < paid);
    }
    assert_eq!(repeated, group().summary.transactions_resent);
    assert!(early >= 3 && partly >= 30 && partly < refunds.len(), "{early} early, {partly} partial of {}", refunds.len());
}

/// Each click that an event shows is billed: plan, creative and day of the report have at least as many.
#[test]
fn reports_bill_the_clicks_that_events_show() {
    let mut clicks: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
    let mut clicked = BTreeSet::new();
    for event in group().rows("events.ndjson") {
        let (message, campaign) = (&event["message"], &event["message"]["context"]["campaign"]);
        if campaign["medium"] != "cpc" || !clicked.insert(text(&message["messageId"])) {
            continue;
        }
        let lag = instant(&event["arrived_at"]).duration_since(instant(&message["sentAt"]));
        // Clocks that are wrong may put a click on another day; the servers of the platforms have their own.
        if lag.as_millis() < 1_000 {
            let day = instant(&message["timestamp"]).to_zoned(zone.clone()).strftime("%Y-%m-%d").to_string();
            *clicks.entry((day, text(&campaign["name"]), text(&campaign["content"]))).or_default() += 1;
        }
    }
    assert!(clicks.len() > 500);
    let mut spend_fen = 0;
    for (name, gbk, head) in [("ocean_engine", false, "时间-天"), ("tencent_ads", false, "日期"), ("baidu", true, "日期")] {
        let bytes = std::fs::read(group().folder.path().join(format!("spend/{name}.csv"))).unwrap();
        assert_eq!(bytes.starts_with(b"\xef\xbb\xbf"), name == "ocean_engine");
        let text = if gbk { encoding_rs::GBK.decode(&bytes).0.into_owned() } else { String::from_utf8(bytes).unwrap() };
        let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        assert_eq!(&reader.headers().unwrap()[0], head);
        for row in reader.records().map(Result::unwrap) {
            let billed: u64 = row[6].parse().unwrap();
            let seen = clicks.remove(&(row[0].to_owned(), row[2].to_owned(), row[4].to_owned())).unwrap_or(0);
            assert!(seen <= billed && billed <= row[5].parse().unwrap(), "{row:?}: {seen} seen");
            let (yuan, fen) = row[7].split_once('.').unwrap();
            assert_eq!(fen.len(), 2);
            spend_fen += yuan.parse::<i64>().unwrap() * 100 + fen.parse::<i64>().unwrap();
        }
    }
    assert_eq!(clicks.values().sum::<u64>(), 0, "clicks without a row: {clicks:?}");
    assert_eq!(spend_fen, group().summary.spend_fen);
}

/// Who signs looked longer: the signal that the intent tag is to find. Each path names messages that exist.
#[test]
fn contracts_come_from_interest_and_their_causes_are_known() {
    let causes = group().rows("truth/causes.ndjson");
    let signed: BTreeSet<u64> = causes.iter().map(|cause| cause["household"].as_u64().unwrap()).collect();
    let mut owner = HashMap::new();
    for customer in group().rows("truth/customers.ndjson").iter().filter(|customer| customer["stranger"] == false) {
        for known in customer["identifiers"].as_array().unwrap().iter().filter(|known| known["type"] == "device") {
            owner.insert(text(&known["value"]), customer["household"].as_u64().unwrap());
        }
    }
    let (mut dwell, mut messages) = (HashMap::<u64, i64>::new(), BTreeSet::new());
    for event in group().rows("events.ndjson") {
        let message = &event["message"];
        messages.insert(text(&message["messageId"]));
        if let (Some(dwell_seconds), Some(household)) =
            (message["properties"]["dwell_seconds"].as_i64(), owner.get(message["anonymousId"].as_str().unwrap()))
        {
            *dwell.entry(*household).or_default() += dwell_seconds;
        }
    }
    let (buyers, others): (Vec<_>, Vec<_>) = dwell.into_iter().partition(|(household, _)| signed.contains(household));
    let [buyers, others] = [buyers, others].map(|all| all.iter().map(|(_, seconds)| seconds).sum::<i64>() / all.len() as i64);
    assert!(buyers > others * 2, "{buyers} seconds a household against {others} ms");
    let records = group().rows("leads.ndjson");
    for cause in &causes {
        let path = cause["path"].as_array().unwrap();
        assert!(!path.is_empty() && path.iter().all(|step| messages.contains(step["message_id"].as_str().unwrap())));
        let contract =
            records.iter().find(|record| record["stage"] == "contracted" && record["contract_id"] == cause["contract_id"]).unwrap();
        assert_eq!((&contract["lead_id"], &contract["amount_fen"]), (&cause["lead_id"], &cause["amount_fen"]));
    }
}

/// A plain matcher that leaves out shared phones and devices comes close to the truth, and one that does not falls into every trap.
#[test]
fn identity_is_solvable_but_not_by_union_alone() {
    let observations: BTreeSet<BTreeSet<(String, String)>> = group().rows("events.ndjson").iter().map(identifiers).collect();
    let mut members: HashMap<&(String, String), BTreeSet<&String>> = HashMap::new();
    for observation in &observations {
        for member in observation.iter().filter(|(kind, _)| kind == "member") {
            for one in observation {
                members.entry(one).or_default().insert(&member.1);
            }
        }
    }
    let relays = group().shared("relay");
    let tablets = group().shared("tablet");
    let taken_out = |one: &(String, String)| {
        let several = one.0 != "member" && members.get(one).is_some_and(|members| members.len() > 1);
        several || relays.contains(&one.1) || tablets.contains(&one.1)
    };
    let (precision, recall) = compare(&observations, taken_out);
    assert!(precision > 980 && recall > 900, "precision {precision}, recall {recall}, per mille");
    let (plain, _) = compare(&observations, |_| false);
    assert!(plain < 500, "plain union reaches a precision of {plain} per mille");
}

/// Pairwise precision and recall of connected components against the truth, in per mille.
fn compare(observations: &BTreeSet<BTreeSet<(String, String)>>, taken_out: impl Fn(&(String, String)) -> bool) -> (u64, u64) {
    let mut numbers: HashMap<&(String, String), usize> = HashMap::new();
    let mut parents: Vec<usize> = Vec::new();
    fn root(parents: &mut [usize], mut at: usize) -> usize {
        while parents[at] != at {
            parents[at] = parents[parents[at]];
            at = parents[at];
        }
        at
    }
    for observation in observations {
        let mut first = None;
        for one in observation.iter().filter(|one| !taken_out(one)) {
            let number = *numbers.entry(one).or_insert(parents.len());
            if number == parents.len() {
                parents.push(number);
            }
            let (left, right) = (root(&mut parents, *first.get_or_insert(number)), root(&mut parents, number));
            parents[left] = right;
        }
    }
    let pairs = |counts: HashMap<(u64, usize), u64>| counts.values().map(|count| count * (count - 1) / 2).sum::<u64>();
    let (mut both, mut found, mut real) = (HashMap::new(), HashMap::new(), HashMap::new());
    for customer in group().rows("truth/customers.ndjson") {
        let person = customer["person"].as_u64().unwrap();
        for known in customer["identifiers"].as_array().unwrap() {
            if let Some(number) = numbers.get(&(text(&known["type"]), text(&known["value"]))) {
                let component = root(&mut parents, *number);
                *both.entry((person, component)).or_default() += 1;
                *found.entry((0, component)).or_default() += 1;
                *real.entry((person, 0)).or_default() += 1;
            }
        }
    }
    let (both, found, real) = (pairs(both), pairs(found), pairs(real));
    (both * 1000 / found, both * 1000 / real)
}
