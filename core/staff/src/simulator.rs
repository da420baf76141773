//! A simulator of an OpenID provider: it plays the page where people log in, takes each code once and for a minute, checks client, address
//! and verifier as a real one does, says who somebody is at its userinfo endpoint, tells of log-outs, changes its keys when told to, and
//! misbehaves on request.

mod keys;
mod log_outs;
mod tokens;
mod userinfo;

pub use keys::KeyKind;
pub use tokens::{LogOutFault, LogOutOf, TokenFault};
pub use userinfo::UserinfoFault;

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, post, put, web};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use heyuan_kernel::Clock;
use heyuan_kernel::config::Secret;
use heyuan_kernel::secret::sha256_hex;
use keys::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokens::{Person, TokenOf};
use url::{Url, form_urlencoded};

/// Codes and people remembered; a simulator that has seen more refuses new ones.
const REMEMBERED_MAX: usize = 100_000;
/// How long a code is taken.
const CODE_TIME_MS: i64 = 60_000;
/// Longest pause that can be asked for.
const SLOW_MS_MAX: u64 = 60_000;
/// Keys that are published: the one that signs and the one before it.
const PUBLISHED: usize = 2;

/// How the simulator misbehaves from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OidcMisbehaviour {
    /// What is wrong with its tokens.
    pub token: TokenFault,
    /// How far its clock is ahead of ours, in seconds; below zero it is behind.
    pub clock_ahead_s: i64,
    /// The next so many answers are 500 with a page.
    pub failures: u32,
    /// Every answer comes this much later.
    pub slow_ms: u64,
    /// It takes a code again and again.
    pub takes_codes_twice: bool,
    /// Its tokens name no session.
    pub names_no_session: bool,
    /// Its tokens hold no groups: they stand at the userinfo endpoint alone.
    pub groups_at_userinfo_alone: bool,
    /// What is wrong at its userinfo endpoint.
    pub userinfo: UserinfoFault,
    /// What is wrong with its tokens of log-outs.
    pub log_out: LogOutFault,
}

/// What a code stands for.
#[derive(Debug, Clone)]
struct Given {
    client_id: String,
    redirect_uri: String,
    nonce: Option<String>,
    challenge: Option<String>,
    person: String,
    session: String,
    given_at: i64,
    used: bool,
}

/// Where somebody is logged in here, and what for last.
#[derive(Debug, Clone)]
struct Session {
    name: String,
    client_id: String,
}

struct State {
    misbehaviour: OidcMisbehaviour,
    keys: Vec<Arc<SigningKey>>,
    people: BTreeMap<String, Vec<String>>,
    codes: HashMap<String, Given>,
    sessions: HashMap<String, Session>,
    /// Whom access tokens are about.
    opened: HashMap<String, String>,
    asked: u64,
}

/// The simulator; clones share their state.
#[derive(Clone)]
pub struct OidcSimulator {
    secret: Secret,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl OidcSimulator {
    /// One secret for every client, and the clock that it goes by while it is right.
    pub fn new(secret: Secret, clock: Clock) -> OidcSimulator {
        let state = State {
            misbehaviour: OidcMisbehaviour::default(),
            keys: vec![Arc::new(SigningKey::fresh(KeyKind::Es256))],
            people: BTreeMap::new(),
            codes: HashMap::new(),
            sessions: HashMap::new(),
            opened: HashMap::new(),
            asked: 0,
        };
        OidcSimulator { secret, clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Sets how it misbehaves from now on.
    pub fn misbehave(&self, misbehaviour: OidcMisbehaviour) {
        self.state().misbehaviour = misbehaviour;
    }

    /// Employs a person with these groups, or changes them.
    pub fn employ(&self, person: &str, groups: &[&str]) {
        self.state().people.insert(person.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect());
    }

    /// Signs with a fresh key from now on; the one before it stays published.
    pub fn rotate(&self, kind: KeyKind) {
        let key = Arc::new(SigningKey::fresh(kind));
        self.state().keys.push(key);
    }

    /// How often it was asked for anything that a real one answers.
    pub fn asked(&self) -> u64 {
        self.state().asked
    }

    /// What it calls a person.
    pub fn subject(person: &str) -> String {
        format!("sub-{}", &sha256_hex(person.as_bytes())[..16])
    }

    /// What a browser does that is sent to this address: the person logs in, and the browser is sent back with the pairs of this query.
    pub fn visit(&self, address: &str, person: &str) -> Vec<(String, String)> {
        let query: BTreeMap<String, String> = Url::parse(address).map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default();
        let asked = Authorize::of(&query);
        let issuer = address.split("/authorize").next().unwrap_or_default();
        let back = self.back(&asked, person, issuer);
        back.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
    }

    /// Where a browser is sent back to once the person has logged in.
    fn back(&self, asked: &Authorize, person: &str, issuer: &str) -> Option<Url> {
        let mut url = Url::parse(&asked.redirect_uri).ok()?;
        let code = random_name();
        url.query_pairs_mut().append_pair("code", &code).append_pair("state", &asked.state).append_pair("iss", issuer);
        let mut state = self.state();
        if state.codes.len() >= REMEMBERED_MAX {
            return None;
        }
        let fresh = || Session { name: random_name(), client_id: String::new() };
        let session = state.sessions.entry(person.to_owned()).or_insert_with(fresh);
        session.client_id.clone_from(&asked.client_id);
        let given = Given {
            client_id: asked.client_id.clone(),
            redirect_uri: asked.redirect_uri.clone(),
            nonce: asked.nonce.clone(),
            challenge: asked.code_challenge.clone(),
            person: person.to_owned(),
            session: session.name.clone(),
            given_at: self.clock.now().ms(),
            used: false,
        };
        state.codes.insert(code, given);
        Some(url)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as it was told to; whether this answer fails.
    async fn fails(&self) -> bool {
        let (slow_ms, fails) = {
            let mut state = self.state();
            state.asked += 1;
            let fails = state.misbehaviour.failures > 0;
            state.misbehaviour.failures = state.misbehaviour.failures.saturating_sub(1);
            (state.misbehaviour.slow_ms.min(SLOW_MS_MAX), fails)
        };
        if slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(slow_ms)).await;
        }
        fails
    }

    /// Takes a code once, from the client that it was given to.
    fn take(&self, client_id: &str, form: &TokenForm) -> Option<Given> {
        let mut state = self.state();
        let again = state.misbehaviour.takes_codes_twice;
        let given = state.codes.get_mut(form.code.as_deref()?)?;
        let verifier = form.code_verifier.as_deref().map(|verifier| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())));
        let is_theirs = given.client_id == client_id && Some(&given.redirect_uri) == form.redirect_uri.as_ref();
        if !is_theirs || given.challenge != verifier || self.clock.now().ms() - given.given_at >= CODE_TIME_MS {
            return None;
        }
        let used = std::mem::replace(&mut given.used, true);
        Some(given.clone()).filter(|_| again || !used)
    }

    /// The tokens that a code is exchanged for: one about the log-in, and one that opens userinfo.
    fn tokens(&self, issuer: &str, given: &Given) -> (String, String) {
        let mut state = self.state();
        let misbehaviour = state.misbehaviour;
        let groups = state.people.get(&given.person).cloned().unwrap_or_default();
        let person = Person {
            name: &given.person,
            subject: OidcSimulator::subject(&given.person),
            session: Some(given.session.as_str()).filter(|_| !misbehaviour.names_no_session),
            groups: Some(groups).filter(|_| !misbehaviour.groups_at_userinfo_alone),
            nonce: given.nonce.as_deref(),
        };
        let of = TokenOf { issuer, client_id: &given.client_id, now_s: self.now_s(misbehaviour) };
        let signed = state.keys.last().map(|key| of.signed("JWT", of.log_in(person), key, misbehaviour.token, self.secret.text()));
        let access = random_name();
        if state.opened.len() < REMEMBERED_MAX {
            state.opened.insert(access.clone(), given.person.clone());
        }
        (signed.unwrap_or_default(), access)
    }

    /// What its own clock shows.
    fn now_s(&self, misbehaviour: OidcMisbehaviour) -> i64 {
        self.clock.now().ms().div_euclid(1000).saturating_add(misbehaviour.clock_ahead_s)
    }
}

/// A name that nobody guesses.
fn random_name() -> String {
    let random: [u8; 24] = rand::random();
    URL_SAFE_NO_PAD.encode(random)
}

/// Serves the simulator until the process ends or the returned server's handle stops it.
///
/// # Errors
/// The listener's.
pub fn serve(listener: TcpListener, simulator: OidcSimulator) -> std::io::Result<actix_web::dev::Server> {
    let server = HttpServer::new(move || App::new().app_data(web::Data::new(simulator.clone())).configure(configure));
    Ok(server.workers(1).disable_signals().listen(listener)?.run())
}

/// The simulator's routes, without its data: a `web::Data<OidcSimulator>`.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(discovery).service(published_keys).service(authorize).service(exchange);
    config.service(userinfo::userinfo).service(log_outs::log_out);
    config.service(employ).service(employed).service(rotate).service(misbehave);
}

/// Its name, as whoever asks spells its address.
fn issuer_of(request: &HttpRequest) -> String {
    format!("http://{}/oidc", request.connection_info().host())
}

fn failure() -> HttpResponse {
    HttpResponse::InternalServerError().content_type("text/html").body("<html><body>500</body></html>")
}

#[get("/oidc/.well-known/openid-configuration")]
async fn discovery(request: HttpRequest, simulator: web::Data<OidcSimulator>) -> HttpResponse {
    if simulator.fails().await {
        return failure();
    }
    let issuer = issuer_of(&request);
    HttpResponse::Ok().json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "scopes_supported": ["openid"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "sid", "groups", "name", "email"],
    }))
}

#[get("/oidc/keys")]
async fn published_keys(simulator: web::Data<OidcSimulator>) -> HttpResponse {
    if simulator.fails().await {
        return failure();
    }
    let keys: Vec<Value> = simulator.state().keys.iter().rev().take(PUBLISHED).map(|key| key.published()).collect();
    HttpResponse::Ok().json(json!({ "keys": keys }))
}

/// What a client asks for when it sends a browser.
#[derive(Debug, Clone, Default)]
struct Authorize {
    client_id: String,
    redirect_uri: String,
    state: String,
    nonce: Option<String>,
    code_challenge: Option<String>,
    is_whole: bool,
}

impl Authorize {
    fn of(query: &BTreeMap<String, String>) -> Authorize {
        let text = |name: &str| query.get(name).cloned().unwrap_or_default();
        let asks_openid = text("scope").split(' ').any(|word| word == "openid");
        let challenges = !query.contains_key("code_challenge") || text("code_challenge_method") == "S256";
        Authorize {
            client_id: text("client_id"),
            redirect_uri: text("redirect_uri"),
            state: text("state"),
            nonce: query.get("nonce").cloned(),
            code_challenge: query.get("code_challenge").cloned(),
            is_whole: text("response_type") == "code" && asks_openid && challenges && !text("client_id").is_empty(),
        }
    }
}

/// Where people log in: `login_hint` says who it is; without it a page lists whom there is.
#[get("/oidc/authorize")]
async fn authorize(request: HttpRequest, simulator: web::Data<OidcSimulator>, query: web::Query<BTreeMap<String, String>>) -> HttpResponse {
    if simulator.fails().await {
        return failure();
    }
    let asked = Authorize::of(&query);
    if !asked.is_whole {
        return HttpResponse::BadRequest().body("the request is no OpenID Connect request for a code");
    }
    let Some(person) = query.get("login_hint") else {
        return HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page(&simulator, request.query_string()));
    };
    match simulator.back(&asked, person, &issuer_of(&request)) {
        Some(url) => HttpResponse::Found().insert_header(("Location", url.as_str())).finish(),
        None => HttpResponse::BadRequest().body("redirect_uri is no address, or too many codes are remembered"),
    }
}

/// A link for each person.
fn page(simulator: &OidcSimulator, query: &str) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let link = |person: &String| {
        let hint = form_urlencoded::Serializer::new(String::new()).append_pair("login_hint", person).finish();
        format!("<li><a href=\"?{}&amp;{}\">{}</a></li>", escaped(query), escaped(&hint), escaped(person))
    };
    let links: String = simulator.state().people.keys().map(link).collect();
    format!("<!doctype html><meta charset=\"utf-8\"><title>Log in</title><h1>Who are you?</h1><ul>{links}</ul>")
}

#[derive(Deserialize)]
struct TokenForm {
    grant_type: Option<String>,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// The client's name and secret: of Basic auth, where both are form-encoded, or of the form.
fn client_of(request: &HttpRequest, form: &TokenForm) -> Option<(String, String)> {
    let header = request.headers().get("Authorization").and_then(|value| value.to_str().ok());
    let Some(basic) = header.and_then(|value| value.strip_prefix("Basic ")) else {
        return form.client_id.clone().zip(form.client_secret.clone());
    };
    let both = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
    let decoded = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned());
    let (id, secret) = both.split_once(':')?;
    decoded(id).zip(decoded(secret))
}

#[post("/oidc/token")]
async fn exchange(request: HttpRequest, simulator: web::Data<OidcSimulator>, form: web::Form<TokenForm>) -> HttpResponse {
    if simulator.fails().await {
        return failure();
    }
    let refused = |status: StatusCode, error: &str| HttpResponse::build(status).json(json!({ "error": error }));
    let known = client_of(&request, &form).filter(|(_, secret)| secret == simulator.secret.text());
    let Some((client_id, _)) = known else { return refused(StatusCode::UNAUTHORIZED, "invalid_client") };
    if form.grant_type.as_deref() != Some("authorization_code") {
        return refused(StatusCode::BAD_REQUEST, "unsupported_grant_type");
    }
    let Some(given) = simulator.take(&client_id, &form) else { return refused(StatusCode::BAD_REQUEST, "invalid_grant") };
    let (token, access_token) = simulator.tokens(&issuer_of(&request), &given);
    HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(json!({
        "access_token": access_token, "token_type": "Bearer", "expires_in": 300, "id_token": token, "scope": "openid",
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Employ {
    groups: Vec<String>,
}

/// Employs a person with these groups, or changes them.
#[put("/oidc/people/{person}")]
async fn employ(simulator: web::Data<OidcSimulator>, person: web::Path<String>, body: web::Json<Employ>) -> HttpResponse {
    let mut state = simulator.state();
    if state.people.len() >= REMEMBERED_MAX {
        return HttpResponse::TooManyRequests().json(json!({ "message": "it remembers no more" }));
    }
    state.people.insert(person.into_inner(), body.into_inner().groups);
    HttpResponse::NoContent().finish()
}

/// What the provider's own administrators see of a person.
#[get("/oidc/people/{person}")]
async fn employed(simulator: web::Data<OidcSimulator>, person: web::Path<String>) -> HttpResponse {
    match simulator.state().people.get(person.as_str()) {
        Some(groups) => HttpResponse::Ok().json(json!({ "sub": OidcSimulator::subject(&person), "groups": groups })),
        None => HttpResponse::NotFound().json(json!({ "message": "nobody is called so" })),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    alg: KeyKind,
}

/// Signs with a fresh key from now on.
#[post("/oidc/keys:rotate")]
async fn rotate(simulator: web::Data<OidcSimulator>, body: web::Json<Rotate>) -> HttpResponse {
    simulator.rotate(body.alg);
    HttpResponse::NoContent().finish()
}

/// Sets how the simulator misbehaves from now on.
#[put("/oidc/misbehaviour")]
async fn misbehave(simulator: web::Data<OidcSimulator>, body: web::Json<OidcMisbehaviour>) -> HttpResponse {
    simulator.misbehave(body.0);
    HttpResponse::Ok().json(body.0)
}
