//! Logging in: by the code of a WeChat mini-program or by a code sent to a phone. Either proves an identifier, which lets a member in.

mod phone_code;
mod settings;
pub mod simulator;
mod sms;
mod wechat;

pub(crate) use phone_code::{Claim, codes_to_sweep, sweep_codes};
pub use settings::{AppKind, AppSettings, LoginSettings};

use crate::customers::Identifier;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::join::{Admission, Entrance, Joined, Word, stranger};
use crate::proof;
use futures::FutureExt;
use heyuan_contract::{Line, Timestamp};
use heyuan_kernel::{Actor, Problem, Scope};
use phone_code::{Bounds, CODE_TIME_MS, Counted, Phone};
use sms::{NotSent, Sms};
use std::fmt;
use std::sync::Arc;
use wechat::{MiniProgram, WeChat};

/// Longest code that is looked at, in bytes.
const CODE_BYTES_MAX: usize = 20;

/// What somebody shows who logs in.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// The code of `wx.login`, and that of the phone button, which also proves a number.
    WeChat {
        /// WeChat takes it once, for five minutes.
        code: String,
        /// The same of the phone button.
        phone_code: Option<String>,
    },
    /// The code that was sent to a number.
    Phone {
        /// The number.
        number: String,
        /// Six digits.
        code: String,
    },
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Proof::WeChat { .. }) { "WeChat(…)" } else { "Phone(…)" })
    }
}

/// A request to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIn {
    /// The app, as the settings name it.
    pub app: String,
    /// What proves who it is.
    pub proof: Proof,
    /// Whether a stranger becomes a member.
    pub join: bool,
}

/// A code on its way. It says nothing about whether the number is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentCode {
    /// Until when it is good.
    pub expires_at: Timestamp,
}

/// What a proof has shown.
struct Proven {
    identifiers: Vec<Identifier>,
    claim: Option<Claim>,
}

/// Log-in to the apps of the settings. Cheap to clone.
#[derive(Clone)]
pub struct Login {
    membership: Membership,
    parts: Arc<Parts>,
}

struct Parts {
    settings: LoginSettings,
    wechat: WeChat,
    sms: Sms,
}

impl Login {
    /// Log-in of this membership's members.
    ///
    /// # Errors
    /// The setting that can't work.
    pub fn new(membership: Membership, settings: LoginSettings) -> Result<Login, heyuan_kernel::Error> {
        settings.check()?;
        let wechat = WeChat::new(&settings, membership.kernel().clock.clone());
        let sms = Sms::new(&settings);
        Ok(Login { membership, parts: Arc::new(Parts { settings, wechat, sms }) })
    }

    /// Lets in who proves to be a member, or with `join` anybody, and opens a session: that of the member for which an identifier of this proof
    /// was proven before. What apps tell of who is who lets nobody in, since anybody may send it. The proof counts whoever brings it, so that a
    /// key that an app carries (`ingest`) is enough; it must reach the app's unit.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for an unknown app; `login_code_refused`, `phone_code_refused`; `unknown_member` when nobody has
    /// joined with it, `member_blocked`; `unavailable` or `limited` when the platform that is asked is away or busy.
    pub async fn log_in(&self, actor: &Actor, login: &LogIn) -> Result<Joined, Error> {
        let (app, line) = self.app(actor, &login.app).await?;
        let proven = match &login.proof {
            Proof::WeChat { code, phone_code } => self.ask_wechat(&login.app, app, code, phone_code.as_deref()).await?,
            Proof::Phone { number, code } => self.try_code(&login.app, number, code).await?,
        };
        let admission = if login.join { Admission::Everybody } else { Admission::Members };
        if admission == Admission::Members && !self.is_member(&proven.identifiers).await? {
            return Err(stranger());
        }
        let entrance = Entrance { app: login.app.clone(), unit: app.unit.clone(), line, claim: proven.claim, word: Word::Person };
        let entered = self.membership.enter(actor, &entrance, &proven.identifiers, admission).await?;
        if entered.tokens.is_none() {
            return Err(Error::refused(codes::MEMBER_BLOCKED, "a member of this person is blocked, and the person does not log in"));
        }
        Ok(entered)
    }

    /// Sends a code to a number. The answer is the same whether the number is known or not.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for an unknown app or a number that is none; `no_sms_provider`; `limited`; `unavailable`.
    pub async fn send_code(&self, actor: &Actor, app: &str, number: &str) -> Result<SentCode, Error> {
        self.app(actor, app).await?;
        let kernel = self.membership.kernel();
        let phone = Phone::read(kernel, "phone", number)?;
        if !self.parts.sms.is_ready() {
            let words = "no provider is set up that sends codes; the setting login.sms_url names one";
            return Err(Error::refused(codes::NO_SMS_PROVIDER, words));
        }
        let settings = &self.parts.settings;
        let bounds = Bounds { a_phone: settings.sms_phone_day_max, a_key: settings.sms_key_day_max, in_all: settings.sms_day_max };
        let counted = Counted::new(kernel, &phone, actor.name(), bounds);
        let code = phone_code::fresh_code();
        let claim = Claim::new(kernel, &phone, app, &code);
        let expires_at = kernel.clock.now().plus_ms(CODE_TIME_MS);
        let (written, counts) = (claim.clone(), counted.clone());
        kernel
            .db
            .write("keep a phone code", move |tx| {
                let (claim, counted) = (written.clone(), counts.clone());
                async move {
                    counted.count(tx).await?;
                    claim.keep(tx, expires_at).await
                }
                .boxed()
            })
            .await?;
        match self.parts.sms.send(app, phone.number(), &code).await {
            Ok(()) => Ok(SentCode { expires_at }),
            Err(NotSent::Unknown(problem)) => Err(problem.into()),
            Err(NotSent::Refused(problem)) => {
                self.take_back(claim, counted).await?;
                Err(problem.into())
            }
        }
    }

    async fn take_back(&self, claim: Claim, counted: Counted) -> Result<(), Error> {
        let db = &self.membership.kernel().db;
        db.write("take a phone code back", move |tx| {
            let (claim, counted) = (claim.clone(), counted.clone());
            async move {
                counted.take_back(tx).await?;
                claim.drop_it(tx).await
            }
            .boxed()
        })
        .await
    }

    /// Refuses an actor that may log nobody in, before anything else is said to it.
    pub(crate) fn check_may(&self, actor: &Actor) -> Result<(), Problem> {
        actor.require_any(&[Scope::Ingest, Scope::App])
    }

    /// An app of the settings, for a key that may log people in to it, and the line of its unit.
    async fn app(&self, actor: &Actor, name: &str) -> Result<(&AppSettings, Line), Error> {
        self.check_may(actor)?;
        let unknown = || Problem::invalid("app", "expected the name of an app in the settings (login.apps)");
        let app = self.parts.settings.apps.get(name).ok_or_else(unknown)?;
        actor.require_unit(&app.unit)?;
        let unit = self.membership.kernel().org.require("app", &app.unit).await?;
        let line = unit.line.ok_or_else(|| Problem::invalid("app", format!("the unit {} of this app has no business line", app.unit)))?;
        Ok((app, line))
    }

    async fn ask_wechat(&self, name: &str, app: &AppSettings, code: &str, phone_code: Option<&str>) -> Result<Proven, Error> {
        let (Some(appid), Some(secret), AppKind::Wechat) = (&app.appid, &app.secret, app.kind) else {
            return Err(Problem::invalid("wechat", "this app is no mini-program; log in by phone").into());
        };
        let program = MiniProgram { name, appid, secret };
        let openids = self.parts.wechat.openids(&program, code).await?;
        let identifier = |kind: &str, value: String, app: Option<String>| Identifier { kind: kind.to_owned(), value, app };
        // The strongest first.
        let mut identifiers: Vec<Identifier> = openids.unionid.into_iter().map(|id| identifier("unionid", id, None)).collect();
        identifiers.push(identifier("openid", openids.openid, Some(name.to_owned())));
        if let Some(code) = phone_code {
            identifiers.push(identifier("phone", self.parts.wechat.phone(&program, code).await?, None));
        }
        Ok(Proven { identifiers, claim: None })
    }

    /// A code that is right is used up only by the unit of work that lets its holder in: whoever has not joined may come again with it.
    async fn try_code(&self, app: &str, number: &str, code: &str) -> Result<Proven, Error> {
        let kernel = self.membership.kernel();
        let phone = Phone::read(kernel, "phone.number", number)?;
        if code.is_empty() || code.len() > CODE_BYTES_MAX {
            return Err(Problem::invalid("phone.code", "expected the six digits that were sent").into());
        }
        let claim = Claim::new(kernel, &phone, app, code);
        let (tried, now) = (claim.clone(), kernel.clock.now());
        let right = kernel
            .db
            .write("try a phone code", move |tx| {
                let claim = tried.clone();
                async move { claim.try_it(tx, now).await }.boxed()
            })
            .await?;
        if !right {
            return Err(phone_code::refused());
        }
        let identifiers = vec![Identifier { kind: "phone".to_owned(), value: phone.number().to_owned(), app: None }];
        Ok(Proven { identifiers, claim: Some(claim) })
    }

    /// Whether one of these identifiers is proven for a member. Nothing is recorded of a stranger.
    async fn is_member(&self, identifiers: &[Identifier]) -> Result<bool, Error> {
        let shown = self.membership.shown(identifiers).await?;
        Ok(proof::owner(self.membership.kernel().db.near(), &shown).await?.is_some())
    }
}
