//! A simulator of those who know the person: WeChat's server and a provider that sends codes to phones. It gives a test what a phone would
//! show, takes each code once and for five minutes as the real one does, and misbehaves on request, with randomness that a seed repeats.

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, post, put, web};
use heyuan_kernel::config::Secret;
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::time::now_ms;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Codes and numbers remembered; a simulator that has seen more refuses new ones.
const REMEMBERED_MAX: usize = 1_000_000;
/// How long WeChat takes a code.
const CODE_TIME_MS: i64 = 300_000;
/// How long a server's token is good, in seconds.
const TOKEN_S: i64 = 7_200;
/// Longest pause that can be asked for.
const SLOW_MS_MAX: u64 = 60_000;

/// How the simulator misbehaves, in cases of a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginMisbehaviour {
    /// Starts the randomness anew.
    pub seed: u64,
    /// Answers that say busy: WeChat's -1, and 429 of who sends codes.
    pub busy: u32,
    /// WeChat's 45011: asked too often.
    pub limits: u32,
    /// Answers 500 with a page.
    pub failures: u32,
    /// Every answer comes this much later.
    pub slow_ms: u64,
}

/// What a code stands for.
#[derive(Debug, Clone)]
struct Given {
    appid: String,
    /// The person, or the number of the phone button.
    of: String,
    with_unionid: bool,
    given_at: i64,
    used: bool,
}

/// What a phone was sent.
#[derive(Debug, Clone, Default, Serialize)]
struct Inbox {
    code: String,
    messages: u64,
}

#[derive(Debug, Default)]
struct State {
    misbehaviour: LoginMisbehaviour,
    random: u64,
    logins: HashMap<String, Given>,
    phones: HashMap<String, Given>,
    inboxes: HashMap<String, Inbox>,
    asked: u64,
}

/// The simulator; clones share their state.
#[derive(Clone)]
pub struct LoginSimulator {
    secret: Secret,
    state: Arc<Mutex<State>>,
}

impl LoginSimulator {
    /// One secret for all: that of every mini-program, and what the provider of codes is called with.
    pub fn new(secret: Secret) -> LoginSimulator {
        LoginSimulator { secret, state: Arc::default() }
    }

    /// Sets how it misbehaves from now on.
    pub fn misbehave(&self, misbehaviour: LoginMisbehaviour) {
        let mut state = self.state();
        state.misbehaviour = misbehaviour;
        state.random = misbehaviour.seed;
    }

    /// A code as `wx.login` gives it to the mini-program on this person's phone; `age_ms` makes it an old one.
    pub fn login_code(&self, appid: &str, person: &str, with_unionid: bool, age_ms: i64) -> String {
        self.give(|state| &mut state.logins, appid, person, with_unionid, age_ms)
    }

    /// A code as the phone button gives it.
    pub fn phone_code(&self, appid: &str, number: &str, age_ms: i64) -> String {
        self.give(|state| &mut state.phones, appid, number, false, age_ms)
    }

    fn give(
        &self,
        list: impl Fn(&mut State) -> &mut HashMap<String, Given>,
        appid: &str,
        of: &str,
        with_unionid: bool,
        age_ms: i64,
    ) -> String {
        let random: [u8; 16] = rand::random();
        let code = format!("0{}", &sha256_hex(&random)[..31]);
        let given = Given { appid: appid.to_owned(), of: of.to_owned(), with_unionid, given_at: now_ms() - age_ms, used: false };
        list(&mut self.state()).insert(code.clone(), given);
        code
    }

    /// The last code that this number was sent, and how many.
    pub fn sent(&self, number: &str) -> Option<(String, u64)> {
        self.state().inboxes.get(number).map(|inbox| (inbox.code.clone(), inbox.messages))
    }

    /// How often it was asked for anything that the real ones answer.
    pub fn asked(&self) -> u64 {
        self.state().asked
    }

    /// The openid of a person in a mini-program.
    pub fn openid(appid: &str, person: &str) -> String {
        format!("o{}", &sha256_hex(format!("{appid}/{person}").as_bytes())[..27])
    }

    /// The unionid of a person.
    pub fn unionid(person: &str) -> String {
        format!("oU{}", &sha256_hex(person.as_bytes())[..26])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as it was told to, and answers instead of the real answer where it was told to.
    async fn mood(&self) -> Option<Mood> {
        let (slow_ms, mood) = {
            let mut state = self.state();
            state.asked += 1;
            let misbehaviour = state.misbehaviour;
            let draw = u32::try_from(state.draw(1000)).unwrap_or(0);
            let (failures, busy) = (misbehaviour.failures, misbehaviour.failures + misbehaviour.busy);
            let mood = match draw {
                draw if draw < failures => Some(Mood::Fails),
                draw if draw < busy => Some(Mood::Busy),
                draw if draw < busy + misbehaviour.limits => Some(Mood::Limits),
                _ => None,
            };
            (misbehaviour.slow_ms.min(SLOW_MS_MAX), mood)
        };
        if slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(slow_ms)).await;
        }
        mood
    }

    /// Takes a code once.
    fn take(&self, list: impl Fn(&mut State) -> &mut HashMap<String, Given>, appid: Option<&str>, code: &str) -> Result<Given, Refusal> {
        let mut state = self.state();
        let invalid = || Refusal { errcode: 40029, errmsg: "invalid code" };
        let given = list(&mut state).get_mut(code).ok_or_else(invalid)?;
        if appid.is_some_and(|appid| appid != given.appid) || now_ms() - given.given_at >= CODE_TIME_MS {
            return Err(invalid());
        }
        if std::mem::replace(&mut given.used, true) {
            return Err(Refusal { errcode: 40163, errmsg: "code been used" });
        }
        Ok(given.clone())
    }

    /// The server's token of an app: the same while it is good.
    fn token(&self, appid: &str) -> String {
        format!("token-{}", &sha256_hex(format!("{appid}/{}", self.secret.text()).as_bytes())[..32])
    }
}

enum Mood {
    Fails,
    Busy,
    Limits,
}

impl Mood {
    /// As WeChat says it: 200 and a code.
    fn of_wechat(&self) -> HttpResponse {
        match self {
            Mood::Fails => HttpResponse::InternalServerError().content_type("text/html").body("<html><body>500</body></html>"),
            Mood::Busy => refusal(-1, "system error"),
            Mood::Limits => refusal(45011, "api minute-quota reach limit, must slower, retry next minute"),
        }
    }

    fn of_provider(&self) -> HttpResponse {
        match self {
            Mood::Fails => HttpResponse::InternalServerError().body("<html><body>500</body></html>"),
            Mood::Busy | Mood::Limits => HttpResponse::TooManyRequests().insert_header(("Retry-After", "1")).finish(),
        }
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

    fn is_full(&self) -> bool {
        self.logins.len() + self.phones.len() + self.inboxes.len() >= REMEMBERED_MAX
    }
}

/// Serves the simulator until the process ends or the returned server's handle stops it.
///
/// # Errors
/// The listener's.
pub fn serve(listener: TcpListener, simulator: LoginSimulator) -> std::io::Result<actix_web::dev::Server> {
    let server = HttpServer::new(move || App::new().app_data(web::Data::new(simulator.clone())).configure(configure));
    Ok(server.workers(1).disable_signals().listen(listener)?.run())
}

/// The simulator's routes, without its data: a `web::Data<LoginSimulator>`.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(jscode2session).service(stable_token).service(getuserphonenumber).service(give_login).service(give_phone);
    config.service(send_message).service(last_message).service(misbehave);
}

#[derive(Deserialize)]
struct SessionQuery {
    appid: String,
    secret: String,
    js_code: String,
    grant_type: String,
}

/// WeChat: exchanges a code of `wx.login`.
#[get("/sns/jscode2session")]
async fn jscode2session(simulator: web::Data<LoginSimulator>, query: web::Query<SessionQuery>) -> HttpResponse {
    if let Some(mood) = simulator.mood().await {
        return mood.of_wechat();
    }
    if query.grant_type != "authorization_code" {
        return refusal(40002, "invalid grant_type");
    }
    if query.secret != simulator.secret.text() {
        return refusal(40125, "invalid appsecret");
    }
    let given = match simulator.take(|state| &mut state.logins, Some(&query.appid), &query.js_code) {
        Ok(given) => given,
        Err(Refusal { errcode, errmsg }) => return refusal(errcode, errmsg),
    };
    let random: [u8; 12] = rand::random();
    let session_key = format!("SESSIONKEY{}==", &sha256_hex(&random)[..12]);
    let mut answer = json!({ "openid": LoginSimulator::openid(&query.appid, &given.of), "session_key": session_key });
    if given.with_unionid {
        answer["unionid"] = json!(LoginSimulator::unionid(&given.of));
    }
    // WeChat says text/plain.
    HttpResponse::Ok().content_type("text/plain").body(answer.to_string())
}

#[derive(Deserialize)]
struct TokenBody {
    appid: String,
    secret: String,
}

/// WeChat: the token of an app's server.
#[post("/cgi-bin/stable_token")]
async fn stable_token(simulator: web::Data<LoginSimulator>, body: web::Json<TokenBody>) -> HttpResponse {
    if let Some(mood) = simulator.mood().await {
        return mood.of_wechat();
    }
    if body.secret != simulator.secret.text() {
        return refusal(40125, "invalid appsecret");
    }
    HttpResponse::Ok().json(json!({ "access_token": simulator.token(&body.appid), "expires_in": TOKEN_S }))
}

#[derive(Deserialize)]
struct PhoneQuery {
    access_token: String,
}

#[derive(Deserialize)]
struct CodeBody {
    code: String,
}

/// WeChat: exchanges a code of the phone button.
#[post("/wxa/business/getuserphonenumber")]
async fn getuserphonenumber(
    simulator: web::Data<LoginSimulator>,
    query: web::Query<PhoneQuery>,
    body: web::Json<CodeBody>,
) -> HttpResponse {
    if let Some(mood) = simulator.mood().await {
        return mood.of_wechat();
    }
    let appid = simulator.state().phones.get(&body.code).map(|given| given.appid.clone());
    if appid.is_some_and(|appid| simulator.token(&appid) != query.access_token) {
        return refusal(40001, "invalid credential, access_token is invalid or not latest");
    }
    let given = match simulator.take(|state| &mut state.phones, None, &body.code) {
        Ok(given) => given,
        Err(Refusal { errcode, errmsg }) => return refusal(errcode, errmsg),
    };
    // As a phone shows it: +COUNTRY NUMBER, or a number of mainland China.
    let (country, number) = given.of.strip_prefix('+').and_then(|rest| rest.split_once(' ')).unwrap_or(("86", &given.of));
    let info = json!({ "phoneNumber": given.of, "purePhoneNumber": number, "countryCode": country });
    HttpResponse::Ok().json(json!({ "errcode": 0, "errmsg": "ok", "phone_info": info }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GiveLogin {
    appid: String,
    person: String,
    #[serde(default = "yes")]
    unionid: bool,
    #[serde(default)]
    age_ms: i64,
}

fn yes() -> bool {
    true
}

/// What `wx.login` does on a phone: a code for a person of your choice.
#[post("/wechat/login-codes")]
async fn give_login(simulator: web::Data<LoginSimulator>, body: web::Json<GiveLogin>) -> HttpResponse {
    if simulator.state().is_full() {
        return answer(StatusCode::TOO_MANY_REQUESTS, "it remembers no more");
    }
    HttpResponse::Ok().json(json!({ "code": simulator.login_code(&body.appid, &body.person, body.unionid, body.age_ms) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivePhone {
    appid: String,
    phone: String,
    #[serde(default)]
    age_ms: i64,
}

/// What the phone button does.
#[post("/wechat/phone-codes")]
async fn give_phone(simulator: web::Data<LoginSimulator>, body: web::Json<GivePhone>) -> HttpResponse {
    if simulator.state().is_full() {
        return answer(StatusCode::TOO_MANY_REQUESTS, "it remembers no more");
    }
    HttpResponse::Ok().json(json!({ "code": simulator.phone_code(&body.appid, &body.phone, body.age_ms) }))
}

#[derive(Deserialize)]
struct Message {
    phone: String,
    code: String,
}

/// The provider: sends a code to a phone.
#[post("/sms/messages")]
async fn send_message(request: HttpRequest, simulator: web::Data<LoginSimulator>, body: web::Json<Message>) -> HttpResponse {
    if let Some(mood) = simulator.mood().await {
        return mood.of_provider();
    }
    let bearer = request.headers().get("Authorization").and_then(|value| value.to_str().ok());
    if bearer.and_then(|value| value.strip_prefix("Bearer ")) != Some(simulator.secret.text()) {
        return answer(StatusCode::UNAUTHORIZED, "the secret is not ours");
    }
    let mut state = simulator.state();
    if state.is_full() {
        return answer(StatusCode::TOO_MANY_REQUESTS, "it remembers no more");
    }
    let inbox = state.inboxes.entry(body.phone.clone()).or_default();
    inbox.code.clone_from(&body.code);
    inbox.messages += 1;
    answer(StatusCode::ACCEPTED, "taken")
}

/// What a phone shows: the last code that it was sent.
#[get("/sms/messages/{phone}")]
async fn last_message(simulator: web::Data<LoginSimulator>, phone: web::Path<String>) -> HttpResponse {
    match simulator.state().inboxes.get(phone.as_str()) {
        Some(inbox) => HttpResponse::Ok().json(inbox),
        None => answer(StatusCode::NOT_FOUND, "this phone was sent nothing"),
    }
}

/// Sets how the simulator misbehaves from now on.
#[put("/login/misbehaviour")]
async fn misbehave(simulator: web::Data<LoginSimulator>, body: web::Json<LoginMisbehaviour>) -> HttpResponse {
    simulator.misbehave(body.0);
    HttpResponse::Ok().json(body.0)
}

/// Why WeChat does not take a code.
struct Refusal {
    errcode: i64,
    errmsg: &'static str,
}

/// A refusal as WeChat says it: with 200.
fn refusal(errcode: i64, errmsg: &str) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body(json!({ "errcode": errcode, "errmsg": errmsg }).to_string())
}

fn answer(status: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "message": message }))
}
