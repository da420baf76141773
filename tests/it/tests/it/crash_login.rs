//! Crashes in the middle of logging in and out, of members and of staff: what an answer gave goes on, what it ended stays over, a code counts
//! once, and whoever lost an answer is where the documents say.
//!
//! A member who lost the answer to a refresh asks again within a minute and gets the same next token; one of staff is logged out, and logs in
//! anew. In both cases a token that was spent before opens nothing for whoever else has it: it ends the session.

mod member;
mod staff;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heyuan_harness::{Answer, Caller, Gateway, Tenant, TenantOptions, TestDatabase, for_both_databases, until};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::login;

const KILLS: usize = 6;
/// Members and members of staff who live their stories side by side, as many of each.
const PEOPLE: usize = 3;
/// Requests that are answered before a kill: more each time, so that it comes in the middle of something else.
const ANSWERED_MIN: usize = 25;
const SETTLED_LIMIT: Duration = Duration::from_secs(60);
/// A lost answer to a member's refresh is given again for so long.
const REPEAT_TIME: Duration = Duration::from_secs(60);

/// The server is gone, with or without having done what it was asked for.
#[derive(Debug)]
struct Gone;

/// The simulator, which is never killed, and the tenant's doors.
#[derive(Clone)]
struct Ground {
    simulator: String,
    http: Client,
    url: String,
    mall: Caller,
    hotel: Caller,
    admin: Caller,
    stranger: Caller,
    answered: Arc<AtomicUsize>,
    fresh: Arc<AtomicUsize>,
}

impl Ground {
    fn key(&self, app: &str) -> &Caller {
        if app == "mall" { &self.mall } else { &self.hotel }
    }

    /// Asks the simulator, which always answers.
    async fn play(&self, method: Method, path: &str, body: &Value) -> Answer {
        Answer::of(self.simulated(method, path, body)).await
    }

    fn simulated(&self, method: Method, path: &str, body: &Value) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.simulator)).json(body)
    }
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}

/// A session as its answers told of it.
#[derive(Clone, Debug)]
struct Session {
    /// The id of whose it is.
    holder: String,
    id: String,
    token: String,
    refresh: String,
    /// Refresh tokens that were used, oldest first.
    spent: Vec<String>,
    refreshed: Instant,
}

impl Session {
    fn of(answer: &Value, holder: &str) -> Session {
        let of = |name: &str| text(answer, name);
        Session {
            holder: of(holder),
            id: of("session"),
            token: of("token"),
            refresh: of("refresh_token"),
            spent: Vec::new(),
            refreshed: Instant::now(),
        }
    }

    /// The next pair, which belongs to the same session.
    fn renew(&mut self, answer: &Value) {
        assert_eq!(answer["session"], self.id.as_str(), "{answer}");
        self.spent.push(std::mem::replace(&mut self.refresh, text(answer, "refresh_token")));
        (self.token, self.refreshed) = (text(answer, "token"), Instant::now());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Member,
    Staff,
}

impl Kind {
    fn steps(self) -> usize {
        match self {
            Kind::Member => member::STORY.len(),
            Kind::Staff => staff::STORY.len(),
        }
    }

    /// Whose sessions a person's are, by the name that an answer calls them.
    fn holder(self) -> &'static str {
        match self {
            Kind::Member => "member",
            Kind::Staff => "staff",
        }
    }
}

/// What the answer to a step settles.
enum Heard {
    /// Nothing but that it is asked for anew.
    Again,
    Done,
    /// The sessions that it was about go on.
    TheyLast,
    TheyAreOver,
}

/// Somebody with a phone or a browser, from one log-in to the next.
struct Person {
    kind: Kind,
    name: String,
    /// Of a phone, for members.
    number: String,
    next: usize,
    /// The proof that is shown until it is answered.
    proof: Value,
    /// Whether the request of this step was sent before without an answer that settled it, and since when it is asked.
    unanswered: bool,
    asked: Option<Instant>,
    /// Sessions of this story that last.
    own: Vec<Session>,
    /// Those that the request of this step is about: they last or not until it is answered.
    aside: Vec<Session>,
    /// Sessions of earlier stories, which nobody ended.
    kept: Vec<Session>,
    over: Vec<Session>,
    /// Proofs that were taken.
    spent: Vec<Value>,
    /// Log-ins whose answer was lost and whose code was used: each may have left a session that nobody holds.
    lost: usize,
    ended: usize,
}

impl Person {
    fn new(kind: Kind, ground: &Ground) -> Person {
        let mut person = Person {
            kind,
            name: String::new(),
            number: String::new(),
            next: 0,
            proof: Value::Null,
            unanswered: false,
            asked: None,
            own: Vec::new(),
            aside: Vec::new(),
            kept: Vec::new(),
            over: Vec::new(),
            spent: Vec::new(),
            lost: 0,
            ended: 0,
        };
        person.begin_anew(ground);
        person
    }

    /// Somebody else, who leaves the sessions of the one before alone.
    fn begin_anew(&mut self, ground: &Ground) {
        let number = ground.fresh.fetch_add(1, Ordering::Relaxed);
        (self.name, self.next) = (format!("{}-{number}", self.kind.holder()), 0);
        self.kept.append(&mut self.own);
        self.take_another_number(ground);
    }

    fn take_another_number(&mut self, ground: &Ground) {
        self.number = format!("139{:08}", ground.fresh.fetch_add(1, Ordering::Relaxed));
    }

    fn is_at_its_end(&self) -> bool {
        self.next == self.kind.steps()
    }

    async fn go_on(&mut self, ground: &Ground) -> Result<(), Gone> {
        self.asked.get_or_insert_with(Instant::now);
        let heard = match self.kind {
            Kind::Member => self.member_goes_on(ground).await?,
            Kind::Staff => self.staff_goes_on(ground).await?,
        };
        match heard {
            Heard::Again | Heard::Done => {}
            Heard::TheyLast => self.own.append(&mut self.aside),
            Heard::TheyAreOver => self.over.append(&mut self.aside),
        }
        self.next += usize::from(!matches!(heard, Heard::Again));
        (self.proof, self.unanswered, self.asked) = (Value::Null, false, None);
        ground.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a request until it is answered for good.
    async fn ask(&mut self, request: impl Fn() -> RequestBuilder) -> Result<Answer, Gone> {
        loop {
            match Answer::try_of(request()).await {
                Ok(answer) if answer.status != 503 => return Ok(answer),
                Ok(_) => self.unanswered = true,
                Err(_) => {
                    self.unanswered = true;
                    return Err(Gone);
                }
            }
        }
    }

    /// The sessions that this step is about, which nobody counts on while it is asked for.
    fn set_aside(&mut self) {
        if self.aside.is_empty() {
            self.aside.append(&mut self.own);
        }
    }

    /// Logged in, or the proof was used up by a request whose answer was lost: then a fresh one is needed.
    fn hear_log_in(&mut self, answer: &Answer, refusals: &[&str]) -> Option<Session> {
        if answer.status == 400 {
            let code = answer.problem(400);
            assert!(self.unanswered && refusals.contains(&code.as_str()), "{}: {code} for a proof that was not used", self.name);
            self.lost += 1;
            return None;
        }
        assert!(matches!(answer.status, 200 | 201), "{}: {} {}", self.name, answer.status, answer.text());
        self.spent.push(self.proof.clone());
        Some(Session::of(&answer.json(), self.kind.holder()))
    }

    /// The sessions that every answer so far says that they last speak, and those that it says are over don't.
    async fn holds(&self, tenant: &Tenant) {
        for session in self.own.iter().chain(&self.kept) {
            let answer = tenant.caller_with(&session.token).get("/v1/me").await;
            assert_eq!(answer.status, 200, "{} lost {}: {}", self.name, session.id, answer.text());
            assert_eq!(answer.json()["actor"], format!("{}:{}", self.kind.holder(), session.holder));
        }
        for session in &self.over {
            let answer = tenant.caller_with(&session.token).get("/v1/me").await;
            assert_eq!(answer.status, 401, "{}: {} is over: {}", self.name, session.id, answer.text());
        }
    }

    /// At the end: each session that lasts can be refreshed, none that is over can, no proof is taken again, and nobody has more sessions than
    /// log-ins.
    async fn adds_up(&mut self, ground: &Ground) {
        assert!(self.aside.is_empty(), "{}: every request is settled", self.name);
        let mut lasting = std::mem::take(&mut self.own);
        lasting.append(&mut self.kept);
        for session in &lasting {
            let sessions = match self.kind {
                Kind::Member => format!("/v1/members/{}/sessions", session.holder),
                Kind::Staff => format!("/v1/staff/sessions?limit=200&staff={}", session.holder),
            };
            let listed = ground.admin.get(&sessions).await.expect(200);
            let listed: Vec<String> = listed["items"].as_array().into_iter().flatten().map(|one| text(one, "id")).collect();
            let own = lasting.iter().filter(|other| other.holder == session.holder);
            assert!(own.clone().all(|session| listed.contains(&session.id)), "{}: {listed:?}", self.name);
            assert!(listed.len() <= own.count() + self.lost, "{}: {listed:?}, {} were lost", self.name, self.lost);
        }
        for (session, expected) in lasting.iter().map(|session| (session, 200)).chain(self.over.iter().map(|session| (session, 400))) {
            let answer = self.refreshed(ground, &session.refresh).await;
            assert_eq!(answer.status, expected, "{}: {}", session.id, answer.text());
        }
        for proof in &self.spent {
            let answer = match self.kind {
                Kind::Member => ground.key(&text(proof, "app")).post("/v1/sessions", proof).await,
                Kind::Staff => ground.stranger.post("/v1/staff/log-ins:finish", proof).await,
            };
            assert_eq!(answer.status, 400, "{}: a code counts once: {}", self.name, answer.text());
        }
    }

    async fn refreshed(&self, ground: &Ground, refresh: &str) -> Answer {
        let body = json!({ "refresh_token": refresh });
        match self.kind {
            Kind::Member => ground.mall.post("/v1/sessions:refresh", &body).await,
            Kind::Staff => ground.stranger.post("/v1/staff/sessions:refresh", &body).await,
        }
    }
}

/// Lives stories one after the other until the server is gone.
async fn live(ground: Ground, mut person: Person) -> Person {
    loop {
        if person.is_at_its_end() {
            person.ended += 1;
            person.begin_anew(&ground);
        }
        if person.go_on(&ground).await.is_err() {
            return person;
        }
    }
}

/// A tenant with two apps and a provider of its own.
async fn open(database: &TestDatabase) -> (Tenant, Ground, Gateway) {
    let mut gateway = Gateway::somewhere();
    let environment = gateway.environment();
    let of = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).expect("it is set");
    let (simulator, secret) = (of("HEYUAN_MALL__GATEWAY_URL"), of("HEYUAN_MALL__PAYMENT_SECRET"));
    let settings = format!(
        "{}[staff]\nissuer = '{simulator}/oidc'\nclient_id = 'heyuan'\nclient_secret = '{secret}'\n\
         redirect_url = 'https://console.example.com/back'\n[[staff.grants]]\nrole = 'desk'\nscopes = ['app']\nunit = 'mall-1'\n",
        login::settings(&simulator, &secret)
    );
    let file = database.data_dir().join("login.toml");
    fs::write(&file, settings).expect("the data folder is writable");
    let options = TenantOptions { arguments: vec!["--config".into(), file.into()], environment, ..TenantOptions::default() };
    let tenant = Tenant::start_with(database, options).await;
    gateway.open(&tenant).await;
    let admin = tenant.caller("admin,app");
    admin.put("/v1/org-units", &login::units()).await.expect_status(204);
    let ground = Ground {
        simulator,
        http: Client::builder().no_proxy().redirect(Policy::none()).build().expect("the client needs nothing from outside"),
        url: tenant.url(),
        mall: tenant.caller_in("ingest", Some("mall-1")),
        hotel: tenant.caller_in("ingest", Some("hotel-1")),
        admin,
        stranger: tenant.stranger(),
        answered: Arc::default(),
        fresh: Arc::default(),
    };
    (tenant, ground, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_logging_in_or_out_what_was_answered_holds() {
    for_both_databases(async |database| {
        let (mut tenant, ground, _gateway) = open(&database).await;
        let kinds = [Kind::Member, Kind::Staff].into_iter().cycle();
        let mut people: Vec<Person> = kinds.take(2 * PEOPLE).map(|kind| Person::new(kind, &ground)).collect();
        for round in 0..KILLS {
            ground.answered.store(0, Ordering::Relaxed);
            let mut lives = JoinSet::new();
            for person in people.drain(..) {
                lives.spawn(live(ground.clone(), person));
            }
            let enough = ANSWERED_MIN + 7 * round;
            until("requests are answered", SETTLED_LIMIT, || {
                let is_enough = ground.answered.load(Ordering::Relaxed) >= enough;
                async move { is_enough.then_some(()) }
            })
            .await;
            tenant.kill();
            people = lives.join_all().await;
            tenant.restart().await;
            for person in &people {
                person.holds(&tenant).await;
            }
        }
        let mut ended = 0;
        for person in &mut people {
            // The request that was broken off last comes first.
            while !person.is_at_its_end() {
                person.go_on(&ground).await.expect("the server answers");
            }
            person.holds(&tenant).await;
            person.adds_up(&ground).await;
            ended += person.ended;
        }
        assert!(ended >= PEOPLE, "stories came to their end between the kills: {ended}");
        assert!(tenant.heyuan(&["audit", "verify"]).contains("sound"));
    })
    .await;
}
