//! What the event history holds, asked as an analyst would: by SQL over HTTP.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use heyuan_harness::{Caller, Tenant, until};
use serde_json::json;

const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);
const PAGE: usize = 1_000;
const SETTLED_LIMIT: Duration = Duration::from_secs(90);
/// What is above zero while an event is on its way.
const WAITING: &[&str] = &["heyuan_inbox_events", "heyuan_outbox_unnumbered_ms", "heyuan_consumer_behind_events"];
/// How often in a row it must be zero: an event can go from one place to the next between two reads, and its age may be no whole millisecond.
const QUIET_LOOKS: u32 = 5;

/// Every stored message id that begins with `prefix`, and how often it is stored.
pub(crate) async fn stored(admin: &Caller, prefix: &str) -> BTreeMap<String, u64> {
    let sql = format!(
        "SELECT message_id, count(*) AS times FROM events WHERE message_id LIKE $1 AND message_id > $2 GROUP BY message_id ORDER BY message_id LIMIT {PAGE}"
    );
    let mut found = BTreeMap::new();
    let mut after = String::new();
    loop {
        let question = json!({ "sql": sql, "params": [format!("{prefix}%"), after], "limit": PAGE });
        let answer = admin.post("/v1/query", &question).await.expect(200);
        let rows = answer["rows"].as_array().expect("an answer has rows");
        for row in rows {
            let id = row[0].as_str().expect("a message id is text").to_owned();
            found.insert(id, row[1].as_u64().expect("a count is a whole number"));
        }
        if rows.len() < PAGE {
            return found;
        }
        after = found.keys().next_back().expect("a page has rows").clone();
    }
}

/// Waits until every one of `ids` is stored, and holds that no id with this prefix is stored twice.
pub(crate) async fn holds_once<'a>(admin: &Caller, prefix: &str, ids: impl IntoIterator<Item = &'a String> + Clone) {
    let found = until(&format!("all events {prefix}… are stored"), ARRIVAL_LIMIT, || async {
        let found = stored(admin, prefix).await;
        ids.clone().into_iter().all(|id| found.contains_key(id)).then_some(found)
    })
    .await;
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "stored more than once: {twice:?}");
}

/// Waits until nothing waits to be processed.
pub(crate) async fn settled(tenant: &Tenant) {
    let quiet = Cell::new(0);
    until("everything is processed", SETTLED_LIMIT, || async {
        let metrics = tenant.stranger().get("/metrics").await.text();
        let waits = |line: &&str| WAITING.iter().any(|name| line.starts_with(name));
        quiet.set(if metrics.lines().filter(waits).all(|line| line.ends_with(" 0")) { quiet.get() + 1 } else { 0 });
        (quiet.get() == QUIET_LOOKS).then_some(())
    })
    .await;
}
