//! A year of a group's transactions, cleared month by month: what differs from the lines' own books is what the lines did wrong, no more
//! and no less.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use heyuan_harness::{Answer, Caller, Tenant, TestDatabase, concurrently, for_both_databases};
use reqwest::Method;
use serde_json::{Value, json};

use crate::group::generate;

const LINES: [&str; 4] = ["mall", "office", "hotel", "community"];
const CALLERS: usize = 8;
const CUSTOMERS: &str = "400";
const SEED: &str = "5";

/// A difference as both sides can say it: how, where, which transaction, what the books say and what was reported.
type Difference = (String, String, String, Option<i64>, Option<i64>);

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the generator wrote it");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("{name} of {row}"))
}

/// `2026-03` of an own time in Shanghai.
fn month(row: &Value) -> String {
    text(row, "occurred_at")[..7].to_owned()
}

/// The generator's mistakes as differences, by month and line.
fn planted(out: &Path) -> BTreeMap<(String, String), BTreeSet<Difference>> {
    let mut planted: BTreeMap<_, BTreeSet<Difference>> = BTreeMap::new();
    for fault in rows(&out.join("truth/faults.ndjson")) {
        let (unit, transaction, books) =
            (text(&fault, "unit").to_owned(), text(&fault, "transaction").to_owned(), fault["amount_fen"].as_i64());
        let reported = fault["reported_fen"].as_i64();
        let difference = match text(&fault, "fault") {
            "double_import" => ("not_in_books".into(), unit, text(&fault, "reported_as").to_owned(), None, reported),
            "wrong_rate" => ("amount_differs".into(), unit, transaction, books, reported),
            "lost_refund" => ("not_reported".into(), unit, transaction, books, None),
            other => panic!("the truth knows no {other}"),
        };
        planted.entry((month(&fault), text(&fault, "line").to_owned())).or_default().insert(difference);
    }
    planted
}

/// The tree as the API takes it.
fn units_of(units: &Value) -> Vec<Value> {
    let known = |(name, _): &(&String, &Value)| ["id", "parent", "name", "kind", "line"].contains(&name.as_str());
    let unit = |unit: &Value| {
        let fields = unit.as_object().expect("a unit").iter().filter(known).filter(|(_, value)| !value.is_null());
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    units.as_array().expect("units").iter().map(unit).map(Value::Object).collect()
}

/// A member for each identifier by which the tills name somebody; who is who is not what this is about.
async fn members(app: &Caller, transactions: &[Value]) -> BTreeMap<String, String> {
    let named: BTreeMap<&str, &str> = transactions.iter().map(|row| (text(&row["identifiers"][0], "value"), text(row, "unit"))).collect();
    let named: Vec<(&str, &str)> = named.into_iter().collect();
    let join = async |place: usize| {
        let (value, unit) = named[place];
        let phone = format!("139{place:08}");
        let body = json!({ "unit": unit, "identifiers": [{ "type": "phone", "value": phone, "verified": true }] });
        let member = app.post("/v1/members", &body).await.expect(201);
        (value.to_owned(), text(&member, "id").to_owned())
    };
    concurrently(named.len(), CALLERS, join).await.into_iter().collect()
}

/// Reports what the generator says that the lines reported, a few at a time: a refund may come before its purchase.
async fn report(app: &Caller, members: &BTreeMap<String, String>, transactions: &[Value]) {
    concurrently(transactions.len(), CALLERS, async |place: usize| {
        let row = &transactions[place];
        let mut body = json!({
            "id": row["id"], "unit": row["unit"], "kind": row["kind"], "occurred_at": row["occurred_at"],
            "amount": { "amount": row["amount_fen"], "currency": "CNY" },
            "member": members[text(&row["identifiers"][0], "value")],
        });
        if row["refund_of"].is_string() {
            body["refund_of"] = row["refund_of"].clone();
        }
        app.post_once("/v1/transactions", text(row, "id"), &body).await.expect_status(200);
    })
    .await;
}

/// Points for an amount under the first earn rules.
fn points(line: &str, fen: i64) -> i64 {
    if line == "community" { fen / 1000 } else { fen / 100 }
}

/// Points that the purchases of a month and line earned, each reported once.
fn issued(transactions: &[Value]) -> BTreeMap<(String, String), i64> {
    let mut issued = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for row in transactions.iter().filter(|row| row["kind"] == "purchase") {
        if seen.insert(text(row, "id")) {
            let line = text(row, "line");
            *issued.entry((month(row), line.to_owned())).or_insert(0) += points(line, row["amount_fen"].as_i64().expect("fen"));
        }
    }
    issued
}

/// The rows of a line's own books that belong to a month, under the header of the file.
fn of_month(books: &str, wanted: &str) -> String {
    let mut lines = books.lines();
    let header = lines.next().expect("a header");
    let place = header.split(',').position(|name| name == "occurred_at").expect("its own time stands in it");
    let own: Vec<&str> = lines.filter(|row| row.split(',').nth(place).is_some_and(|at| at.starts_with(wanted))).collect();
    format!("{header}\n{}\n", own.join("\n"))
}

async fn reconcile(admin: &Caller, month: &str, line: &str, csv: String) -> Value {
    let path = format!("/v1/clearing/{month}/reconciliation?line={line}");
    let request = admin.request(Method::POST, &path).header("Content-Type", "text/csv; charset=utf-8").body(csv);
    Answer::of(request).await.expect(200)
}

fn told(answer: &Value) -> BTreeSet<Difference> {
    let own = |row: &Value, name: &str| text(row, name).to_owned();
    let rows = answer["differences"].as_array().expect("differences").iter();
    rows.map(|row| {
        let (books, reported) = (row["books_fen"].as_i64(), row["reported_fen"].as_i64());
        (own(row, "difference"), own(row, "unit"), own(row, "transaction"), books, reported)
    })
    .collect()
}

#[tokio::test]
async fn a_year_clears_and_shows_exactly_what_the_lines_did_wrong() {
    let apart = TestDatabase::sqlite();
    let out = apart.data_dir().join("group");
    generate(&out, &["--faults", "--customers", CUSTOMERS, "--days", "365", "--seed", SEED]);
    let transactions = rows(&out.join("transactions.ndjson"));
    let planted = planted(&out);
    let kinds: BTreeSet<&str> = planted.values().flatten().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds.len(), 3, "each mistake is among the {} planted ones", planted.values().map(BTreeSet::len).sum::<usize>());
    let months: BTreeSet<String> = transactions.iter().map(month).collect();
    assert_eq!(months.len(), 12, "{months:?}");
    let reported = issued(&transactions);

    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let (admin, app) = (tenant.caller("admin"), tenant.caller("app"));
        let units: Value = serde_json::from_slice(&fs::read(out.join("org_units.json")).expect("the units")).expect("JSON");
        admin.put("/v1/org-units", &json!({ "units": units_of(&units) })).await.expect_status(204);
        let members = members(&app, &transactions).await;
        report(&app, &members, &transactions).await;

        let mut found = BTreeMap::new();
        for month in &months {
            let closed = admin.post(&format!("/v1/clearing/{month}:close"), &json!({})).await.expect(200);
            for line in LINES {
                let key = (month.clone(), line.to_owned());
                let row = closed["lines"].as_array().expect("lines").iter().find(|row| row["line"] == line).expect("every line has a row");
                assert_eq!(row["issued_points"].as_i64(), Some(reported.get(&key).copied().unwrap_or(0)), "{month} {line}: {row}");
                let books = fs::read_to_string(out.join(format!("books/{line}.csv"))).expect("the line keeps books");
                let answer = reconcile(&admin, month, line, of_month(&books, month)).await;
                assert_eq!(answer["rows_refused"], 0, "{answer}");
                let differences = told(&answer);
                assert_eq!(answer["differing"].as_u64(), u64::try_from(differences.len()).ok(), "each is told");
                for twin in answer["differences"].as_array().expect("differences").iter().filter(|row| row["difference"] == "not_in_books")
                {
                    assert!(twin["twin"].is_string(), "a second import is told from a transaction that nobody knows: {twin}");
                }
                if !differences.is_empty() {
                    found.insert(key, differences);
                }
            }
        }
        assert_eq!(found, planted);
    })
    .await;
}
