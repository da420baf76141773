//! Being told by the provider that somebody has logged out there (OpenID Connect Back-Channel Logout 1.0): the sessions that came of it end.

use super::{StaffLogin, id_of};
use crate::log_out_token::LogOutClaims;
use crate::provider::Failure;
use crate::refusal::Refusal;
use futures::FutureExt;
use heyuan_contract::{StaffId, Timestamp};
use heyuan_kernel::keys::{Credentials, STAFF_LIFE_MS};
use heyuan_kernel::{Actor, Error, Problem, Tx, sql};
use std::sync::Arc;

/// Why a session ended, in the audit record.
const WHY: &str = "the provider told of a log-out";

/// A log-out as it is written down.
struct LogOut {
    /// A keyed hash of the token's own name, and until when it is remembered.
    token: String,
    old_at: i64,
    /// Whose, and of which session there; at least one of the two.
    subject: Option<String>,
    origin: Option<String>,
    /// When it was told, in seconds by the provider's clock.
    at_s: i64,
}

impl StaffLogin {
    /// Takes a log-out token, once in all processes, and ends the sessions that it means: those that came of one session at the provider, or all
    /// of a person. This process refuses their tokens at once, every other within five seconds. Nothing to end is fine.
    ///
    /// # Errors
    /// `staff_login_not_set_up`; `log_out_token_refused`; `unavailable` while the provider's keys can't be asked for.
    pub async fn hear_log_out(&self, token: &str) -> Result<(), Problem> {
        let claims = match self.provider()?.told(token).await {
            Ok(claims) => claims,
            Err(Failure::Away(problem)) => return Err(problem),
            Err(Failure::Disbelieved(refusal)) => return self.disbelieve(refusal).await,
        };
        let log_out = Arc::new(self.told(&claims)?);
        let (credentials, now) = (self.credentials().clone(), self.parts.kernel.clock.now());
        let heard = self.parts.kernel.db.write("log staff out as told", move |tx| {
            let (credentials, log_out) = (credentials.clone(), log_out.clone());
            async move { log_out_in(tx, &credentials, &log_out, now).await }.boxed()
        });
        match heard.await? {
            Heard::Before => self.disbelieve(Refusal::Seen).await,
            Heard::OfNobody => Ok(()),
            Heard::Of(staff) => {
                self.credentials().forget_staff(&staff);
                Ok(())
            }
        }
    }

    async fn disbelieve(&self, refusal: Refusal) -> Result<(), Problem> {
        self.parts.refused_log_outs.record(None, refusal.reason()).await?;
        Err(refusal.of_log_out())
    }

    fn told(&self, claims: &LogOutClaims) -> Result<LogOut, Problem> {
        let issuer = &self.provider()?.settings.issuer;
        let token = self.parts.kernel.keys.lookup().mac(&[b"staff log-out", issuer.as_bytes(), claims.id().as_bytes()]);
        Ok(LogOut {
            token: hex::encode(token),
            old_at: claims.old_at_s().saturating_mul(1000),
            subject: claims.subject().map(|name| self.subject(name)).transpose()?,
            origin: claims.session().map(|name| self.origin(name)).transpose()?,
            at_s: claims.issued.at_s(),
        })
    }
}

/// Whom a log-out was of.
enum Heard {
    /// The token came before.
    Before,
    /// Nobody whom we know.
    OfNobody,
    Of(StaffId),
}

async fn log_out_in(tx: &Tx, credentials: &Credentials, log_out: &LogOut, now: Timestamp) -> Result<Heard, Error> {
    let text = "INSERT INTO staff_seen_log_out (token, expires_at) VALUES ($1, $2) ON CONFLICT (token) DO NOTHING";
    if sql::execute(tx.conn(), text, [log_out.token.as_str().into(), log_out.old_at.into()]).await? == 0 {
        return Ok(Heard::Before);
    }
    let person = match (&log_out.subject, &log_out.origin) {
        (Some(subject), None) => leave(tx, subject, log_out.at_s).await?,
        (Some(subject), Some(origin)) => {
            end(tx, origin, now).await?;
            let text = "SELECT id FROM staff_person WHERE subject = $1";
            sql::one(tx.conn(), text, [subject.as_str().into()]).await?.as_ref().map(id_of).transpose()?
        }
        (None, Some(origin)) => end(tx, origin, now).await?,
        (None, None) => None,
    };
    let Some(person) = person else { return Ok(Heard::OfNobody) };
    credentials.end_staff_sessions_of(tx, &Actor::system("staff"), &person, log_out.origin.as_deref(), WHY).await?;
    Ok(Heard::Of(person))
}

/// Notes that a person has logged out of everything, and holds the row: who is logging in at this moment is waited for, or finds the note.
async fn leave(tx: &Tx, subject: &str, at_s: i64) -> Result<Option<StaffId>, Error> {
    let text = "UPDATE staff_person SET logged_out_at = CASE WHEN logged_out_at > $2 THEN logged_out_at ELSE $2 END
                WHERE subject = $1 RETURNING id";
    sql::one(tx.conn(), text, [subject.into(), at_s.into()]).await?.as_ref().map(id_of).transpose()
}

/// Notes that a session at the provider has ended, in the same way; answers whose it was, if one of ours came of it.
async fn end(tx: &Tx, origin: &str, now: Timestamp) -> Result<Option<StaffId>, Error> {
    let text = "INSERT INTO staff_provider_session (id, staff, ended_at, expires_at) VALUES ($1, NULL, $2, $3)
                ON CONFLICT (id) DO UPDATE SET ended_at = $2, expires_at = $3 RETURNING staff AS id";
    let values = [origin.into(), now.ms().into(), now.plus_ms(STAFF_LIFE_MS).ms().into()];
    let Some(row) = sql::one(tx.conn(), text, values).await? else { return Ok(None) };
    if sql::get::<Option<String>>(&row, "id")?.is_none() { Ok(None) } else { id_of(&row).map(Some) }
}

/// Notes whose a session at the provider is, of which one of ours comes now; answers whether it has ended.
pub(super) async fn came_of(tx: &Tx, origin: &str, staff: &StaffId, now: Timestamp) -> Result<bool, Error> {
    let text = "INSERT INTO staff_provider_session (id, staff, ended_at, expires_at) VALUES ($1, $2, NULL, $3)
                ON CONFLICT (id) DO UPDATE SET staff = $2, expires_at = $3 RETURNING ended_at";
    let values = [origin.into(), staff.as_str().into(), now.plus_ms(STAFF_LIFE_MS).ms().into()];
    let Some(row) = sql::one(tx.conn(), text, values).await? else { return Ok(false) };
    Ok(sql::get::<Option<i64>>(&row, "ended_at")?.is_some())
}
