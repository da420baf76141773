//! A simulator of a payment gateway: takes money at a signed address, tells the mall by signed notifications, gives refunds once
//! per request, and misbehaves on request, with randomness that a seed repeats.

use crate::gateway::{Notice, RefundOrder, SIGNATURE, is_signed, sign};
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, post, put, web};
use heyuan_contract::Timestamp;
use heyuan_kernel::Rfc3339;
use heyuan_kernel::config::Secret;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Payments and refunds remembered; a simulator that has seen more refuses new ones.
const REMEMBERED_MAX: usize = 1_000_000;
/// Tries to deliver a notification before it is given up.
const DELIVERIES_MAX: u32 = 30;
/// Longest delay that can be asked for.
const DELAY_MS_MAX: u64 = 600_000;

/// How the simulator misbehaves, in cases of a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Misbehaviour {
    /// Starts the randomness anew.
    pub seed: u64,
    /// Notifications sent twice.
    pub duplicates: u32,
    /// Deliveries that never leave; they are tried again.
    pub drops: u32,
    /// Requests answered 429.
    pub limits: u32,
    /// Notifications wait up to this long, each for itself, so that they also change places.
    pub delay_ms_max: u64,
}

/// What the simulator has seen of one payment or refund.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    reference: String,
    transaction: String,
    amount: i64,
    refunded: i64,
}

#[derive(Debug, Default)]
struct State {
    misbehaviour: Misbehaviour,
    random: u64,
    payments: HashMap<String, Seen>,
    refunds: HashMap<String, i64>,
    events: u64,
    delivered: u64,
}

/// The simulator; clones share their state.
#[derive(Clone)]
pub struct Simulator {
    secret: Secret,
    /// Tells the transactions of one process from those of another, as a real gateway's ids never repeat.
    session: i64,
    notify_url: String,
    http: reqwest::Client,
    state: Arc<Mutex<State>>,
}

impl Simulator {
    /// A gateway that shares `secret` with the mall and posts notifications to `notify_url`.
    pub fn new(secret: Secret, notify_url: String) -> Simulator {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().unwrap_or_default();
        Simulator { secret, session: heyuan_kernel::time::now_ms(), notify_url, http, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something with this chance in a thousand happens now.
    fn happens(&self, per_mille: impl Fn(&Misbehaviour) -> u32) -> bool {
        let mut state = self.state();
        let chance = u64::from(per_mille(&state.misbehaviour));
        state.draw(1000) < chance
    }

    /// A notification, and with some luck its twin, on their way.
    fn tell(&self, kind: &str, reference: &str, transaction: &str, amount: i64) {
        let event = {
            let mut state = self.state();
            state.events += 1;
            state.events
        };
        let notice = Notice {
            event_id: format!("evt-{transaction}-{event}"),
            kind: kind.to_owned(),
            reference: reference.to_owned(),
            transaction: transaction.to_owned(),
            amount,
            currency: "CNY".into(),
            timestamp: Rfc3339(Timestamp::clamped(heyuan_kernel::time::now_ms())),
        };
        let Ok(body) = serde_json::to_vec(&notice) else { return };
        let copies = if self.happens(|m| m.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let (simulator, body) = (self.clone(), body.clone());
            tokio::spawn(async move { simulator.deliver(body).await });
        }
    }

    async fn deliver(self, body: Vec<u8>) {
        for attempt in 0..DELIVERIES_MAX {
            let wait = {
                let mut state = self.state();
                let most = state.misbehaviour.delay_ms_max.min(DELAY_MS_MAX);
                if most == 0 { 0 } else { state.draw(most + 1) }
            };
            let pause = if attempt == 0 { 0 } else { 50u64 << attempt.min(8) };
            tokio::time::sleep(Duration::from_millis(wait + pause)).await;
            if self.happens(|m| m.drops) {
                continue;
            }
            let request = self.http.post(&self.notify_url).header(SIGNATURE, sign(&self.secret, &body));
            let answer = request.header("Content-Type", "application/json").body(body.clone()).send().await;
            let status = answer.map(|answer| answer.status().as_u16());
            // A refusal of the request itself stays one.
            if matches!(status, Ok(200..=299 | 400..=428 | 430..=499)) {
                self.state().delivered += 1;
                return;
            }
        }
        tracing::warn!("the simulator gave a notification up: nobody took it");
    }
}

impl State {
    /// SplitMix64: small, and the same on every machine.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }
}

/// Serves the simulator until the process ends or the returned server's handle stops it.
///
/// # Errors
/// The listener's.
pub fn serve(listener: TcpListener, simulator: Simulator) -> std::io::Result<actix_web::dev::Server> {
    let server = HttpServer::new(move || App::new().app_data(web::Data::new(simulator.clone())).configure(configure));
    Ok(server.workers(1).listen(listener)?.run())
}

/// The simulator's routes, without its data: a `web::Data<Simulator>`.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(pay).service(refund).service(misbehave).service(look);
}

#[derive(Deserialize)]
struct PayQuery {
    reference: String,
    amount: i64,
    currency: String,
    expires_at_ms: i64,
    signature: String,
}

/// The page where a member pays; opening it pays. Time limits are the mall's matter: a late payment is taken too.
#[get("/pay")]
async fn pay(simulator: web::Data<Simulator>, query: web::Query<PayQuery>) -> HttpResponse {
    if simulator.happens(|m| m.limits) {
        return limited();
    }
    let PayQuery { reference, amount, currency, expires_at_ms, signature } = query.into_inner();
    let signed = format!("reference={reference}&amount={amount}&currency={currency}&expires_at_ms={expires_at_ms}");
    if !is_signed(&simulator.secret, signed.as_bytes(), &signature) {
        return answer(StatusCode::FORBIDDEN, "this address was changed on the way");
    }
    let seen = {
        let mut state = simulator.state();
        if state.payments.len() >= REMEMBERED_MAX {
            return limited();
        }
        let transaction = format!("{:x}-{:08}", simulator.session, state.payments.len() + 1);
        let fresh = Seen { reference: reference.clone(), transaction, amount, refunded: 0 };
        let known = state.payments.insert(reference.clone(), fresh.clone());
        if let Some(known) = known {
            // Paying twice at one address charges once, and is told again.
            state.payments.insert(reference, known.clone());
            known
        } else {
            fresh
        }
    };
    simulator.tell("payment.succeeded", &seen.reference, &seen.transaction, seen.amount);
    HttpResponse::Ok().json(seen)
}

/// Gives money back, once per request.
#[post("/refunds")]
async fn refund(simulator: web::Data<Simulator>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    if simulator.happens(|m| m.limits) {
        return limited();
    }
    let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_signed(&simulator.secret, &body, signature) {
        return answer(StatusCode::FORBIDDEN, "the signature is not the body's");
    }
    let Ok(order) = serde_json::from_slice::<RefundOrder>(&body) else {
        return answer(StatusCode::BAD_REQUEST, "a refund has request, reference, transaction, amount and currency");
    };
    {
        let mut state = simulator.state();
        match state.refunds.get(&order.request) {
            Some(amount) if *amount != order.amount => return answer(StatusCode::CONFLICT, "this request came with another amount"),
            Some(_) => {}
            None => {
                let Some(seen) = state.payments.get_mut(&order.reference) else {
                    return answer(StatusCode::NOT_FOUND, "nobody paid under this reference");
                };
                if order.amount < 1 || order.amount > seen.amount - seen.refunded {
                    return answer(StatusCode::CONFLICT, "more than is left of the payment");
                }
                seen.refunded += order.amount;
                state.refunds.insert(order.request.clone(), order.amount);
            }
        }
    }
    simulator.tell("refund.succeeded", &order.request, &order.transaction, order.amount);
    answer(StatusCode::OK, "taken")
}

/// Sets how the simulator misbehaves from now on.
#[put("/misbehaviour")]
async fn misbehave(simulator: web::Data<Simulator>, body: web::Json<Misbehaviour>) -> HttpResponse {
    let mut state = simulator.state();
    state.misbehaviour = body.0;
    state.random = body.0.seed;
    HttpResponse::Ok().json(body.0)
}

/// What the simulator holds: what tests compare the mall's books with.
#[get("/state")]
async fn look(simulator: web::Data<Simulator>) -> HttpResponse {
    let state = simulator.state();
    let taken: i64 = state.payments.values().map(|seen| seen.amount).sum();
    let returned: i64 = state.refunds.values().sum();
    HttpResponse::Ok().json(serde_json::json!({
        "payments": state.payments.len(), "taken_fen": taken, "refunds": state.refunds.len(), "returned_fen": returned,
        "delivered": state.delivered, "misbehaviour": state.misbehaviour,
    }))
}

fn limited() -> HttpResponse {
    HttpResponse::TooManyRequests().insert_header(("Retry-After", "1")).json(serde_json::json!({ "message": "too many requests" }))
}

fn answer(status: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(serde_json::json!({ "message": message }))
}
