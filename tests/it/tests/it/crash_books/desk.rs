//! Months that the desk of the group closes one after the other, with what it and a line say to each: reconciled, closed, disputed, answered,
//! corrected.

use std::collections::BTreeMap;

use heyuan_harness::Answer;
use serde_json::{Value, json};

use super::month;
use super::story::{Asked, Body, Desk};
use crate::shop::comes_again;

/// What the answer to a dispute corrects, and what a correction of its own does, in fen.
const ANSWERED_FEN: i64 = 7;
const CORRECTED_FEN: i64 = 5;
/// What is done with a month, in this order.
const STEPS: [&str; 7] = ["reconcile", "close", "dispute", "answer", "propose", "approve", "confirm"];
/// The months that are left open at the end.
const LEFT_OPEN: usize = 2;

/// Where the desk stands: the month so many months ago, and what is next with it.
#[derive(Clone)]
pub(super) struct Months {
    ago: usize,
    step: usize,
    correction: String,
    /// Closed months with their clearing.
    pub(super) closed: BTreeMap<String, Value>,
}

impl Months {
    pub(super) fn from(ago: usize) -> Self {
        Self { ago, step: 0, correction: String::new(), closed: BTreeMap::new() }
    }

    fn name(&self) -> String {
        month(self.ago).strftime("%Y-%m").to_string()
    }

    fn asked(&self) -> Asked {
        let (name, step) = (self.name(), STEPS[self.step]);
        let clearing = |path: &str| format!("/v1/clearing/{name}{path}");
        let first = |asked: Asked| Asked { second: false, ..asked };
        let asked = match step {
            "reconcile" => {
                let books = Body::Csv("transaction,unit,kind,amount_fen\n".into());
                Asked { body: books, ..Asked::post(clearing("/reconciliation?line=mall"), Value::Null) }
            }
            "close" => Asked::post(clearing(":close"), json!({})),
            "dispute" => Asked::post(clearing("/statements/mall:dispute"), json!({ "reason": "a sale is missing" })),
            "answer" => {
                let answer = json!({ "reason": "it is", "correction_fen": ANSWERED_FEN });
                return first(Asked::post(clearing("/statements/mall:answer"), answer)).once(format!("{name}-{step}"));
            }
            "propose" => {
                let correction = json!({ "of_period": name, "line": "mall", "fen": CORRECTED_FEN, "reason": "a lost receipt" });
                Asked::post("/v1/clearing/corrections".into(), correction)
            }
            "approve" => {
                return first(Asked::post(format!("/v1/clearing/corrections/{}:approve", self.correction), Value::Null))
                    .once(format!("{name}-{step}"));
            }
            _ => Asked::post(clearing("/statements/mall:confirm"), Value::Null),
        };
        Asked { second: true, ..asked.once(format!("{name}-{step}")) }
    }

    fn hear(&mut self, answer: &Answer) {
        assert!(matches!(answer.status, 200 | 201), "{}: {} {}", answer.request, answer.status, answer.text());
        let answer = answer.json();
        match STEPS[self.step] {
            "close" => drop(self.closed.insert(self.name(), answer)),
            "propose" => self.correction = answer["id"].as_str().expect("a correction has an id").to_owned(),
            _ => {}
        }
        self.step = (self.step + 1) % STEPS.len();
        self.ago -= usize::from(self.step == 0);
    }

    /// Goes on until the server is gone.
    pub(super) async fn go_on(mut self, desk: Desk) -> Self {
        while self.ago > LEFT_OPEN {
            match self.asked().by(&desk).await {
                Err(_) => break,
                Ok(answer) if comes_again(&answer) => {}
                Ok(answer) => self.hear(&answer),
            }
        }
        self
    }

    /// Ends with the month that was broken off; the first request is the one that was not answered.
    pub(super) async fn end(mut self, desk: &Desk) -> Self {
        while self.step > 0 {
            let answer = self.asked().by(desk).await.expect("the server answers");
            if !comes_again(&answer) {
                self.hear(&answer);
            }
        }
        self
    }

    /// What all corrections together come to.
    pub(super) fn corrected_fen(&self) -> i64 {
        i64::try_from(self.closed.len()).expect("few") * (ANSWERED_FEN + CORRECTED_FEN)
    }
}
