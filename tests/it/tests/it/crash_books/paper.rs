//! What finance takes out of a tenant: the trial balance, the statement of an account, and files that other people's programs read.

use std::collections::BTreeMap;
use std::fs;

use heyuan_harness::{Caller, python_tool};
use serde_json::{Value, json};

/// An account that moves whenever points are earned at the mall.
const ISSUED: &str = "line/mall/points_issued";
/// Reads an XLSX file and a CSV file, and prints the rows of each as JSON.
const READ: &str = "
import csv, json, sys, openpyxl
book = openpyxl.load_workbook(sys.argv[1], read_only=True)
sheets = {sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)] for sheet in book}
with open(sys.argv[2], encoding='utf-8-sig', newline='') as file:
    print(json.dumps({'sheets': sheets, 'csv': list(csv.reader(file))}, default=str))
";

fn whole(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_else(|| panic!("{name} of {value}"))
}

/// Holds that the trial balance of a month comes to nothing, and that an account's statement says the same, entry by entry. Answers the entries.
pub(super) async fn balances(finance: &Caller, month: &str) -> usize {
    let balance = finance.get(&format!("/v1/ledger/trial-balance?period={month}")).await.expect(200);
    let lines = balance["items"].as_array().expect("a trial balance has lines");
    let mut sums: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
    for line in lines {
        let sum = sums.entry(line["unit"].as_str().expect("a unit")).or_default();
        let moved = whole(line, "credits") - whole(line, "debits");
        assert_eq!(whole(line, "opening") + moved, whole(line, "closing"), "{line}");
        for (sum, figure) in sum.iter_mut().zip([whole(line, "opening"), moved, whole(line, "closing")]) {
            *sum += figure;
        }
    }
    assert!(sums.len() > 1 && sums.values().all(|sum| *sum == [0, 0, 0]), "{sums:?}");
    let issued = lines.iter().find(|line| line["accounts"] == ISSUED).expect("points were issued");
    let (mut entries, mut moved, mut cursor) = (0, 0, String::new());
    loop {
        let page = finance.get(&format!("/v1/ledger/statement?account={ISSUED}&period={month}&limit=20{cursor}")).await.expect(200);
        for figure in ["opening", "debits", "credits", "closing"] {
            assert_eq!(page[figure], issued[figure], "{figure}");
        }
        let items = page["items"].as_array().expect("a page has items");
        entries += items.len();
        moved += items.iter().map(|entry| whole(entry, "amount")).sum::<i64>();
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(moved, whole(issued, "credits") - whole(issued, "debits"));
    assert_eq!(finance.get(&format!("/v1/ledger/statement?account=nobody&period={month}")).await.problem(404), "not_found");
    assert_eq!(finance.get("/v1/ledger/trial-balance?period=2026-13").await.problem(400), "invalid_request");
    entries
}

/// Holds that programs of other people read in a month's files what the clearing says.
pub(super) async fn files_read(finance: &Caller, month: &str) {
    let clearing = finance.get(&format!("/v1/clearing/{month}")).await.expect(200);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut paths = Vec::new();
    for (name, query) in [("clearing.xlsx", "format=xlsx"), ("clearing.csv", "format=csv&table=summary")] {
        let file = finance.get(&format!("/v1/clearing/{month}/export?{query}")).await;
        file.expect_status(200);
        let path = folder.path().join(name);
        fs::write(&path, &file.body).expect("the temporary folder is writable");
        paths.push(path.to_str().expect("UTF-8").to_owned());
    }
    let (read, printed) = python_tool("python", &["-c", READ, &paths[0], &paths[1]]).await;
    assert!(read, "{printed}");
    let found: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    for line in clearing["lines"].as_array().expect("a clearing has lines") {
        for (column, figure) in [("Issued (points)", "issued_points"), ("Spent (fen)", "spent_fen"), ("Net (fen)", "net_fen")] {
            let figure = whole(line, figure);
            assert_eq!(cell(&found["sheets"]["Summary"], &line["line"], column), json!(figure), "{line}");
            assert_eq!(cell(&found["csv"], &line["line"], column), json!(figure.to_string()), "{line}");
        }
    }
}

/// What a table with a header has in the row of a line.
fn cell(table: &Value, line: &Value, column: &str) -> Value {
    let rows = table.as_array().expect("rows");
    let place = rows[0].as_array().and_then(|header| header.iter().position(|name| name == column));
    let place = place.unwrap_or_else(|| panic!("no column {column} in {}", rows[0]));
    rows.iter().find(|row| &row[1] == line).map_or_else(|| panic!("no row of {line}"), |row| row[place].clone())
}
