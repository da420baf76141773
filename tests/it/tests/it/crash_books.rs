//! Crashes in the middle of every use case of membership: whoever asks again hears the same, and what each member has in the end is what the
//! answers said, once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heyuan_harness::{Answer, Caller, Tenant, for_both_databases, until};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::shop::comes_again;

const KILLS: usize = 6;
/// Members that live their stories side by side.
const STORIES: usize = 5;
/// Requests that are answered before a kill: more each time, so that it comes in the middle of something else.
const ANSWERED_MIN: usize = 40;
/// Units of the benefit that everybody wants.
const SEATS: i64 = 12;
/// How many months ago the book of points begins.
pub(crate) const HISTORY_MONTHS: usize = 60;
pub(crate) const SETTLED_LIMIT: Duration = Duration::from_secs(60);
const MALL: &str = "mall-1";

/// A request, under its key where it needs one.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    path: String,
    key: Option<String>,
    body: Body,
    /// Asked by the second of two people.
    second: bool,
}

/// The keys of two people of the group.
type Desk = [Caller; 2];

#[derive(Clone, Debug)]
enum Body {
    Json(Value),
    Csv(String),
}

impl Asked {
    fn post(path: String, body: Value) -> Self {
        Self { method: Method::POST, path, key: None, body: Body::Json(body), second: false }
    }

    /// Under a key of its own.
    fn once(self, key: String) -> Self {
        Self { key: Some(key), ..self }
    }

    async fn by(&self, desk: &Desk) -> Result<Answer, reqwest::Error> {
        let mut request = desk[usize::from(self.second)].request(self.method.clone(), &self.path);
        if let Some(key) = &self.key {
            request = request.header("Idempotency-Key", key);
        }
        request = match &self.body {
            Body::Json(body) => request.json(body),
            Body::Csv(text) => request.header("Content-Type", "text/csv").body(text.clone()),
        };
        Answer::try_of(request).await
    }
}

/// One use case of a member's story: what is asked, and what the answer changes.
struct UseCase {
    name: &'static str,
    ask: fn(&Story) -> Asked,
    learn: fn(&mut Story, &Value),
    points: i64,
    growth: i64,
}

/// A member, from its joining on.
#[derive(Clone, Default)]
struct Story {
    name: String,
    phone: String,
    next: usize,
    facts: BTreeMap<&'static str, String>,
    points: i64,
    growth: i64,
    seats: i64,
    answered: Vec<(Asked, Value)>,
}

impl Story {
    fn fact(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("{}: nothing is known of {name}", self.name))
    }

    fn member(&self, path: &str) -> String {
        format!("/v1/members/{}{path}", self.fact("member"))
    }

    fn transaction(&self, id: &str, kind: &str, of: Value, fen: i64) -> Asked {
        let body = json!({
            "id": format!("{}-{id}", self.name), "unit": MALL, "kind": kind, "refund_of": of, "occurred_at": "2026-11-20T10:00:00+08:00",
            "amount": { "amount": fen, "currency": "CNY" }, "member": self.fact("member"),
        });
        Asked::post("/v1/transactions".into(), body)
    }

    fn keep(&mut self, name: &'static str, answer: &Value, pointer: &str) {
        let value = answer.pointer(pointer).and_then(Value::as_str);
        let value = value.unwrap_or_else(|| panic!("{}: no {pointer} in {answer}", self.name)).to_owned();
        self.facts.insert(name, value);
    }

    /// The request that is next; the same again until it is answered.
    fn asked(&self) -> Asked {
        let case = &STORY[self.next];
        let asked = (case.ask)(self);
        if asked.method == Method::POST { asked.once(format!("{}-{}", self.name, case.name)) } else { asked }
    }

    fn hear(&mut self, asked: Asked, answer: &Value) {
        let case = &STORY[self.next];
        (case.learn)(self, answer);
        (self.points, self.growth) = (self.points + case.points, self.growth + case.growth);
        self.answered.push((asked, answer.clone()));
        self.next += 1;
    }
}

fn nothing(_: &mut Story, _: &Value) {}

/// The whole story, use case by use case.
const STORY: &[UseCase] = &[
    UseCase {
        name: "join",
        ask: |story| {
            let identifiers = json!([{ "type": "phone", "value": story.phone, "verified": true }]);
            Asked::post("/v1/members".into(), json!({ "unit": MALL, "identifiers": identifiers }))
        },
        learn: |story, answer| story.keep("member", answer, "/id"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "link",
        ask: |story| {
            let account = json!({ "account": format!("MC-{}", story.phone), "unit": MALL });
            Asked { method: Method::PUT, ..Asked::post(story.member("/accounts/mall"), account) }
        },
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "buy",
        ask: |story| story.transaction("buy", "purchase", Value::Null, 10_000),
        learn: nothing,
        points: 100,
        growth: 100,
    },
    UseCase {
        name: "more",
        ask: |story| story.transaction("more", "purchase", Value::Null, 5_000),
        learn: nothing,
        points: 50,
        growth: 50,
    },
    UseCase {
        name: "refund",
        ask: |story| story.transaction("refund", "refund", json!(format!("{}-buy", story.name)), 2_000),
        learn: nothing,
        points: -20,
        growth: -20,
    },
    UseCase {
        name: "spend",
        ask: |story| Asked::post(story.member("/points:spend"), json!({ "amount": 30, "unit": MALL, "reference": "parking" })),
        learn: |story, answer| story.keep("spend", answer, "/id"),
        points: -30,
        growth: 0,
    },
    UseCase {
        name: "return",
        ask: |story| Asked::post(story.member(&format!("/points/spends/{}:return", story.fact("spend"))), json!({ "amount": 10 })),
        learn: nothing,
        points: 10,
        growth: 0,
    },
    UseCase {
        name: "import",
        ask: |story| {
            let rows = format!("member,points,cost_fen,expires_on\n{},40,1/2,2030-12-31\n", story.fact("member"));
            let asked = Asked::post(format!("/v1/points-imports?unit={MALL}"), Value::Null);
            Asked { body: Body::Csv(rows), ..asked }
        },
        learn: |_, answer| {
            let done = |name: &str| answer[name].as_i64().unwrap_or_default();
            assert_eq!(done("rows_posted") + done("rows_known"), 1, "{answer}");
        },
        points: 40,
        growth: 0,
    },
    UseCase {
        name: "grant",
        ask: |story| Asked::post(story.member("/benefits"), json!({ "benefit": "parking", "reason": "late" })),
        learn: |story, answer| story.keep("grant", answer, "/id"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "reserve",
        ask: |story| story.on_grant("reserve", json!({ "quantity": 1, "unit": MALL })),
        learn: |story, answer| story.keep("reserved", answer, "/code"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "use-reserved",
        ask: |story| Asked::post(format!("/v1/benefit-reservations/{}:use", story.fact("reserved")), json!({ "unit": MALL })),
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "reserve-more",
        ask: |story| story.on_grant("reserve", json!({ "quantity": 2, "unit": MALL })),
        learn: |story, answer| story.keep("spare", answer, "/code"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "give-back",
        ask: |story| story.on_grant("return", json!({ "code": story.fact("spare") })),
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "use",
        ask: |story| story.on_grant("use", json!({ "quantity": 3, "unit": MALL })),
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "seat",
        ask: |story| Asked::post(story.member("/benefits"), json!({ "benefit": "seat", "reason": "concert" })),
        learn: |story, answer| story.seats += i64::from(answer["id"].is_string()),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "block",
        ask: |story| Asked::post(story.member(":block"), json!({ "reason": "a stolen phone" })),
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "unblock",
        ask: |story| Asked::post(story.member(":unblock"), json!({ "reason": "it was found" })),
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "hold",
        ask: |story| Asked::post(story.member("/points/holds"), json!({ "amount": 10, "unit": MALL, "reference": "order" })),
        learn: |story, answer| story.keep("hold", answer, "/id"),
        points: -10,
        growth: 0,
    },
    UseCase {
        name: "capture",
        ask: |story| Asked::post(story.member(&format!("/points/holds/{}:capture", story.fact("hold"))), json!({ "amount": 6 })),
        learn: nothing,
        points: 4,
        growth: 0,
    },
    UseCase {
        name: "propose",
        ask: |story| {
            let proposal = json!({ "member": story.fact("member"), "amount": 15, "unit": MALL, "reason": "a lost receipt" });
            Asked::post("/v1/points-adjustments".into(), proposal)
        },
        learn: |story, answer| story.keep("proposal", answer, "/id"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "approve",
        ask: |story| {
            let path = format!("/v1/points-adjustments/{}:approve", story.fact("proposal"));
            Asked { second: true, ..Asked::post(path, Value::Null) }
        },
        learn: nothing,
        points: 15,
        growth: 0,
    },
    UseCase {
        name: "exchange",
        ask: |story| Asked::post(story.member("/points/exchanges"), json!({ "benefit": "coffee" })),
        learn: nothing,
        points: -5,
        growth: 0,
    },
    UseCase {
        name: "tier",
        ask: |story| {
            let until = format!("{}-01-01T00:00:00+08:00", month(0).year() + 2);
            let platinum = json!({ "tier": "platinum", "until": until, "reason": "a guest of honour" });
            Asked::post(story.member("/tier-grants"), platinum)
        },
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "last",
        ask: |story| story.transaction("last", "purchase", Value::Null, 1_000),
        learn: nothing,
        points: 10,
        growth: 10,
    },
];

impl Story {
    fn on_grant(&self, verb: &str, body: Value) -> Asked {
        Asked::post(self.member(&format!("/benefits/{}:{verb}", self.fact("grant"))), body)
    }
}

/// Lives stories one after the other until the server is gone; answers those that ended, and the one that was broken off.
async fn live(desk: Desk, mut story: Story, answered: Arc<AtomicUsize>, fresh: Arc<AtomicUsize>) -> (Vec<Story>, Story) {
    let mut ended = Vec::new();
    loop {
        if story.next == STORY.len() {
            ended.push(std::mem::replace(&mut story, new_story(&fresh)));
        }
        let asked = story.asked();
        match asked.by(&desk).await {
            Err(_) => return (ended, story),
            Ok(answer) if comes_again(&answer) => {}
            Ok(answer) => {
                story.hear(asked, &taken(&story, &answer));
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn new_story(fresh: &AtomicUsize) -> Story {
    let number = fresh.fetch_add(1, Ordering::Relaxed);
    Story { name: format!("story-{number}"), phone: format!("139{number:08}"), ..Story::default() }
}

/// The body of a success; a seat may also be sold out.
fn taken(story: &Story, answer: &Answer) -> Value {
    let case = &STORY[story.next];
    if case.name == "seat" && answer.status == 409 {
        assert_eq!(answer.problem(409), "benefit_out_of_stock", "{}", story.name);
        return Value::Null;
    }
    assert!(matches!(answer.status, 200 | 201), "{} {}: {} {}", story.name, case.name, answer.status, answer.text());
    answer.json()
}

/// The tenant's month so many months ago.
pub(crate) fn month(ago: usize) -> Date {
    let today = Timestamp::now().to_zoned(TimeZone::fixed(jiff::tz::offset(8))).date();
    (0..ago).fold(today.first_of_month(), |month, _| month.yesterday().expect("a day").first_of_month())
}

/// Closes months from the one that is next on, until the server is gone; answers each with its clearing, and the next one.
async fn close(admin: Caller, mut ago: usize) -> (Vec<(String, Value)>, usize) {
    let mut closed = Vec::new();
    while ago > 2 {
        let name = month(ago).strftime("%Y-%m").to_string();
        match Answer::try_of(admin.request(Method::POST, &format!("/v1/clearing/{name}:close"))).await {
            Err(_) => break,
            Ok(answer) if comes_again(&answer) => {}
            Ok(answer) => {
                closed.push((name, answer.expect(200)));
                ago -= 1;
            }
        }
    }
    (closed, ago)
}

/// A group with a mall and what it contributes; answers the keys of two of its people.
pub(crate) async fn open(tenant: &Tenant) -> Desk {
    let admin = tenant.caller("admin,app,import");
    let unit =
        |id: &str, parent: Value, kind: &str, line: Value| json!({ "id": id, "parent": parent, "name": id, "kind": kind, "line": line });
    let units = [unit("group", Value::Null, "group", Value::Null), unit(MALL, json!("group"), "mall", json!("mall"))];
    admin.put("/v1/org-units", &json!({ "units": units })).await.expect_status(204);
    let benefit = |name: &str, name_zh: &str, quantity: i64, stock: Value| {
        json!({ "name": name, "name_zh": name_zh, "unit": MALL, "measure": "uses", "quantity": quantity, "cost_fen": 500, "valid_days": 30,
                "stock": { "total": stock }, "state": "active" })
    };
    admin.put("/v1/benefits/parking", &benefit("Parking", "停车", 9, Value::Null)).await.expect(200);
    admin.put("/v1/benefits/seat", &benefit("A seat", "座位", 1, json!(SEATS))).await.expect(200);
    let mut coffee = benefit("Coffee", "咖啡", 1, Value::Null);
    coffee["points_price"] = json!(5);
    admin.put("/v1/benefits/coffee", &coffee).await.expect(200);
    [admin, tenant.caller("admin,app,import")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_any_use_case_each_is_done_once() {
    for_both_databases(async |database| {
        let mut tenant = Tenant::start(&database).await;
        let desk = open(&tenant).await;
        let finance = desk[1].clone();
        let fresh = Arc::new(AtomicUsize::new(0));
        let mut stories: Vec<Story> = (0..STORIES).map(|_| new_story(&fresh)).collect();
        let (mut ended, mut closed, mut ago) = (Vec::new(), Vec::new(), HISTORY_MONTHS);
        for round in 0..KILLS {
            let answered = Arc::new(AtomicUsize::new(0));
            let mut lives = JoinSet::new();
            for story in stories.drain(..) {
                lives.spawn(live(desk.clone(), story, answered.clone(), fresh.clone()));
            }
            let closing = tokio::spawn(close(finance.clone(), ago));
            let enough = ANSWERED_MIN + 11 * round;
            until("requests are answered", SETTLED_LIMIT, || {
                let is_enough = answered.load(Ordering::Relaxed) >= enough;
                async move { is_enough.then_some(()) }
            })
            .await;
            tenant.kill();
            for (done, broken_off) in lives.join_all().await {
                ended.extend(done);
                stories.push(broken_off);
            }
            let (done, next) = closing.await.expect("finance ends with its server");
            closed.extend(done);
            ago = next;
            tenant.restart().await;
        }
        // The story that was broken off last goes on to its end: the same request first.
        let answered = Arc::new(AtomicUsize::new(0));
        for mut story in stories {
            while story.next < STORY.len() {
                let asked = story.asked();
                let answer =
                    until("it is answered", SETTLED_LIMIT, || async { asked.by(&desk).await.ok().filter(|answer| !comes_again(answer)) })
                        .await;
                let body = taken(&story, &answer);
                story.hear(asked, &body);
                answered.fetch_add(1, Ordering::Relaxed);
            }
            ended.push(story);
        }
        adds_up(&desk, &ended).await;
        for (name, clearing) in &closed {
            assert_eq!(&finance.get(&format!("/v1/clearing/{name}")).await.expect(200), clearing, "a closed month never changes");
        }
        let book = tenant.heyuan(&["ledger", "verify"]);
        assert!(book.contains("the book is sound"), "{book}");
        assert!(tenant.heyuan(&["audit", "verify"]).contains("sound"));
    })
    .await;
}

/// Holds that every member has what the answers said, that each request asked again is answered as before, and that no seat was given twice.
async fn adds_up(desk: &Desk, stories: &[Story]) {
    assert!(stories.len() > STORIES, "more than one story each came to its end");
    for story in stories {
        for (asked, answer) in story.answered.iter().filter(|(asked, _)| asked.key.is_some()) {
            let again = asked.by(desk).await.expect("the server answers");
            if answer.is_null() {
                assert_eq!(again.status, 409, "{}: {asked:?}", story.name);
            } else {
                assert_eq!(again.json()["id"], answer["id"], "{}: {asked:?}", story.name);
            }
        }
        let member = desk[0].get(&story.member("")).await.expect(200);
        assert_eq!((&member["points"], &member["growth"]), (&json!(story.points), &json!(story.growth)), "{}: {member}", story.name);
        let grants = desk[0].get(&story.member("/benefits")).await.expect(200);
        let grants = grants["items"].as_array().cloned().unwrap_or_default();
        let parking: Vec<&Value> = grants.iter().filter(|grant| grant["benefit"] == "parking").collect();
        assert!(matches!(parking.as_slice(), [one] if one["used"] == 4 && one["available"] == 5), "{}: {grants:?}", story.name);
        assert_eq!(grants.len(), 2 + usize::try_from(story.seats).expect("few"), "{}: {grants:?}", story.name);
    }
    let seats: i64 = stories.iter().map(|story| story.seats).sum();
    assert_eq!(seats, SEATS.min(i64::try_from(stories.len()).expect("few")), "every seat once");
}
