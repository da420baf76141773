//! Accounts of lines (a hotel card, a property account) that belong to one member.

use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member;
use futures::FutureExt;
use heyuan_contract::{Line, MemberId, OrgUnitId, PersonalRef, Timestamp};
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Personal, Problem, Scope, Tx, Vault, audit, sql};

/// What is read of a row of `membership_account`.
const COLUMNS: &str = "member, line, unit, ref, hash, linked_at";

/// Longest number of an account, in bytes.
const ACCOUNT_BYTES_MAX: usize = 100;

/// A line's account to link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The line.
    pub line: Line,
    /// The line's own number; personal, it goes to the vault.
    pub account: String,
    /// A unit of the line: who says that the account is the member's.
    pub unit: OrgUnitId,
}

/// A line's account of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The line.
    pub line: Line,
    /// The number with its middle hidden, or whole when it was revealed.
    pub account: String,
    /// The unit that linked it.
    pub unit: OrgUnitId,
    /// When.
    pub linked_at: Timestamp,
}

struct LinkRow {
    member: String,
    line: Line,
    unit: OrgUnitId,
    reference: PersonalRef,
    hash: Vec<u8>,
    linked_at: Timestamp,
}

impl LinkRow {
    fn view(self, account: String) -> LinkView {
        LinkView { line: self.line, account, unit: self.unit, linked_at: self.linked_at }
    }
}

impl Membership {
    /// Links a line's account to a member; another number of the same line takes the place of the one before, for a key that reaches the
    /// unit that linked that one.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_member`, `member_closed`, `member_blocked`; `account_taken` when another member has it,
    /// `account_elsewhere` when the one before is another unit's.
    pub async fn link(&self, actor: &Actor, id: &MemberId, link: &Link) -> Result<LinkView, Error> {
        actor.require(Scope::App)?;
        if self.line_of(actor, &link.unit).await? != link.line {
            return Err(Problem::invalid("unit", format!("expected a unit of the line {}", link.line)).into());
        }
        let account = link.account.trim();
        if !is_line(account, ACCOUNT_BYTES_MAX) {
            return Err(Problem::invalid("account", format!("expected the line's own number, 1 to {ACCOUNT_BYTES_MAX} bytes")).into());
        }
        let link = Link { account: account.to_owned(), ..link.clone() };
        self.kernel()
            .db
            .settle(|| async {
                let (membership, actor, id, link) = (self.clone(), actor.clone(), id.clone(), link.clone());
                self.kernel()
                    .db
                    .write("link an account", move |tx| {
                        let (membership, actor, id, link) = (membership.clone(), actor.clone(), id.clone(), link.clone());
                        async move { membership.write_link(tx, &actor, &id, &link).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_link(&self, tx: &Tx, actor: &Actor, id: &MemberId, link: &Link) -> Result<LinkView, Error> {
        member::lock(tx, id).await?;
        let kernel = self.kernel();
        let hash = kernel.vault.lookup_hash(&format!("account@{}", link.line), &link.account).to_vec();
        let masked = Personal::Identifier.mask(&link.account);
        let text = format!(
            "SELECT {COLUMNS} FROM membership_account WHERE line = $1 AND (hash = $2 OR member = $3) ORDER BY linked_at, member LIMIT 2"
        );
        let rows = sql::all(tx.conn(), &text, [link.line.as_str().into(), hash.clone().into(), id.as_str().into()]).await?;
        let rows = rows.iter().map(read).collect::<Result<Vec<LinkRow>, Error>>()?;
        if rows.iter().any(|row| row.member != id.as_str()) {
            let words = format!("this account of the line {} belongs to another member; unlink it there first", link.line);
            return Err(Problem::new(codes::ACCOUNT_TAKEN, words).field("account").into());
        }
        let before = rows.into_iter().next();
        if let Some(known) = &before {
            if known.hash == hash {
                return Ok(LinkView { line: known.line, account: masked, unit: known.unit.clone(), linked_at: known.linked_at });
            }
            if !actor.reach().covers(&known.unit) {
                let words = format!(
                    "a unit out of this key's reach linked the member's account of the line {}; it has to be unlinked there",
                    link.line
                );
                return Err(Problem::new(codes::ACCOUNT_ELSEWHERE, words).field("account").into());
            }
            remove(kernel, tx, known).await?;
        }
        let reference = kernel.vault.seal(tx, id.as_str(), Personal::Identifier, &link.account).await?;
        let now = kernel.clock.now();
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_account (member, line, unit, ref, hash, linked_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            [
                id.as_str().into(),
                link.line.as_str().into(),
                link.unit.as_str().into(),
                reference.as_str().into(),
                hash.into(),
                now.ms().into(),
            ],
        )
        .await?;
        if inserted == 0 {
            return Err(heyuan_kernel::Error::Stale("whose account it is").into());
        }
        let entry = audit::Entry::new(actor, "link account", id.as_str()).detail("line", link.line.as_str());
        let entry = match &before {
            Some(known) => entry.detail("replaces_one_of", known.unit.as_str()),
            None => entry,
        };
        audit::record(tx, &entry).await?;
        Ok(LinkView { line: link.line, account: masked, unit: link.unit.clone(), linked_at: now })
    }

    /// The accounts of a member, one a line at most, their numbers masked: all for a key that reaches the member, else those of units within
    /// reach.
    ///
    /// # Errors
    /// `forbidden`; `unknown_member`.
    pub async fn links(&self, actor: &Actor, id: &MemberId) -> Result<Vec<LinkView>, Error> {
        actor.require_for_member(Scope::App, id)?;
        let visible = self.visible_member(actor, id).await.map(drop);
        let mut views = Vec::new();
        for row in self.link_rows(actor, id, visible).await? {
            // Unlinked since the list was read.
            let Some(account) = self.kernel().vault.masked(&row.reference).await? else { continue };
            views.push(row.view(account));
        }
        Ok(views)
    }

    /// The same with whole numbers, for a key with the scope `reveal` that says why; each number is audited before it is answered.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` without a reason; `unknown_member`; `erased` for one that was unlinked meanwhile.
    pub async fn reveal_links(&self, actor: &Actor, id: &MemberId, reason: &str) -> Result<Vec<LinkView>, Error> {
        Vault::check_reveal(actor, reason)?;
        let member = member::find(self.kernel().db.near(), id).await?.filter(|member| actor.reach().covers(&member.unit));
        let visible = member.map(drop).ok_or_else(|| member::unknown(id));
        let mut views = Vec::new();
        for row in self.link_rows(actor, id, visible).await? {
            let account = self.kernel().vault.reveal(actor, &row.reference, reason).await?;
            views.push(row.view(account));
        }
        Ok(views)
    }

    /// All accounts of a member that the actor sees, else those of units within its reach, if there are any.
    async fn link_rows(&self, actor: &Actor, id: &MemberId, visible: Result<(), Error>) -> Result<Vec<LinkRow>, Error> {
        let text = format!("SELECT {COLUMNS} FROM membership_account WHERE member = $1 ORDER BY line");
        let rows = sql::all(self.kernel().db.near(), &text, [id.as_str().into()]).await?;
        let rows = rows.iter().map(read).collect::<Result<Vec<LinkRow>, Error>>()?;
        let rows: Vec<LinkRow> = rows.into_iter().filter(|row| visible.is_ok() || actor.reach().covers(&row.unit)).collect();
        if rows.is_empty() || actor.as_member().is_some() {
            visible?;
        }
        Ok(rows)
    }

    /// Takes a line's account away from a member and destroys what was kept of its number: by a key that reaches the unit that linked
    /// it, or by the member itself.
    ///
    /// # Errors
    /// `forbidden`; `not_found` when the member has none of this line that the key reaches.
    pub async fn unlink(&self, actor: &Actor, id: &MemberId, line: Line) -> Result<(), Error> {
        actor.require_for_member(Scope::App, id)?;
        if actor.as_member().is_some() {
            self.visible_member(actor, id).await?;
        }
        let (membership, actor, id) = (self.clone(), actor.clone(), id.clone());
        self.kernel()
            .db
            .write("unlink an account", move |tx| {
                let (membership, actor, id) = (membership.clone(), actor.clone(), id.clone());
                async move {
                    let none = || Error::from(Problem::not_found("account of the line", line));
                    let text = format!("SELECT {COLUMNS} FROM membership_account WHERE member = $1 AND line = $2");
                    let row = sql::one(tx.conn(), &text, [id.as_str().into(), line.as_str().into()]).await?;
                    let row = row.as_ref().map(read).transpose()?.filter(|row| actor.reach().covers(&row.unit)).ok_or_else(none)?;
                    // Of two who unlink at once, one finds it.
                    if remove(membership.kernel(), tx, &row).await? == 0 {
                        return Err(none());
                    }
                    let entry = audit::Entry::new(&actor, "unlink account", id.as_str()).detail("line", line.as_str());
                    Ok(audit::record(tx, &entry).await?)
                }
                .boxed()
            })
            .await
    }
}

fn read(row: &sql::Row) -> Result<LinkRow, Error> {
    let line: String = sql::get(row, "line")?;
    let corrupt = |e: heyuan_contract::InvalidId| member::corrupt("linked account", e);
    Ok(LinkRow {
        member: sql::get(row, "member")?,
        line: Line::parse(&line).ok_or_else(|| member::corrupt("linked account", line))?,
        unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(corrupt)?,
        reference: PersonalRef::new(sql::get::<String>(row, "ref")?).map_err(corrupt)?,
        hash: sql::get(row, "hash")?,
        linked_at: Timestamp::clamped(sql::get(row, "linked_at")?),
    })
}

async fn remove(kernel: &Kernel, tx: &Tx, row: &LinkRow) -> Result<u64, Error> {
    kernel.vault.forget(tx, &row.reference).await?;
    let text = "DELETE FROM membership_account WHERE member = $1 AND line = $2 AND ref = $3";
    let values = [row.member.as_str().into(), row.line.as_str().into(), row.reference.as_str().into()];
    Ok(sql::execute(tx.conn(), text, values).await?)
}

/// Ends every account of a member that leaves: the numbers and the key that sealed them are destroyed.
pub(crate) async fn unlink_all(kernel: &Kernel, tx: &Tx, id: &MemberId) -> Result<(), Error> {
    sql::execute(tx.conn(), "DELETE FROM membership_account WHERE member = $1", [id.as_str().into()]).await?;
    Ok(kernel.vault.erase(tx, &[id.as_str().to_owned()]).await?)
}
