//! Logging in by WeChat and by phone, against simulators of those who know the person.

use crate::world::{World, at, unit, world};
use futures::future::join_all;
use heyuan_contract::MemberId;
use heyuan_harness::for_both_databases;
use heyuan_kernel::config::Secret;
use heyuan_kernel::{Actor, Problem, Reach, Scope, sql};
use heyuan_membership::simulator::{LoginMisbehaviour, LoginSimulator, serve};
use heyuan_membership::{AppKind, AppSettings, Joined, LogIn, Login, LoginSettings, Proof};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SECRET: &str = "a secret of one test";
const PHONE: &str = "13800138000";

/// A world whose apps log in at a simulator.
#[derive(Clone)]
struct Ground {
    world: World,
    login: Login,
    simulator: LoginSimulator,
    /// What the apps of everybody carry.
    app: Actor,
}

fn app_of(kind: AppKind, appid: &str, place: &str) -> AppSettings {
    AppSettings { kind, appid: Some(appid.into()), secret: Some(Secret::new(SECRET)), unit: unit(place) }
}

fn settings(url: &str) -> LoginSettings {
    let apps = [
        ("mall", app_of(AppKind::Wechat, "wxmall", "mall-1")),
        ("hotel", app_of(AppKind::Wechat, "wxhotel", "hotel-1")),
        ("till", app_of(AppKind::Phone, "", "mall-1")),
        ("nowhere", app_of(AppKind::Phone, "", "mall-9")),
        ("ours", app_of(AppKind::Phone, "", "group")),
    ];
    LoginSettings {
        wechat_url: url.to_owned(),
        sms_url: Some(format!("{url}/sms/messages")),
        sms_secret: Some(Secret::new(SECRET)),
        apps: BTreeMap::from(apps.map(|(name, app)| (name.to_owned(), app))),
        ..LoginSettings::default()
    }
}

async fn ground(database: &heyuan_harness::TestDatabase) -> Ground {
    ground_with(database, |_| {}).await
}

async fn ground_with(database: &heyuan_harness::TestDatabase, change: impl FnOnce(&mut LoginSettings)) -> Ground {
    let world = world(database).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let simulator = LoginSimulator::new(Secret::new(SECRET));
    tokio::spawn(serve(listener, simulator.clone()).expect("the simulator listens"));
    let mut settings = settings(&url);
    change(&mut settings);
    let login = Login::new(world.membership.clone(), settings).expect("the settings can work");
    let app = Actor::key("key:apps".into(), vec![Scope::Ingest], None, Reach::Everything);
    Ground { world, login, simulator, app }
}

impl Ground {
    async fn log_in(&self, app: &str, proof: Proof, join: bool) -> Result<Joined, Problem> {
        self.login.log_in(&self.app, &LogIn { app: app.to_owned(), proof, join }).await.map_err(Problem::from)
    }

    /// As a mini-program does it on this person's phone.
    async fn by_wechat(&self, app: &str, person: &str, join: bool) -> Result<Joined, Problem> {
        let code = self.simulator.login_code(&format!("wx{app}"), person, true, 0);
        self.log_in(app, wechat(&code), join).await
    }

    async fn send_code(&self, app: &str, number: &str) -> Result<(), Problem> {
        self.login.send_code(&self.app, app, number).await.map(drop).map_err(Problem::from)
    }

    /// The code that the phone shows last.
    fn shown(&self, number: &str) -> String {
        self.simulator.sent(number).expect("the phone was sent something").0
    }

    fn passes(&self, ms: i64) {
        self.world.kernel.clock.set(self.world.kernel.clock.now().plus_ms(ms));
    }

    fn misbehaves(&self, misbehaviour: LoginMisbehaviour) {
        self.simulator.misbehave(misbehaviour);
    }
}

fn wechat(code: &str) -> Proof {
    Proof::WeChat { code: code.to_owned(), phone_code: None }
}

fn phone(number: &str, code: &str) -> Proof {
    Proof::Phone { number: number.to_owned(), code: code.to_owned() }
}

/// A code that is not this one.
fn wrong(code: &str) -> String {
    let first = if code.starts_with('0') { '1' } else { '0' };
    format!("{first}{}", &code[1..])
}

fn code_of<T: std::fmt::Debug>(answer: Result<T, Problem>) -> &'static str {
    answer.expect_err("it is refused").code().code
}

/// What a caller hears, with the seconds after which it may come again.
fn heard<T: std::fmt::Debug>(answer: Result<T, Problem>) -> (&'static str, Option<u64>) {
    let problem = answer.expect_err("it is refused");
    let response = actix_web::ResponseError::error_response(&problem);
    let after = response.headers().get("Retry-After").map(|value| value.to_str().expect("a text").parse().expect("a number"));
    (problem.code().code, after)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_of_two_mini_programs_is_one_member_with_two_sessions() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        assert_eq!(code_of(ground.by_wechat("mall", "li", false).await), "unknown_member");
        assert_eq!(ground.world.people.seen.load(Ordering::Relaxed), 0, "nothing is recorded of a stranger");
        let joined = ground.by_wechat("mall", "li", true).await.expect("it joins");
        assert!(joined.new);
        let tokens = joined.tokens.expect("a session");
        let again = ground.by_wechat("mall", "li", false).await.expect("it is known");
        let hotel = ground.by_wechat("hotel", "li", true).await.expect("it is known by its unionid");
        assert_eq!((again.new, &again.id, hotel.new, &hotel.id), (false, &joined.id, false, &joined.id));
        let other = ground.by_wechat("hotel", "wang", true).await.expect("it joins");
        assert!(other.new && other.id != joined.id);
        let sessions = ground.world.membership.sessions(&ground.world.admin, &joined.id).await.expect("they are listed");
        let apps: Vec<&str> = sessions.iter().map(|one| one.app.as_str()).collect();
        assert_eq!(apps.iter().filter(|app| **app == "mall").count(), 2, "{apps:?}");
        assert_eq!(apps.iter().filter(|app| **app == "hotel").count(), 1, "{apps:?}");
        let view = ground.world.membership.member(&ground.world.app, &joined.id).await.expect("it is seen");
        assert_eq!((view.unit, view.joined_at), (unit("mall-1"), at(0)), "it joined at the unit of its first app");
        ground.world.membership.refresh(&ground.app, &tokens.refresh).await.expect("the app refreshes it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mini_program_without_unionid_knows_its_own_people() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let code = |person: &str| ground.simulator.login_code("wxmall", person, false, 0);
        let joined = ground.log_in("mall", wechat(&code("li")), true).await.expect("it joins");
        assert_eq!(ground.log_in("mall", wechat(&code("li")), false).await.expect("it is known").id, joined.id);
        assert_eq!(code_of(ground.log_in("mall", wechat(&code("wang")), false).await), "unknown_member");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wechats_refusals_and_moods_are_told_apart() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let used = ground.simulator.login_code("wxmall", "li", true, 0);
        ground.log_in("mall", wechat(&used), true).await.expect("it joins");
        let old = ground.simulator.login_code("wxmall", "li", true, 300_000);
        let of_another = ground.simulator.login_code("wxhotel", "li", true, 0);
        for (code, expected) in [
            (used.as_str(), "login_code_refused"),
            (old.as_str(), "login_code_refused"),
            (of_another.as_str(), "login_code_refused"),
            ("never-given", "login_code_refused"),
            ("", "invalid_request"),
            ("a code", "invalid_request"),
            (&"x".repeat(200), "invalid_request"),
        ] {
            let answer = ground.log_in("mall", wechat(code), true).await;
            let problem = answer.expect_err("it is refused").body();
            assert_eq!((problem.code.as_str(), problem.field.as_deref()), (expected, Some("wechat.code")), "{code}");
        }
        let moods = [
            (LoginMisbehaviour { busy: 1000, ..LoginMisbehaviour::default() }, ("unavailable", Some(2))),
            (LoginMisbehaviour { limits: 1000, ..LoginMisbehaviour::default() }, ("limited", Some(60))),
            (LoginMisbehaviour { failures: 1000, ..LoginMisbehaviour::default() }, ("unavailable", Some(2))),
        ];
        let code = ground.simulator.login_code("wxmall", "li", true, 0);
        for (mood, expected) in moods {
            ground.misbehaves(mood);
            assert_eq!(heard(ground.log_in("mall", wechat(&code), false).await), expected, "{mood:?}");
        }
        ground.misbehaves(LoginMisbehaviour::default());
        assert!(ground.log_in("mall", wechat(&code), false).await.is_ok(), "busy took the code from nobody");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_is_away_or_slow_is_not_waited_for() {
    let database = heyuan_harness::TestDatabase::sqlite();
    let ground = ground_with(&database, |settings| settings.timeout_ms = 300).await;
    let code = ground.simulator.login_code("wxmall", "li", true, 0);
    ground.misbehaves(LoginMisbehaviour { slow_ms: 60_000, ..LoginMisbehaviour::default() });
    assert_eq!(heard(ground.log_in("mall", wechat(&code), true).await), ("unavailable", Some(2)));
    assert_eq!(heard(ground.send_code("mall", PHONE).await), ("unavailable", Some(2)));
    // It may have been sent, so that it counts.
    assert_eq!(heard(ground.send_code("mall", PHONE).await), ("limited", Some(60)));
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("an address");
    let url = format!("http://{free}");
    let nobody = Login::new(ground.world.membership.clone(), settings(&url)).expect("the settings can work");
    let ground = Ground { login: nobody, ..ground };
    assert_eq!(heard(ground.log_in("mall", wechat("0123"), true).await), ("unavailable", Some(2)));
    assert_eq!(ground.world.count("SELECT COUNT(*) AS n FROM membership_member").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_wechat_refuses_or_that_is_none_logs_nobody_in() {
    for_both_databases(|database| async move {
        let ground = ground_with(&database, |settings| {
            settings.apps.insert(
                "mistaken".into(),
                AppSettings { secret: Some(Secret::new("wrong")), ..app_of(AppKind::Wechat, "wxmall", "mall-1") },
            );
        })
        .await;
        let code = ground.simulator.login_code("wxmall", "li", true, 0);
        assert_eq!(heard(ground.log_in("mistaken", wechat(&code), true).await), ("unavailable", Some(2)));
        for (app, field) in [("unknown", "app"), ("nowhere", "app"), ("ours", "app"), ("till", "wechat")] {
            let problem = ground.log_in(app, wechat(&code), true).await.expect_err("it is refused").body();
            assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("invalid_request", Some(field)), "{app}");
        }
        let asked = ground.simulator.asked();
        let login = LogIn { app: "mall".into(), proof: wechat(&code), join: true };
        let hotel = Reach::Units(Arc::new([unit("hotel-1")].into()));
        for actor in [
            Actor::key("key:admin".into(), vec![Scope::Admin, Scope::Reveal, Scope::Import], None, Reach::Everything),
            Actor::key("key:hotel".into(), vec![Scope::App], Some(unit("hotel-1")), hotel),
            Actor::member(MemberId::new("mbr_1").expect("an id")),
        ] {
            let refused = ground.login.log_in(&actor, &login).await.map_err(Problem::from);
            assert_eq!(code_of(refused), "forbidden", "{actor:?}");
            let refused = ground.login.send_code(&actor, "mall", PHONE).await.map_err(Problem::from);
            assert_eq!(code_of(refused), "forbidden", "{actor:?}");
        }
        assert_eq!(ground.simulator.asked(), asked, "nobody is asked for those who may not");
        assert!(ground.log_in("mall", wechat(&code), true).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phone_button_proves_a_number_of_mainland_china() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let with_phone = |number: &str| Proof::WeChat {
            code: ground.simulator.login_code("wxmall", "li", true, 0),
            phone_code: Some(ground.simulator.phone_code("wxmall", number, 0)),
        };
        let abroad = ground.log_in("mall", with_phone("+1 3800138000"), true).await.expect_err("it is refused").body();
        assert_eq!((abroad.code.as_str(), abroad.field.as_deref()), ("invalid_request", Some("wechat.phone_code")));
        let asked = ground.simulator.asked();
        let joined = ground.log_in("mall", with_phone(PHONE), true).await.expect("it joins");
        assert_eq!(ground.simulator.asked() - asked, 2, "the server's token is asked for once");
        assert!(joined.new);
        let old = Proof::WeChat {
            code: ground.simulator.login_code("wxmall", "li", true, 0),
            phone_code: Some(ground.simulator.phone_code("wxmall", PHONE, 300_000)),
        };
        let refused = ground.log_in("mall", old, true).await.expect_err("it is refused").body();
        assert_eq!((refused.code.as_str(), refused.field.as_deref()), ("login_code_refused", Some("wechat.phone_code")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_sent_to_a_phone_lets_in_once() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        ground.send_code("till", "+86 138-0013-8000").await.expect("it is sent");
        let code = ground.shown(PHONE);
        assert_eq!(code_of(ground.log_in("till", phone(PHONE, &wrong(&code)), true).await), "phone_code_refused");
        assert_eq!(code_of(ground.log_in("mall", phone(PHONE, &code), true).await), "phone_code_refused", "it is for one app");
        assert_eq!(code_of(ground.log_in("till", phone("13900139000", &code), true).await), "phone_code_refused", "and for one number");
        assert_eq!(code_of(ground.log_in("till", phone(PHONE, &code), false).await), "unknown_member");
        let joined = ground.log_in("till", phone(PHONE, &code), true).await.expect("it was not used up by not letting in");
        assert!(joined.new);
        assert_eq!(code_of(ground.log_in("till", phone(PHONE, &code), true).await), "phone_code_refused", "now it is");
        ground.passes(60_000);
        ground.send_code("till", PHONE).await.expect("it is sent");
        let known = ground.log_in("till", phone(PHONE, &ground.shown(PHONE)), false).await.expect("it is known");
        assert_eq!((known.id, known.new), (joined.id, false));
        assert_eq!(ground.world.count("SELECT COUNT(*) AS n FROM membership_phone_code").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_for_five_minutes_and_five_tries_and_the_last_one_counts() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        ground.send_code("till", PHONE).await.expect("it is sent");
        ground.passes(300_000);
        assert_eq!(code_of(ground.log_in("till", phone(PHONE, &ground.shown(PHONE)), true).await), "phone_code_refused", "too old");
        assert_eq!(ground.world.membership.sweep_logins(None).await.expect("it sweeps"), 1);

        ground.send_code("till", PHONE).await.expect("it is sent");
        let code = ground.shown(PHONE);
        for _ in 0..5 {
            assert_eq!(code_of(ground.log_in("till", phone(PHONE, &wrong(&code)), true).await), "phone_code_refused");
        }
        assert_eq!(code_of(ground.log_in("till", phone(PHONE, &code), true).await), "phone_code_refused", "too many tries");

        ground.passes(60_000);
        ground.send_code("till", PHONE).await.expect("it is sent");
        let first = ground.shown(PHONE);
        ground.passes(60_000);
        ground.send_code("till", PHONE).await.expect("it is sent");
        let second = ground.shown(PHONE);
        if first != second {
            assert_eq!(code_of(ground.log_in("till", phone(PHONE, &first), true).await), "phone_code_refused", "the last one counts");
        }
        assert!(ground.log_in("till", phone(PHONE, &second), true).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_with_one_code_one_is_let_in() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        for round in 0..4 {
            let number = format!("1380013800{round}");
            ground.send_code("till", &number).await.expect("it is sent");
            let code = ground.shown(&number);
            let answers = join_all((0..5).map(|_| {
                let (ground, proof) = (ground.clone(), phone(&number, &code));
                tokio::spawn(async move { ground.log_in("till", proof, true).await })
            }))
            .await;
            let let_in = answers.into_iter().filter(|answer| answer.as_ref().expect("nobody panics").is_ok()).count();
            assert_eq!(let_in, 1, "round {round}");
        }
        assert_eq!(ground.world.count("SELECT COUNT(*) AS n FROM kernel_session").await, 4);
        assert_eq!(ground.world.count("SELECT COUNT(*) AS n FROM membership_member").await, 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_are_limited_by_number_by_key_and_in_all() {
    for_both_databases(|database| async move {
        let ground = ground_with(&database, |settings| {
            (settings.sms_phone_day_max, settings.sms_key_day_max, settings.sms_day_max) = (2, 4, 6);
        })
        .await;
        ground.send_code("till", PHONE).await.expect("it is sent");
        assert_eq!(heard(ground.send_code("mall", PHONE).await), ("limited", Some(60)), "one a minute, for whatever app");
        ground.passes(59_001);
        assert_eq!(heard(ground.send_code("mall", PHONE).await), ("limited", Some(1)));
        ground.passes(999);
        ground.send_code("mall", PHONE).await.expect("it is sent");
        ground.passes(60_000);
        // 08:00 in Shanghai, and two minutes.
        let until_midnight = 16 * 3_600 - 120;
        assert_eq!(heard(ground.send_code("till", PHONE).await), ("limited", Some(until_midnight)), "two a day");
        for last in 1..=2 {
            ground.send_code("till", &format!("1380013800{last}")).await.expect("it is sent");
        }
        assert_eq!(heard(ground.send_code("till", "13800138003").await), ("limited", Some(until_midnight)), "four a key");
        let other = Actor::key("key:other".into(), vec![Scope::App], None, Reach::Everything);
        for last in 3..=4 {
            ground.login.send_code(&other, "till", &format!("1380013800{last}")).await.expect("it is sent");
        }
        let third = Actor::key("key:third".into(), vec![Scope::App], None, Reach::Everything);
        let refused = ground.login.send_code(&third, "till", "13800138005").await.map_err(Problem::from);
        assert_eq!(heard(refused), ("limited", Some(until_midnight)), "six in all");
        assert_eq!(ground.simulator.sent(PHONE).map(|(_, messages)| messages), Some(2));
        assert_eq!(ground.simulator.sent("13800138005"), None);
        ground.passes(i64::try_from(until_midnight).expect("a day") * 1000);
        ground.send_code("till", PHONE).await.expect("another day");
        ground.passes(3 * 86_400_000);
        assert!(ground.world.membership.sweep_logins(None).await.expect("it sweeps") > 0);
        assert_eq!(ground.world.count("SELECT COUNT(*) AS n FROM membership_phone_count").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_between_codes_is_one_at_midnight_too() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        // From 08:00 to the last second of the day.
        ground.passes(16 * 3_600_000 - 1_000);
        ground.send_code("till", PHONE).await.expect("it is sent");
        ground.passes(1_000);
        assert_eq!(heard(ground.send_code("till", PHONE).await), ("limited", Some(59)), "the next day is a second old");
        ground.passes(58_999);
        assert_eq!(heard(ground.send_code("mall", PHONE).await), ("limited", Some(1)));
        ground.passes(1);
        ground.send_code("till", PHONE).await.expect("a minute has passed");
        assert_eq!(ground.simulator.sent(PHONE).map(|(_, messages)| messages), Some(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_the_provider_refuses_is_not_tried_without_end() {
    for_both_databases(|database| async move {
        let ground = ground_with(&database, |settings| settings.sms_phone_day_max = 2).await;
        ground.misbehaves(LoginMisbehaviour { failures: 1000, ..LoginMisbehaviour::default() });
        for _ in 0..5 {
            assert_eq!(heard(ground.send_code("till", PHONE).await), ("unavailable", Some(2)));
        }
        for _ in 0..2 {
            assert_eq!(heard(ground.send_code("till", PHONE).await), ("unavailable", Some(2)), "it counts from now on");
            assert_eq!(heard(ground.send_code("till", PHONE).await).0, "limited");
            ground.passes(60_000);
        }
        let asked = ground.simulator.asked();
        assert_eq!(heard(ground.send_code("till", PHONE).await).0, "limited");
        assert_eq!(ground.simulator.asked(), asked, "nobody is asked for it any more today");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_once_a_number_gets_one_code() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let answers = join_all((0..8).map(|_| {
            let ground = ground.clone();
            tokio::spawn(async move { ground.send_code("till", PHONE).await })
        }))
        .await;
        let sent = answers.into_iter().filter(|answer| answer.as_ref().expect("nobody panics").is_ok()).count();
        assert_eq!((sent, ground.simulator.sent(PHONE).map(|(_, messages)| messages)), (1, Some(1)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_was_not_taken_counts_for_nothing_and_numbers_that_are_none_are_refused() {
    for_both_databases(|database| async move {
        let ground = ground_with(&database, |settings| settings.sms_phone_day_max = 1).await;
        for mood in [
            LoginMisbehaviour { failures: 1000, ..LoginMisbehaviour::default() },
            LoginMisbehaviour { busy: 1000, ..LoginMisbehaviour::default() },
        ] {
            ground.misbehaves(mood);
            assert_eq!(heard(ground.send_code("till", PHONE).await), ("unavailable", Some(2)));
        }
        assert_eq!(ground.world.count("SELECT COUNT(*) AS n FROM membership_phone_code").await, 0);
        ground.misbehaves(LoginMisbehaviour::default());
        ground.send_code("till", PHONE).await.expect("it is sent at once");
        for number in ["", "1390013900", "+852 91234567", "12345678901"] {
            let problem = ground.send_code("till", number).await.expect_err("it is refused").body();
            assert_eq!((problem.code.as_str(), problem.field.as_deref()), ("invalid_request", Some("phone")), "{number}");
            assert!(number.is_empty() || !problem.detail.contains(number));
        }
        let silent = Login::new(ground.world.membership.clone(), LoginSettings { sms_url: None, ..settings("http://127.0.0.1:1") });
        let ground = Ground { login: silent.expect("the settings can work"), ..ground };
        assert_eq!(code_of(ground.send_code("till", "13900139000").await), "no_sms_provider");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_member_does_not_log_in_and_one_that_left_joins_anew() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let joined = ground.by_wechat("mall", "li", true).await.expect("it joins");
        ground.world.membership.block(&ground.world.admin, &joined.id, "resells vouchers").await.expect("it is blocked");
        for join in [true, false] {
            assert_eq!(code_of(ground.by_wechat("mall", "li", join).await), "member_blocked");
        }
        ground.world.membership.unblock(&ground.world.admin, &joined.id, "a mistake").await.expect("it is unblocked");
        ground.world.membership.leave(&Actor::member(joined.id.clone()), &joined.id, false, Some("l")).await.expect("it leaves");
        assert_eq!(code_of(ground.by_wechat("mall", "li", false).await), "unknown_member");
        let again = ground.by_wechat("mall", "li", true).await.expect("it joins");
        assert!(again.new && again.id != joined.id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_can_send_lets_nobody_in_as_somebody_else() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let (victim, attacker) = (PHONE, "13900139000");
        let by_phone = async |number: &str, join: bool| {
            ground.passes(60_000);
            ground.send_code("till", number).await.expect("it is sent");
            ground.log_in("till", phone(number, &ground.shown(number)), join).await
        };
        let theirs = by_phone(victim, true).await.expect("it joins").id;
        // An event with both numbers, sent with the key that every app carries, makes them one customer.
        ground.world.people.link(&[victim, attacker], "cus_one");
        assert_eq!(code_of(by_phone(attacker, false).await), "unknown_member");
        let own = by_phone(attacker, true).await.expect("it joins by what it has proven");
        assert!(own.new && own.id != theirs);
        assert_eq!(by_phone(victim, false).await.expect("it is known").id, theirs);
        assert_eq!(by_phone(attacker, false).await.expect("it is known").id, own.id);

        // The same before the victim joins: it does not end up in the attacker's membership.
        let late = "13700137000";
        ground.world.people.link(&[late, attacker], "cus_two");
        let joined = by_phone(late, true).await.expect("it joins");
        assert!(joined.new && joined.id != own.id);
        assert_eq!(by_phone(late, false).await.expect("it is known").id, joined.id);

        // But whoever was seen beside somebody on the blacklist does not join past it.
        ground.world.membership.block(&ground.world.admin, &own.id, "sells accounts").await.expect("it is blocked");
        ground.world.people.link(&["13600136000", attacker], "cus_three");
        assert_eq!(code_of(by_phone("13600136000", true).await), "member_blocked");
        assert_eq!(by_phone(late, false).await.expect("who has joined logs in").id, joined.id);
        ground.world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_proven_together_leads_to_one_member_whatever_is_told_of_it() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        // The fake customers know nothing of what belongs together, as where an attacker had a number taken for a shared one.
        let proof = Proof::WeChat {
            code: ground.simulator.login_code("wxmall", "li", true, 0),
            phone_code: Some(ground.simulator.phone_code("wxmall", PHONE, 0)),
        };
        let joined = ground.log_in("mall", proof, true).await.expect("it joins");
        ground.send_code("till", PHONE).await.expect("it is sent");
        let by_phone = ground.log_in("till", phone(PHONE, &ground.shown(PHONE)), false).await.expect("it is known");
        assert_eq!((by_phone.id, by_phone.new), (joined.id.clone(), false));
        // Another mini-program of the same WeChat account, and then what only that one has shown: its openid.
        assert_eq!(ground.by_wechat("hotel", "li", false).await.expect("it is known").id, joined.id);
        let without = ground.simulator.login_code("wxhotel", "li", false, 0);
        assert_eq!(ground.log_in("hotel", wechat(&without), false).await.expect("it is known").id, joined.id);
        let proven = "SELECT COUNT(*) AS n FROM membership_proof";
        assert_eq!(ground.world.count(proven).await, 4, "a unionid, two openids and a number");

        ground.world.membership.leave(&Actor::member(joined.id.clone()), &joined.id, false, Some("l")).await.expect("it leaves");
        assert_eq!(ground.world.count(proven).await, 0);
        assert_eq!(code_of(ground.by_wechat("mall", "li", false).await), "unknown_member");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_leads_who_has_no_other_account_to_its_member_and_a_familys_number_does_not() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let with_phone = |person: &str| Proof::WeChat {
            code: ground.simulator.login_code("wxmall", person, true, 0),
            phone_code: Some(ground.simulator.phone_code("wxmall", PHONE, 0)),
        };
        // Joined at the desk by a number; the mini-program shows it beside the account, which is proven from then on.
        let member = ground.world.join(PHONE).await;
        assert_eq!(code_of(ground.by_wechat("mall", "li", false).await), "unknown_member");
        assert_eq!(ground.log_in("mall", with_phone("li"), false).await.expect("it is known").id, member);
        assert_eq!(ground.by_wechat("mall", "li", false).await.expect("it is known").id, member);
        // Somebody of the family with an account of his own.
        assert_eq!(code_of(ground.log_in("mall", with_phone("wang"), false).await), "unknown_member");
        let other = ground.log_in("mall", with_phone("wang"), true).await.expect("it joins");
        assert!(other.new && other.id != member);
        ground.send_code("till", PHONE).await.expect("it is sent");
        let by_phone = ground.log_in("till", phone(PHONE, &ground.shown(PHONE)), false).await.expect("it is known");
        assert_eq!(by_phone.id, member, "the number stays whose it was first");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_codes_and_identifiers_are_in_no_answer_and_in_no_table() {
    for_both_databases(|database| async move {
        let ground = ground(&database).await;
        let (openid, unionid) = (LoginSimulator::openid("wxmall", "li"), LoginSimulator::unionid("li"));
        let mut secrets = BTreeSet::from([SECRET.to_owned(), openid, unionid, PHONE.to_owned(), "SESSIONKEY".to_owned()]);
        let mut said = String::new();
        let mut hear = |answer: Result<Joined, Problem>| match answer {
            Ok(joined) => said.push_str(&format!("{joined:?}\n")),
            Err(problem) => said.push_str(&format!("{problem}\n{problem:?}\n{}\n", serde_json::to_string(&problem.body()).expect("JSON"))),
        };
        let code = ground.simulator.login_code("wxmall", "li", true, 0);
        secrets.insert(code.clone());
        hear(ground.log_in("mall", wechat(&code), true).await);
        hear(ground.log_in("mall", wechat(&code), true).await);
        ground.send_code("mall", PHONE).await.expect("it is sent");
        let sent = ground.shown(PHONE);
        hear(ground.log_in("mall", phone(PHONE, &wrong(&sent)), true).await);
        hear(ground.log_in("mall", phone(PHONE, "not a code at all, and much too long"), true).await);
        for mood in [
            LoginMisbehaviour { failures: 1000, ..LoginMisbehaviour::default() },
            LoginMisbehaviour { busy: 1000, ..LoginMisbehaviour::default() },
        ] {
            ground.misbehaves(mood);
            hear(ground.log_in("mall", wechat(&code), true).await);
            hear(ground.login.send_code(&ground.app, "mall", PHONE).await.map(|_| unreachable!("one a minute")).map_err(Problem::from));
        }
        let nobody = Login::new(ground.world.membership.clone(), settings("http://127.0.0.1:1")).expect("the settings can work");
        let away = nobody.log_in(&ground.app, &LogIn { app: "mall".into(), proof: wechat(&code), join: true }).await;
        hear(away.map_err(Problem::from));
        let login = LogIn { app: "mall".into(), proof: phone(PHONE, &sent), join: true };
        said.push_str(&format!("{login:?} {:?}", settings("http://127.0.0.1:1")));
        for secret in &secrets {
            assert!(!said.contains(secret.as_str()), "{secret} in:\n{said}");
        }
        // The fake customers keep values in their anchors; membership's and the kernel's other tables hold none.
        secrets.insert(sent);
        for text in [
            "SELECT id || app || unit || refresh_hash AS t FROM kernel_session",
            "SELECT actor || action || object || detail AS t FROM kernel_audit",
            "SELECT subject AS t FROM membership_phone_count",
            "SELECT app AS t FROM membership_phone_code",
        ] {
            let rows = sql::all(ground.world.kernel.db.reader(), text, []).await.expect("they are read");
            let stored: Vec<String> = rows.iter().map(|row| sql::get(row, "t").expect("a text")).collect();
            assert!(secrets.iter().all(|secret| stored.iter().all(|value| !value.contains(secret.as_str()))), "{text}: {stored:?}");
        }
        let rows =
            sql::all(ground.world.kernel.db.reader(), "SELECT phone, code FROM membership_phone_code", []).await.expect("they are read");
        for row in &rows {
            for column in ["phone", "code"] {
                assert_eq!(sql::get::<Vec<u8>>(row, column).expect("bytes").len(), 32, "a keyed hash");
            }
        }
        assert_eq!(rows.len(), 1);
    })
    .await;
}
