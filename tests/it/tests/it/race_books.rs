//! Two processes of one tenant race for the last of everything: points, a benefit, a point of a budget, the close of a month.

use std::sync::Arc;

use futures::future::join_all;
use heyuan_harness::{Answer, Caller, Tenant, TestDatabase, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::crash_books::{SETTLED_LIMIT, month, open};
use crate::plugins::{component, upload};
use crate::shop::comes_again;

const RACERS: usize = 8;
const MALL: &str = "mall-1";

/// Two processes on one database.
struct Pair {
    callers: [Caller; 2],
}

impl Pair {
    /// Sends a request by one of the two until it is answered for good.
    async fn post(&self, racer: usize, path: &str, key: &str, body: &Value) -> Answer {
        let caller = &self.callers[racer % 2];
        until("a racer is answered", SETTLED_LIMIT, || async {
            let request = caller.request(Method::POST, path).header("Idempotency-Key", key).json(body);
            Answer::try_of(request).await.ok().filter(|answer| !comes_again(answer))
        })
        .await
    }

    /// All racers at once; answers the bodies of those who won, and the codes of the others.
    async fn race(&self, ask: impl Fn(usize) -> (String, String, Value)) -> (Vec<Value>, Vec<String>) {
        let asked: Vec<_> = (0..RACERS).map(ask).collect();
        let answers = join_all(asked.iter().enumerate().map(|(racer, (path, key, body))| self.post(racer, path, key, body))).await;
        let (won, lost): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status < 300);
        (won.iter().map(Answer::json).collect(), lost.iter().map(|answer| answer.problem(409)).collect())
    }

    async fn join(&self, phone: usize) -> String {
        let identifiers = json!([{ "type": "phone", "value": format!("139{phone:08}"), "verified": true }]);
        let joined = self.callers[0].post("/v1/members", &json!({ "unit": MALL, "identifiers": identifiers })).await.expect(201);
        joined["id"].as_str().expect("a member has an id").to_owned()
    }
}

fn sale(id: &str, member: &str, fen: i64, day: &str) -> Value {
    json!({ "id": id, "unit": MALL, "kind": "purchase", "occurred_at": format!("{day}T12:00:00+08:00"),
            "amount": { "amount": fen, "currency": "CNY" }, "member": member })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_last_one_there_is_one_winner() {
    let database = TestDatabase::postgres().await;
    let (first, second) = (Tenant::start(&database).await, Tenant::start(&database).await);
    let [desk, _] = open(&first).await;
    let pair = Pair { callers: [desk.clone(), second.caller_with(desk.key())] };
    until("the other process knows the unit", SETTLED_LIMIT, || async {
        pair.callers[1].get("/v1/org-units").await.text().contains(MALL).then_some(())
    })
    .await;
    let members = join_all((0..RACERS).map(|phone| pair.join(phone))).await;

    // A hundred points, and eight who want sixty.
    pair.post(0, "/v1/transactions", "opening", &sale("opening", &members[0], 10_000, "2026-11-20")).await.expect(200);
    let spend = format!("/v1/members/{}/points:spend", members[0]);
    let wanted = json!({ "amount": 60, "unit": MALL, "reference": "parking" });
    let (won, lost) = pair.race(|racer| (spend.clone(), format!("spend-{racer}"), wanted.clone())).await;
    assert_eq!((won.len(), lost.len()), (1, RACERS - 1));
    assert!(lost.iter().all(|code| code == "not_enough_points"), "{lost:?}");

    // One key, eight senders: one spend.
    let little = json!({ "amount": 5, "unit": MALL, "reference": "tea" });
    let (won, lost) = pair.race(|_| (spend.clone(), "the-same".into(), little.clone())).await;
    assert!(lost.is_empty() && won.iter().all(|answer| answer == &won[0]), "{won:?} {lost:?}");

    // Three seats for eight members.
    let seats = json!({ "name": "A seat", "name_zh": "座位", "unit": MALL, "measure": "uses", "quantity": 1, "cost_fen": 500,
                        "valid_days": 30, "stock": { "total": 3 }, "state": "active" });
    desk.put("/v1/benefits/last-seats", &seats).await.expect(200);
    let grant = json!({ "benefit": "last-seats", "reason": "concert" });
    let (won, lost) = pair.race(|racer| (format!("/v1/members/{}/benefits", members[racer]), format!("seat-{racer}"), grant.clone())).await;
    assert_eq!((won.len(), lost.len()), (3, RACERS - 3));
    assert!(lost.iter().all(|code| code == "benefit_out_of_stock"), "{lost:?}");

    one_reservation_one_hold_one_refund(&pair, &members[1]).await;

    // A member day on which the rule wants a hundred points eight times, and a budget of 350.
    let rule = upload(&desk, "member-day", component("member-day")).await.expect(200);
    let active = json!({ "digest": rule["digest"], "approve": rule["reads"] });
    desk.post("/v1/plugins/member-day/activate", &active).await.expect(200);
    let budget = json!({ "rules": ["member-day"], "from": "2026-11-01T00:00:00+08:00", "until": "2026-12-01T00:00:00+08:00",
                         "points_max": 350 });
    desk.put("/v1/budgets/autumn", &budget).await.expect(200);
    let buy = |racer: usize| {
        let id = format!("day-{racer}");
        ("/v1/transactions".to_owned(), id.clone(), sale(&id, &members[racer], 10_000, "2026-11-18"))
    };
    let (won, lost) = pair.race(buy).await;
    assert!(lost.is_empty(), "{lost:?}");
    let mut extra: Vec<i64> = won.iter().map(|answer| answer["points"].as_i64().expect("points") - 100).collect();
    extra.sort_unstable();
    assert_eq!(extra, [0, 0, 0, 0, 50, 100, 100, 100]);
    assert_eq!(desk.get("/v1/budgets").await.expect(200)["items"][0]["points_spent"], 350);

    close_at_once(&pair, &members).await;
    let book = first.heyuan(&["ledger", "verify"]);
    assert!(book.contains("the book is sound"), "{book}");
}

/// What a member has of one, and counters of both processes want: a reserved unit, points that are set aside, the money of a purchase.
async fn one_reservation_one_hold_one_refund(pair: &Pair, member: &str) {
    let of = |path: &str| format!("/v1/members/{member}{path}");
    let id = |answer: &Answer, name: &str| answer.json()[name].as_str().unwrap_or_else(|| panic!("{name} of {}", answer.text())).to_owned();
    pair.post(0, "/v1/transactions", "shoes", &sale("shoes", member, 10_000, "2026-11-20")).await.expect(200);

    let grant = pair.post(0, &of("/benefits"), "parking", &json!({ "benefit": "parking", "reason": "late" })).await;
    let reserve = of(&format!("/benefits/{}:reserve", id(&grant, "id")));
    let reserved = pair.post(1, &reserve, "reserve", &json!({ "quantity": 1, "unit": MALL })).await;
    let counter = format!("/v1/benefit-reservations/{}:use", id(&reserved, "code"));
    let (won, lost) = pair.race(|racer| (counter.clone(), format!("use-{racer}"), json!({ "unit": MALL }))).await;
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|code| code == "benefit_used"), "{lost:?}");

    let held = pair.post(1, &of("/points/holds"), "hold", &json!({ "amount": 60, "unit": MALL, "reference": "order" })).await;
    let capture = of(&format!("/points/holds/{}:capture", id(&held, "id")));
    let (won, lost) = pair.race(|racer| (capture.clone(), format!("capture-{racer}"), json!({ "amount": 10 + racer }))).await;
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|code| code == "hold_settled"), "{lost:?}");
    let spent = won[0]["captured"].as_i64().expect("points");

    let back = |racer: usize| {
        let name = format!("back-{racer}");
        let mut refund = sale(&name, member, 10_000, "2026-11-20");
        (refund["kind"], refund["refund_of"]) = (json!("refund"), json!("shoes"));
        ("/v1/transactions".to_owned(), name, refund)
    };
    let (won, lost) = pair.race(back).await;
    assert_eq!((won.len(), &won[0]["points"]), (1, &json!(-100)));
    assert!(lost.iter().all(|code| code == "refund_too_large"), "{lost:?}");
    let left = pair.callers[0].get(&of("")).await.expect(200);
    assert_eq!((&left["points"], &left["points_owed"]), (&json!(0), &json!(spent)));
}

/// Both processes close the first month while both post into it: each posting counts in one month, and the month is closed once.
async fn close_at_once(pair: &Pair, members: &[String]) {
    let oldest = month(crate::crash_books::HISTORY_MONTHS);
    let (name, day) = (oldest.strftime("%Y-%m").to_string(), oldest.strftime("%Y-%m-15").to_string());
    let importer = Arc::new(pair.callers.clone());
    let posting = join_all((0..RACERS).map(|racer| {
        let (caller, member) = (importer[racer % 2].clone(), members[racer].clone());
        let body = sale(&format!("old-{racer}"), &member, 10_000, &day);
        async move {
            let posted = until("a posting is answered", SETTLED_LIMIT, || async {
                let request =
                    caller.request(Method::POST, "/v1/transactions").header("Idempotency-Key", format!("old-{racer}")).json(&body);
                Answer::try_of(request).await.ok().filter(|answer| !comes_again(answer))
            })
            .await
            .expect(200);
            posted["accounting_period"].as_str().expect("a month").to_owned()
        }
    }));
    let path = format!("/v1/clearing/{name}:close");
    let plainly = json!({});
    let closing = join_all((0..4).map(|racer| pair.post(racer, &path, "close", &plainly)));
    let (posted, closed) = futures::join!(posting, closing);
    let closed: Vec<Value> = closed.iter().filter(|answer| answer.status == 200).map(Answer::json).collect();
    assert!(!closed.is_empty() && closed.iter().all(|clearing| clearing == &closed[0]), "{closed:?}");
    let in_it = i64::try_from(posted.iter().filter(|period| **period == name).count()).expect("few");
    let clearing = pair.callers[0].get(&format!("/v1/clearing/{name}")).await.expect(200);
    assert_eq!(clearing, closed[0], "a closed month never changes");
    let mall = clearing["lines"].as_array().and_then(|lines| lines.iter().find(|line| line["line"] == "mall")).expect("every line");
    assert_eq!(mall["issued_points"], in_it * 100, "{posted:?}");
}
