//! Crashes in the middle of every use case of membership: whoever asks again hears the same, and what each member has in the end is what the
//! answers said, once.

mod desk;
mod paper;
mod story;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heyuan_harness::{Answer, Tenant, for_both_databases, until};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::shop::comes_again;
use desk::Months;
use story::{Asked, Desk, STORY, Story};

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
/// The month of what the stories buy.
const SOLD_IN: &str = "2026-11";

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
    // What was unlinked before the answer came is not there any more.
    if case.name == "unlink" && matches!(answer.status, 204 | 404) {
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
    let policy =
        json!({ "transfers": "everybody", "transfer_points_max": 100, "day_points_max": 100, "month_points_max": 100, "notice_days": 0 });
    admin.put("/v1/points-policy", &policy).await.expect(200);
    [admin, tenant.caller("admin,app,import")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_any_use_case_each_is_done_once() {
    for_both_databases(async |database| {
        let mut tenant = Tenant::start(&database).await;
        let desk = open(&tenant).await;
        let fresh = Arc::new(AtomicUsize::new(0));
        let mut stories: Vec<Story> = (0..STORIES).map(|_| new_story(&fresh)).collect();
        let (mut ended, mut months) = (Vec::new(), Months::from(HISTORY_MONTHS));
        for round in 0..KILLS {
            let answered = Arc::new(AtomicUsize::new(0));
            let mut lives = JoinSet::new();
            for story in stories.drain(..) {
                lives.spawn(live(desk.clone(), story, answered.clone(), fresh.clone()));
            }
            let closing = tokio::spawn(months.clone().go_on(desk.clone()));
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
            months = closing.await.expect("the desk ends with its server");
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
        let months = months.end(&desk).await;
        for (name, clearing) in &months.closed {
            assert_eq!(&desk[1].get(&format!("/v1/clearing/{name}")).await.expect(200), clearing, "a closed month never changes");
        }
        assert_eq!(corrected_fen(&desk).await, months.corrected_fen(), "each correction once");
        assert!(paper::balances(&desk[1], SOLD_IN).await >= ended.len(), "each story bought something");
        paper::files_read(&desk[1], SOLD_IN).await;
        let book = tenant.heyuan(&["ledger", "verify"]);
        assert!(book.contains("the book is sound"), "{book}");
        assert!(tenant.heyuan(&["audit", "verify"]).contains("sound"));
    })
    .await;
}

/// What corrections came to for the mall in the month that they count in, which is this one.
async fn corrected_fen(desk: &Desk) -> i64 {
    let name = month(0).strftime("%Y-%m").to_string();
    let clearing = desk[1].get(&format!("/v1/clearing/{name}")).await.expect(200);
    let mall = clearing["lines"].as_array().and_then(|lines| lines.iter().find(|line| line["line"] == "mall")).expect("every line");
    mall["corrected_fen"].as_i64().expect("fen")
}

/// Holds that every member has what the answers said, that each request asked again is answered as before, and that no seat was given twice.
async fn adds_up(desk: &Desk, stories: &[Story]) {
    assert!(stories.len() > STORIES, "more than one story each came to its end");
    for story in stories {
        // Joining is found again by the person, not by a key, and who left may join anew: the guest, who was closed, is not asked to.
        let again = |asked: &Asked| asked.key.as_ref().is_some_and(|key| !key.ends_with("-join-guest"));
        for (asked, answer) in story.answered.iter().filter(|(asked, _)| again(asked)) {
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
