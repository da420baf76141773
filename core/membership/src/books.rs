//! Names of accounts and of movements, and locks in the order that everybody takes them.

use crate::error::Error;
use heyuan_contract::{AnchorId, Line, MemberId, OrgUnitId, TransactionId};
use heyuan_kernel::{Tx, sql};
use heyuan_ledger::{Account, Book, Ledger};
use sea_orm::DbBackend;

/// The unit of spendable points.
pub(crate) const POINTS: &str = "points";
/// The unit of growth value.
pub(crate) const GROWTH: &str = "growth";
/// The unit in which lines settle.
pub(crate) const FEN: &str = "cny_fen";
/// The points centre's side of the settlement.
pub(crate) const CENTRE: &str = "centre/settlement";

/// What membership does to points and growth: the kind of a transfer. Each has its place in the clearing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Movement {
    /// A transaction's: its line issues them and owes their cost.
    Earn,
    /// The line where they are spent gets their cost.
    Spend,
    /// A spend is given back, into the lots that it took: that line gives the cost back.
    Return,
    /// A refund takes back: the issuer gets the cost.
    Refund,
    /// Past their expiry: the issuer gets the cost.
    Expire,
    /// A member left: the issuer gets the cost.
    Forfeit,
    /// Points pay what the member owes for points that were taken back after they were spent: the centre, which stood for them, keeps the cost.
    Recover,
    /// A balance from before the book: the line that issued it owes the cost.
    Open,
    /// From one member to another, lot by lot: nothing changes for any line.
    Transfer,
    /// People grant points or take them, under four eyes: the issuer owes the cost, or gets it.
    Adjust,
}

impl Movement {
    /// Every movement.
    pub(crate) const ALL: [Movement; 10] = [
        Movement::Earn,
        Movement::Spend,
        Movement::Return,
        Movement::Refund,
        Movement::Expire,
        Movement::Forfeit,
        Movement::Recover,
        Movement::Open,
        Movement::Transfer,
        Movement::Adjust,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Movement::Earn => "earn",
            Movement::Spend => "spend",
            Movement::Return => "return",
            Movement::Refund => "refund",
            Movement::Expire => "expire",
            Movement::Forfeit => "forfeit",
            Movement::Recover => "recover",
            Movement::Open => "open",
            Movement::Transfer => "transfer",
            Movement::Adjust => "adjust",
        }
    }

    /// The movement with this name, if membership makes it.
    pub(crate) fn parse(text: &str) -> Option<Movement> {
        Movement::ALL.into_iter().find(|movement| movement.as_str() == text)
    }
}

/// What a line's points were, on the line's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineAccount {
    Issued,
    Refunded,
    Expired,
    Forfeited,
    Opened,
    Spent,
    Adjusted,
    Growth,
    Settlement,
}

pub(crate) fn line_account(line: Line, account: LineAccount) -> String {
    let what = match account {
        LineAccount::Issued => "points_issued",
        LineAccount::Refunded => "points_refunded",
        LineAccount::Expired => "points_expired",
        LineAccount::Forfeited => "points_forfeited",
        LineAccount::Opened => "points_opened",
        LineAccount::Spent => "points_spent",
        LineAccount::Adjusted => "points_adjusted",
        LineAccount::Growth => "growth_issued",
        LineAccount::Settlement => "settlement",
    };
    format!("line/{line}/{what}")
}

/// Every account of the lines and the centre.
pub(crate) fn standing_accounts() -> Vec<Account> {
    let points = [
        LineAccount::Issued,
        LineAccount::Refunded,
        LineAccount::Expired,
        LineAccount::Forfeited,
        LineAccount::Opened,
        LineAccount::Spent,
        LineAccount::Adjusted,
    ];
    let mut accounts = vec![Account::striped(CENTRE, "centre", FEN)];
    for line in Line::ALL {
        accounts.extend(points.iter().map(|account| Account::striped(line_account(line, *account), line.as_str(), POINTS)));
        accounts.push(Account::striped(line_account(line, LineAccount::Growth), line.as_str(), GROWTH));
        accounts.push(Account::striped(line_account(line, LineAccount::Settlement), line.as_str(), FEN));
    }
    accounts
}

pub(crate) fn points_account(member: &MemberId) -> String {
    format!("member/{member}/points")
}

/// The member whose points an account holds, if it is such a one.
pub(crate) fn owner(account: &str) -> Option<&str> {
    account.strip_prefix("member/")?.strip_suffix("/points")
}

pub(crate) fn growth_account(member: &MemberId) -> String {
    format!("member/{member}/growth")
}

pub(crate) fn receivable_account(member: &MemberId) -> String {
    format!("member/{member}/points_receivable")
}

/// The accounts of one member.
pub(crate) fn member_accounts(member: &MemberId) -> Vec<Account> {
    vec![
        Account::lots(points_account(member), member.as_str(), POINTS),
        Account::plain(growth_account(member), member.as_str(), GROWTH, None),
        Account::plain(receivable_account(member), member.as_str(), POINTS, None),
    ]
}

/// The key of the transfer that opened a purchase's lot.
pub(crate) fn earn_key(unit: &OrgUnitId, id: &TransactionId) -> String {
    format!("transaction/{unit}/{id}/points")
}

/// The transaction that opened a lot, by the key of its transfer; `None` where it was another one.
pub(crate) fn earned_by(source: &str) -> Option<(OrgUnitId, TransactionId)> {
    let (unit, id) = source.strip_prefix("transaction/")?.strip_suffix("/points")?.split_once('/')?;
    Some((OrgUnitId::new(unit).ok()?, TransactionId::new(id).ok()?))
}

/// Enters the book of points, and lets one unit of work at a time deal with a purchase and its refunds, whether or not its row is there
/// yet: a refund that waits and the purchase that it waits for can't pass each other. The first lock that a unit takes.
pub(crate) async fn enter_purchase(ledger: &Ledger, tx: &Tx, unit: &OrgUnitId, id: &TransactionId) -> Result<Book, Error> {
    enter_purchases(ledger, tx, [(unit, id)]).await
}

/// The same for several purchases at once.
pub(crate) async fn enter_purchases(
    ledger: &Ledger,
    tx: &Tx,
    purchases: impl IntoIterator<Item = (&OrgUnitId, &TransactionId)>,
) -> Result<Book, Error> {
    let names: Vec<String> = purchases.into_iter().map(|(unit, id)| format!("membership/{unit}/{id}")).collect();
    Ok(ledger.enter_all_alone(tx, POINTS, &names).await?)
}

/// Lets one unit of work at a time make a member of a customer, whichever of the customer's anchors it was told: anchors that two
/// units share part them, also when one of the two saw the customer before others were merged into it.
pub(crate) async fn lock_anchors(tx: &Tx, anchors: &[AnchorId]) -> Result<(), Error> {
    if tx.conn().backend() == DbBackend::Postgres {
        // Ids hold no commas.
        let list = anchors.iter().map(AnchorId::as_str).collect::<Vec<_>>().join(",");
        let text = "SELECT pg_advisory_xact_lock(hashtextextended(l.anchor, 11))::text AS locked
                    FROM (SELECT a.anchor FROM unnest(string_to_array($1, ',')) AS a(anchor) ORDER BY a.anchor) AS l";
        sql::all(tx.conn(), text, [list.into()]).await?;
    }
    Ok(())
}
