//! Whether a member may earn and spend: open, blocked by staff, or over.

use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, MemberRow};
use futures::FutureExt;
use heyuan_contract::MemberId;
use heyuan_kernel::keys::end_sessions;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Problem, Scope, Tx, audit, sql};

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// Earns and spends.
    Open,
    /// On the blacklist: neither earns nor spends; what it bought can still be refunded.
    Blocked,
    /// It left, was closed, or its person was erased.
    Closed,
}

impl MemberState {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            MemberState::Open => "open",
            MemberState::Blocked => "blocked",
            MemberState::Closed => "closed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<MemberState> {
        [MemberState::Open, MemberState::Blocked, MemberState::Closed].into_iter().find(|state| state.as_str() == text)
    }
}

/// Checks why staff does something to a member; the words go into the audit record.
pub(crate) fn check_reason(reason: &str) -> Result<(), Problem> {
    if reason.trim().is_empty() || !is_line(reason, REASON_BYTES_MAX) {
        return Err(Problem::invalid("reason", format!("expected why, in 1 to {REASON_BYTES_MAX} bytes of text without personal data")));
    }
    Ok(())
}

impl Membership {
    /// Puts a member on the blacklist: it neither earns nor spends, its sessions end, and its customer can't join past it. One that is there
    /// stays there. Answers the state alone: who may block need not be who may read.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_member`, `member_closed`.
    pub async fn block(&self, actor: &Actor, id: &MemberId, reason: &str) -> Result<MemberState, Error> {
        self.set_blocked(actor, id, reason, MemberState::Blocked).await
    }

    /// Takes a member off the blacklist.
    ///
    /// # Errors
    /// As [`Membership::block`].
    pub async fn unblock(&self, actor: &Actor, id: &MemberId, reason: &str) -> Result<MemberState, Error> {
        self.set_blocked(actor, id, reason, MemberState::Open).await
    }

    async fn set_blocked(&self, actor: &Actor, id: &MemberId, reason: &str, to: MemberState) -> Result<MemberState, Error> {
        self.staffs_member(actor, id).await?;
        check_reason(reason)?;
        let action = if to == MemberState::Blocked { "block member" } else { "unblock member" };
        let entry = audit::Entry::new(actor, action, id.as_str()).detail("reason", reason);
        let written = id.clone();
        self.kernel()
            .db
            .write(action, move |tx| {
                let (id, entry) = (written.clone(), entry.clone());
                async move { write_state(tx, &id, to, &entry).await }.boxed()
            })
            .await?;
        self.credentials().forget_sessions(id);
        Ok(to)
    }

    /// A member that staff may change: within the key's reach.
    pub(crate) async fn staffs_member(&self, actor: &Actor, id: &MemberId) -> Result<MemberRow, Error> {
        actor.require(Scope::Admin)?;
        let row = member::find(self.kernel().db.near(), id).await?.ok_or_else(|| member::unknown(id))?;
        if actor.reach().covers(&row.unit) { Ok(row) } else { Err(member::unknown(id)) }
    }
}

async fn write_state(tx: &Tx, id: &MemberId, to: MemberState, entry: &audit::Entry) -> Result<(), Error> {
    let row = member::lock_any(tx, id).await?;
    if row.state == MemberState::Closed {
        return Err(Error::refused(codes::MEMBER_CLOSED, format!("member {id} has left")));
    }
    if row.state == to {
        return Ok(());
    }
    sql::execute(tx.conn(), "UPDATE membership_member SET state = $2 WHERE id = $1", [id.as_str().into(), to.as_str().into()]).await?;
    if to == MemberState::Blocked {
        end_sessions(tx, id).await?;
    }
    Ok(audit::record(tx, entry).await?)
}
