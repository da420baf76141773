//! `heyuan events tail`: whoever watches sees each event pass with its fate, and nothing personal.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heyuan_harness::{Tenant, for_both_databases, heyuan_binary, until};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const SHOWN_LIMIT: Duration = Duration::from_secs(30);
const DEVICE: &str = "the tablet of somebody";

fn event(id: &str, name: &str) -> Value {
    json!({ "message_id": id, "name": name, "identifiers": [{ "type": "device", "value": DEVICE }] })
}

#[tokio::test]
async fn the_tail_shows_what_was_taken_what_came_twice_and_what_was_rejected() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let mut command = Command::new(heyuan_binary());
        command.args(["events", "tail", "--url", &tenant.url()]).env("HEYUAN_KEY", admin.key()).kill_on_drop(true);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("heyuan runs");
        let mut printed = BufReader::new(process.stdout.take().expect("standard output is a pipe")).lines();
        let lines = Arc::new(Mutex::new(Vec::<Value>::new()));
        let kept = lines.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = printed.next_line().await {
                // An empty line says that the connection lives.
                if line.is_empty() {
                    continue;
                }
                kept.lock().expect("no holder panics").push(serde_json::from_str(&line).expect("a line is a JSON object"));
            }
        });
        let shown = |id: &str| {
            let lines = lines.lock().expect("no holder panics");
            lines.iter().filter(|line| line["message_id"] == id).cloned().collect::<Vec<_>>()
        };
        // What passed before the tail was open is not shown: the same event again and again, until it is.
        until("the tail is open", SHOWN_LIMIT, || async {
            app.post("/v1/events", &json!({ "events": [event("tail-open", "unit_viewed")] })).await.expect(200);
            (!shown("tail-open").is_empty()).then_some(())
        })
        .await;
        let events = [event("tail-new", "unit_viewed"), event("tail-new", "unit_viewed"), event("tail-bad", "")];
        app.post("/v1/events", &json!({ "events": events })).await.expect(200);
        let (new, bad) = until("the tail shows every event", SHOWN_LIMIT, || async {
            let (new, bad) = (shown("tail-new"), shown("tail-bad"));
            (new.len() == 2 && bad.len() == 1).then_some((new, bad))
        })
        .await;
        let mut fates: Vec<_> = new.iter().filter_map(|line| line["status"].as_str()).collect();
        fates.sort_unstable();
        assert_eq!(fates, ["duplicate", "ok"]);
        assert_eq!((&bad[0]["status"], &bad[0]["reason"]), (&json!("rejected"), &json!("bad_name")), "{bad:?}");
        assert!(new.iter().chain(&bad).all(|line| !line.to_string().contains(DEVICE)), "a tail shows nothing personal");
    })
    .await;
}
