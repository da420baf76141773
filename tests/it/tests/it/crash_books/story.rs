//! The story of a member, use case by use case, as whoever serves it asks for it.

use std::collections::BTreeMap;

use heyuan_harness::{Answer, Caller};
use reqwest::Method;
use serde_json::{Value, json};

use super::{MALL, month};

/// A request, under its key where it needs one.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) key: Option<String>,
    pub(super) body: Body,
    /// Asked by the second of two people.
    pub(super) second: bool,
}

/// The keys of two people of the group.
pub(super) type Desk = [Caller; 2];

#[derive(Clone, Debug)]
pub(super) enum Body {
    Json(Value),
    Csv(String),
}

impl Asked {
    pub(super) fn post(path: String, body: Value) -> Self {
        Self { method: Method::POST, path, key: None, body: Body::Json(body), second: false }
    }

    /// Under a key of its own.
    pub(super) fn once(self, key: String) -> Self {
        Self { key: Some(key), ..self }
    }

    pub(super) async fn by(&self, desk: &Desk) -> Result<Answer, reqwest::Error> {
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
pub(super) struct UseCase {
    pub(super) name: &'static str,
    ask: fn(&Story) -> Asked,
    learn: fn(&mut Story, &Value),
    points: i64,
    growth: i64,
}

/// A member, from its joining on.
#[derive(Clone, Default)]
pub(super) struct Story {
    pub(super) name: String,
    pub(super) phone: String,
    pub(super) next: usize,
    pub(super) facts: BTreeMap<&'static str, String>,
    pub(super) points: i64,
    pub(super) growth: i64,
    pub(super) seats: i64,
    pub(super) answered: Vec<(Asked, Value)>,
}

impl Story {
    pub(super) fn fact(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("{}: nothing is known of {name}", self.name))
    }

    pub(super) fn member(&self, path: &str) -> String {
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
    pub(super) fn asked(&self) -> Asked {
        let case = &STORY[self.next];
        let asked = (case.ask)(self);
        if asked.method == Method::POST { asked.once(format!("{}-{}", self.name, case.name)) } else { asked }
    }

    pub(super) fn hear(&mut self, asked: Asked, answer: &Value) {
        let case = &STORY[self.next];
        (case.learn)(self, answer);
        (self.points, self.growth) = (self.points + case.points, self.growth + case.growth);
        self.answered.push((asked, answer.clone()));
        self.next += 1;
    }
}

fn nothing(_: &mut Story, _: &Value) {}

/// The whole story, use case by use case.
pub(super) const STORY: &[UseCase] = &[
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
        name: "early",
        ask: |story| story.transaction("early", "refund", json!(format!("{}-late", story.name)), 500),
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "late",
        ask: |story| story.transaction("late", "purchase", Value::Null, 1_500),
        learn: nothing,
        points: 10,
        growth: 10,
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
        name: "hold-more",
        ask: |story| Asked::post(story.member("/points/holds"), json!({ "amount": 3, "unit": MALL, "reference": "another order" })),
        learn: |story, answer| story.keep("spare hold", answer, "/id"),
        points: -3,
        growth: 0,
    },
    UseCase {
        name: "release",
        ask: |story| Asked::post(story.member(&format!("/points/holds/{}:release", story.fact("spare hold"))), Value::Null),
        learn: nothing,
        points: 3,
        growth: 0,
    },
    UseCase {
        name: "join-guest",
        ask: |story| {
            let identifiers = json!([{ "type": "phone", "value": story.phone.replacen("139", "138", 1), "verified": true }]);
            Asked::post("/v1/members".into(), json!({ "unit": MALL, "identifiers": identifiers }))
        },
        learn: |story, answer| story.keep("guest", answer, "/id"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "give",
        ask: |story| Asked::post(story.member("/points/transfers"), json!({ "to": story.fact("guest"), "amount": 5 })),
        learn: nothing,
        points: -5,
        growth: 0,
    },
    UseCase {
        name: "close-guest",
        ask: |story| Asked::post(format!("/v1/members/{}:close", story.fact("guest")), json!({ "reason": "asked for it" })),
        learn: nothing,
        points: 0,
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
        name: "propose-more",
        ask: |story| {
            let proposal = json!({ "member": story.fact("member"), "amount": 1_000, "unit": MALL, "reason": "a wish" });
            Asked::post("/v1/points-adjustments".into(), proposal)
        },
        learn: |story, answer| story.keep("wish", answer, "/id"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "reject",
        ask: |story| {
            let path = format!("/v1/points-adjustments/{}:reject", story.fact("wish"));
            Asked { second: true, ..Asked::post(path, json!({ "reason": "a wish is no receipt" })) }
        },
        learn: nothing,
        points: 0,
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
        learn: |story, answer| story.keep("tier", answer, "/id"),
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "revoke",
        ask: |story| {
            Asked::post(story.member(&format!("/tier-grants/{}:revoke", story.fact("tier"))), json!({ "reason": "the visit is over" }))
        },
        learn: nothing,
        points: 0,
        growth: 0,
    },
    UseCase {
        name: "unlink",
        ask: |story| Asked { method: Method::DELETE, ..Asked::post(story.member("/accounts/mall"), Value::Null) },
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
