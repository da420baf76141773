//! Logging in: begun with an address to go to, finished with the code that comes back.

mod told;

use crate::problem::codes;
use crate::provider::{Failure, Provider, Vouched};
use crate::refusal::Refusal;
use crate::refusals::Refusals;
use crate::settings::{Rights, StaffSettings};
use crate::ticket::{Ticket, spent};
use futures::FutureExt;
use heyuan_contract::{StaffId, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::keys::{Credentials, Staff, StaffSession, Tokens};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Actor, Error, Kernel, Problem, Reach, Scope, Tx, audit, sql};
use std::fmt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Longest code that is passed on, in bytes; some providers' have more than a thousand.
const CODE_BYTES_MAX: usize = 4096;
/// Codes that one process has exchanged at once: strangers who make codes up hold no more than this.
const EXCHANGES_MAX: usize = 16;
/// When to come again while they all are taken.
const AGAIN_S: u32 = 2;
/// Rows of one sweep of one table.
const SWEEP_ROWS: u64 = 500;
/// What goes at an instant of its own: tables with their keys.
const SWEPT: [(&str, &str); 3] = [("staff_used_state", "state"), ("staff_seen_log_out", "token"), ("staff_provider_session", "id")];

/// A log-in that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Where the person goes.
    pub address: String,
    /// Comes back with the code; the console compares it with what comes.
    pub state: String,
    /// Shows at the end that who finishes is who began: it stays with whoever began, and in no address.
    pub ticket: String,
    /// Until when it may be finished.
    pub expires_at: Timestamp,
}

/// What came back from the provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Finish {
    /// Of the log-in that was begun.
    pub ticket: String,
    /// As it came back.
    pub state: String,
    /// The provider's.
    pub code: String,
    /// Who sent the person back, where the provider says so.
    pub issuer: Option<String>,
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finish(…)")
    }
}

/// Somebody who is logged in, with the tokens of the session.
pub type LoggedIn = Tokens<Staff>;

/// Somebody whom the provider vouches for, with what the settings give them.
struct Entrance {
    subject: String,
    /// The provider's session, as it is kept.
    origin: Option<String>,
    /// When the provider vouched, in seconds by its own clock.
    at_s: i64,
    rights: Rights,
}

/// Somebody who has logged in before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) id: StaffId,
    pub(crate) created_at: Timestamp,
    pub(crate) last_log_in_at: Timestamp,
}

/// Log-in of those who work for the group, and their sessions. Cheap to clone.
#[derive(Clone)]
pub struct StaffLogin {
    parts: Arc<Parts>,
}

struct Parts {
    kernel: Kernel,
    credentials: Credentials,
    provider: Option<Provider>,
    refused_log_ins: Refusals,
    refused_log_outs: Refusals,
    exchanges: Semaphore,
}

impl StaffLogin {
    /// Log-in with the provider of the settings, or none.
    ///
    /// # Errors
    /// The setting that can't work.
    pub fn new(kernel: Kernel, credentials: Credentials, settings: &StaffSettings) -> Result<StaffLogin, Error> {
        let provider = settings.checked()?.map(|checked| Provider::new(checked, kernel.clock.clone()));
        let refusals = |action| Refusals::new(action, kernel.db.clone(), kernel.clock.clone());
        let (refused_log_ins, refused_log_outs) = (refusals("refuse log-in"), refusals("refuse log-out"));
        let exchanges = Semaphore::new(EXCHANGES_MAX);
        Ok(StaffLogin { parts: Arc::new(Parts { kernel, credentials, provider, refused_log_ins, refused_log_outs, exchanges }) })
    }

    fn provider(&self) -> Result<&Provider, Problem> {
        let words = "the setting staff.issuer names no provider";
        self.parts.provider.as_ref().ok_or_else(|| Problem::new(codes::STAFF_LOGIN_NOT_SET_UP, words))
    }

    fn credentials(&self) -> &Credentials {
        &self.parts.credentials
    }

    /// Begins a log-in. Nothing is written, so that a stranger who begins many fills nothing.
    ///
    /// # Errors
    /// `staff_login_not_set_up`; `unavailable` while the provider is away.
    pub async fn begin(&self) -> Result<Begun, Problem> {
        let kernel = &self.parts.kernel;
        let ticket = Ticket::fresh(kernel.clock.now().ms());
        let address = self.provider()?.address(&ticket).await?;
        let expires_at = Timestamp::clamped(ticket.expires_at);
        Ok(Begun { address: address.into(), ticket: ticket.sealed(&kernel.keys), state: ticket.state, expires_at })
    }

    /// Finishes a log-in, once, in whatever process.
    ///
    /// # Errors
    /// `staff_login_not_set_up`; `invalid_request`; `staff_state_refused`, `staff_code_refused`, `id_token_refused`, `no_staff_role`;
    /// `limited`, `unavailable`.
    pub async fn finish(&self, finish: &Finish) -> Result<LoggedIn, Problem> {
        let provider = self.provider()?;
        if finish.code.is_empty() || finish.code.len() > CODE_BYTES_MAX || !finish.code.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Problem::invalid("code", format!("expected the code that came back, 1 to {CODE_BYTES_MAX} characters")));
        }
        let kernel = &self.parts.kernel;
        let ticket = Ticket::opened(&kernel.keys, &finish.ticket, &finish.state, kernel.clock.now().ms())?;
        if self.is_used(&ticket).await? {
            self.parts.refused_log_ins.record(None, "state_used").await?;
            return Err(spent());
        }
        let vouched = self.vouched(provider, &ticket, finish).await?;
        let subject = self.subject(&vouched.subject)?;
        let Some(rights) = provider.settings.rights(&vouched.roles) else {
            let words =
                "none of the person's roles is in the settings (staff.grants); staff.roles_claim and staff.roles_from say where they are";
            return self.refuse(Some(&subject), "no_role", Problem::new(codes::NO_STAFF_ROLE, words)).await;
        };
        if let Some(unit) = rights.unit.as_ref().filter(|unit| kernel.org.tree().get(unit).is_none()) {
            let words = format!("the person's role is for the unit {unit}, which does not exist (staff.grants)");
            return self.refuse(Some(&subject), "unknown_unit", Problem::new(codes::NO_STAFF_ROLE, words)).await;
        }
        let origin = vouched.session.map(|session| self.origin(&session)).transpose()?;
        self.enter(&ticket, Entrance { subject, origin, at_s: vouched.at_s, rights }).await
    }

    /// What the provider says of the person whom it sent back.
    async fn vouched(&self, provider: &Provider, ticket: &Ticket, finish: &Finish) -> Result<Vouched, Problem> {
        let words = "as many log-ins as may be are being finished; try again";
        let slot = self.parts.exchanges.try_acquire();
        let slot = slot.map_err(|_| Problem::new(kernel_codes::LIMITED, words).retry_after_s(AGAIN_S))?;
        let vouched = provider.vouch(ticket, &finish.code, finish.issuer.as_deref()).await;
        drop(slot);
        match vouched {
            Ok(vouched) => Ok(vouched),
            Err(Failure::Away(problem)) => Err(problem),
            Err(Failure::Disbelieved(refusal)) => self.refuse(None, refusal.reason(), refusal.problem()).await,
        }
    }

    async fn refuse<T>(&self, subject: Option<&str>, reason: &'static str, problem: Problem) -> Result<T, Problem> {
        let known = match subject {
            Some(subject) => self.person(subject).await?.map(|person| person.id),
            None => None,
        };
        self.parts.refused_log_ins.record(known.as_ref(), reason).await?;
        Err(problem)
    }

    /// What is kept of the provider's name for a person: nothing that leads back to it without the tenant's key.
    fn subject(&self, name: &str) -> Result<String, Problem> {
        let issuer = &self.provider()?.settings.issuer;
        let hash = self.parts.kernel.keys.lookup().mac(&[b"staff", issuer.as_bytes(), name.as_bytes()]);
        Ok(hex::encode(hash))
    }

    /// The same of the provider's name for a session there.
    fn origin(&self, name: &str) -> Result<String, Problem> {
        let issuer = &self.provider()?.settings.issuer;
        let hash = self.parts.kernel.keys.lookup().mac(&[b"staff session", issuer.as_bytes(), name.as_bytes()]);
        Ok(hex::encode(hash))
    }

    async fn is_used(&self, ticket: &Ticket) -> Result<bool, Error> {
        let text = "SELECT state FROM staff_used_state WHERE state = $1";
        Ok(sql::one(self.parts.kernel.db.near(), text, [ticket.state_hash().into()]).await?.is_some())
    }

    /// Uses the state up, knows or makes the person, and opens the session, in one unit.
    async fn enter(&self, ticket: &Ticket, entrance: Entrance) -> Result<LoggedIn, Problem> {
        let kernel = &self.parts.kernel;
        let used = (ticket.state_hash(), ticket.expires_at);
        let (credentials, now, subject) = (self.credentials().clone(), kernel.clock.now(), entrance.subject.clone());
        let entrance = Arc::new(entrance);
        let entered = kernel
            .db
            .write("log staff in", move |tx| {
                let (credentials, used, entrance) = (credentials.clone(), used.clone(), entrance.clone());
                async move {
                    use_up(tx, &used).await?;
                    let id = known(tx, &entrance, now).await?;
                    let Rights { scopes, unit } = entrance.rights.clone();
                    let staff = Staff { id, scopes, unit };
                    let tokens = credentials.open_staff_session(tx, &staff, entrance.origin.as_deref()).await?;
                    audit::record(tx, &log_in_of(&tokens)).await?;
                    Ok::<LoggedIn, Error>(tokens)
                }
                .boxed()
            })
            .await;
        match entered.map_err(Problem::from) {
            Err(problem) if problem.code() == codes::STAFF_STATE_REFUSED => self.refuse(None, "state_used", problem).await,
            Err(problem) if problem.code() == codes::ID_TOKEN_REFUSED => {
                self.refuse(Some(&subject), Refusal::LoggedOut.reason(), problem).await
            }
            other => other,
        }
    }

    async fn person(&self, subject: &str) -> Result<Option<Person>, Error> {
        let text = "SELECT id, created_at, last_log_in_at FROM staff_person WHERE subject = $1";
        let row = sql::one(self.parts.kernel.db.near(), text, [subject.into()]).await?;
        row.map(|row| {
            Ok(Person {
                id: id_of(&row)?,
                created_at: Timestamp::clamped(sql::get(&row, "created_at")?),
                last_log_in_at: Timestamp::clamped(sql::get(&row, "last_log_in_at")?),
            })
        })
        .transpose()
    }

    /// The person whom the provider calls so, for an administrator of the whole group who wants to end their sessions.
    ///
    /// # Errors
    /// `forbidden`; `staff_login_not_set_up`; `not_found` for somebody who has never logged in.
    pub(crate) async fn find(&self, actor: &Actor, name: &str) -> Result<Person, Problem> {
        actor.require(Scope::Admin)?;
        if *actor.reach() != Reach::Everything {
            return Err(Problem::new(kernel_codes::FORBIDDEN, "this needs a key of the whole group"));
        }
        let subject = self.subject(name)?;
        self.person(&subject).await?.ok_or_else(|| Problem::not_found("member of staff", "of this name"))
    }

    /// The next tokens of a session for its refresh token, once; a token that was used before ends the session.
    ///
    /// # Errors
    /// `refresh_refused`.
    pub(crate) async fn refresh(&self, refresh: &str) -> Result<LoggedIn, Problem> {
        self.credentials().refresh_staff(refresh).await
    }

    /// Ends the session of a refresh token; one that is over already stays over.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn log_out(&self, refresh: &str) -> Result<(), Problem> {
        self.credentials().log_staff_out(refresh).await
    }

    /// Sessions that the actor may see: one's own, or as an administrator those within reach.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) async fn sessions(
        &self,
        actor: &Actor,
        of: Option<&StaffId>,
        after: &str,
        limit: u64,
    ) -> Result<Vec<StaffSession>, Problem> {
        self.credentials().staff_sessions(actor, of, after, limit).await
    }

    /// Ends one session that the actor may see.
    ///
    /// # Errors
    /// `forbidden`; `not_found`.
    pub(crate) async fn end_session(&self, actor: &Actor, session: &str) -> Result<(), Problem> {
        self.credentials().end_staff_session(actor, session).await
    }

    /// Ends every session of a person that the actor may see.
    ///
    /// # Errors
    /// `forbidden`; `not_found`.
    pub(crate) async fn end_sessions(&self, actor: &Actor, staff: &StaffId) -> Result<(), Problem> {
        self.credentials().end_staff_sessions(actor, staff).await
    }

    /// Removes a batch of what is over: used states whose log-in would have expired, log-out tokens that are too old to come again, sessions
    /// at the provider that none of ours can be of any more. Answers how many rows. A processor brings its fence.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self, fence: Option<&Fence>) -> Result<u64, Error> {
        let (kernel, mut swept) = (&self.parts.kernel, 0);
        let now = kernel.clock.now().ms();
        for (table, key) in SWEPT {
            let text = format!("SELECT {key} FROM {table} WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1");
            if sql::one(kernel.db.near(), &text, [now.into()]).await?.is_none() {
                continue;
            }
            let fence = fence.cloned();
            let one = kernel.db.write("sweep log-ins of staff", move |tx| {
                let fence = fence.clone();
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    let text = format!(
                        "DELETE FROM {table} WHERE {key} IN (
                           SELECT {key} FROM {table} WHERE expires_at <= $1 ORDER BY expires_at, {key} LIMIT $2)"
                    );
                    sql::execute(tx.conn(), &text, [now.into(), SWEEP_ROWS.into()]).await
                }
                .boxed()
            });
            swept += one.await?;
        }
        Ok(swept)
    }
}

async fn use_up(tx: &Tx, (state, expires_at): &(String, i64)) -> Result<(), Error> {
    let text = "INSERT INTO staff_used_state (state, expires_at) VALUES ($1, $2) ON CONFLICT (state) DO NOTHING";
    match sql::execute(tx.conn(), text, [state.as_str().into(), (*expires_at).into()]).await? {
        0 => Err(spent().into()),
        _ => Ok(()),
    }
}

/// The id of whoever comes in, unless they have logged out at the provider since it vouched for them. The person's row and that of the session
/// there are held from here on: a log-out that is told meanwhile finds what this unit opens.
async fn known(tx: &Tx, entrance: &Entrance, now: Timestamp) -> Result<StaffId, Error> {
    let fresh: StaffId = Kernel::new_id("stf");
    let text = "INSERT INTO staff_person (id, subject, created_at, last_log_in_at) VALUES ($1, $2, $3, $3)
                ON CONFLICT (subject) DO UPDATE SET last_log_in_at = $3 RETURNING id, logged_out_at";
    let row = sql::one(tx.conn(), text, [fresh.as_str().into(), entrance.subject.as_str().into(), now.ms().into()]).await?;
    let row = row.ok_or(Error::Corrupt { what: "member of staff", why: "it got no id".into() })?;
    let id = id_of(&row)?;
    let since = sql::get::<Option<i64>>(&row, "logged_out_at")?.is_some_and(|at_s| at_s > entrance.at_s);
    let ended = match &entrance.origin {
        Some(origin) => told::came_of(tx, origin, &id, now).await?,
        None => false,
    };
    if since || ended { Err(Refusal::LoggedOut.problem().into()) } else { Ok(id) }
}

fn id_of(row: &sql::Row) -> Result<StaffId, Error> {
    StaffId::new(sql::get::<String>(row, "id")?).map_err(|e| Error::Corrupt { what: "member of staff", why: e.to_string() })
}

fn log_in_of(tokens: &LoggedIn) -> audit::Entry {
    let Staff { id, unit, .. } = &tokens.holder;
    let actor = Actor::staff(id.clone(), Vec::new(), None, Reach::Everything);
    let entry = audit::Entry::new(&actor, "log in", id.as_str()).detail("session", tokens.session.as_str());
    let entry = entry.detail("scopes", tokens.holder.scopes_text());
    match unit {
        Some(unit) => entry.detail("unit", unit.as_str()),
        None => entry,
    }
}
