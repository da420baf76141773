//! Members' sessions as seen from outside: refreshed, logged out of, listed, called back.

use crate::error::Error;
use crate::facade::Membership;
use crate::login;
use crate::member;
use futures::FutureExt;
use heyuan_contract::MemberId;
use heyuan_kernel::keys::{Session, Tokens};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Actor, Scope};

/// Sessions, codes or counts of one sweep.
const SWEEP_ROWS: u64 = 500;

impl Membership {
    /// Gives the next tokens of a session for its refresh token, once.
    ///
    /// # Errors
    /// `forbidden` without a key of scope `ingest` or `app`; `refresh_refused`.
    pub async fn refresh(&self, actor: &Actor, refresh: &str) -> Result<Tokens, Error> {
        actor.require_any(&[Scope::Ingest, Scope::App])?;
        Ok(self.credentials().refresh(actor, refresh).await?)
    }

    /// Ends the session of a refresh token; one that is over already stays over.
    ///
    /// # Errors
    /// `forbidden` without a key of scope `ingest` or `app`, or a member's token.
    pub async fn log_out(&self, actor: &Actor, refresh: &str) -> Result<(), Error> {
        if actor.as_member().is_none() {
            actor.require_any(&[Scope::Ingest, Scope::App])?;
        }
        Ok(self.credentials().log_out(actor, refresh).await?)
    }

    /// The sessions of a member, for the member itself or for staff.
    ///
    /// # Errors
    /// `forbidden`; `unknown_member`.
    pub async fn sessions(&self, actor: &Actor, id: &MemberId) -> Result<Vec<Session>, Error> {
        self.check_own_or_staff(actor, id).await?;
        Ok(self.credentials().sessions(id).await?)
    }

    /// Ends one session of a member or, without a name, all of them: by the member itself or by staff.
    ///
    /// # Errors
    /// `forbidden`; `unknown_member`; `not_found` for a session that the member does not have.
    pub async fn end_sessions(&self, actor: &Actor, id: &MemberId, one: Option<&str>) -> Result<(), Error> {
        self.check_own_or_staff(actor, id).await?;
        Ok(self.credentials().revoke_sessions(actor, id, one).await?)
    }

    async fn check_own_or_staff(&self, actor: &Actor, id: &MemberId) -> Result<(), Error> {
        actor.require_for_member(Scope::Admin, id)?;
        let row = member::find(self.kernel().db.near(), id).await?.ok_or_else(|| member::unknown(id))?;
        if actor.reach().covers(&row.unit) { Ok(()) } else { Err(member::unknown(id)) }
    }

    /// Removes a batch of sessions, codes and counts that have ended; answers how many. A processor brings its fence.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep_logins(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        if !self.credentials().sessions_to_sweep().await? && !login::codes_to_sweep(self.kernel()).await? {
            return Ok(0);
        }
        let (membership, fence) = (self.clone(), fence.cloned());
        let swept = self
            .kernel()
            .db
            .write("sweep log-ins", move |tx| {
                let (membership, fence) = (membership.clone(), fence.clone());
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    let sessions = membership.credentials().sweep_sessions(tx, SWEEP_ROWS).await?;
                    Ok::<u64, Error>(sessions + login::sweep_codes(membership.kernel(), tx, SWEEP_ROWS).await?)
                }
                .boxed()
            })
            .await?;
        Ok(usize::try_from(swept).unwrap_or(usize::MAX))
    }
}
