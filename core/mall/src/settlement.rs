//! Revenue share (分账): what a merchant has coming from its sales, posted in the ledger and told in a statement a month.

use crate::error::{Error, corrupt};
use crate::mall::Mall;
use crate::proration::commission;
use crate::records::Order;
use crate::refunds::Refund;
use heyuan_contract::{Fen, MerchantId, Timestamp};
use heyuan_kernel::{Actor, Problem, Scope, Tx, sql};
use heyuan_ledger::{Account, Lots, Period, Transfer};

/// The ledger's unit of money.
const UNIT: &str = "cny_fen";
/// What the payment gateway holds of ours.
const GATEWAY: &str = "gateway/cny_fen";

/// What the points centre owes for points that paid orders.
const CENTRE: &str = "centre/cny_fen";

/// A merchant's month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The merchant.
    pub merchant: MerchantId,
    /// `2026-11`, in the tenant's time zone, by when the mall heard of payment or refund: a past month never changes.
    pub period: String,
    /// Orders paid.
    pub sales: i64,
    /// What was paid for them, in money and with points.
    pub sales_amount: Fen,
    /// Refunds made.
    pub refunds: i64,
    /// What was given back, of money and points.
    pub refunds_amount: Fen,
    /// What the mall keeps, after refunds.
    pub commission: Fen,
    /// What the merchant has coming for the month: sales less refunds less commission.
    pub payable: Fen,
    /// What it has coming in all, as the ledger holds it now.
    pub balance: Fen,
}

/// A figure of the book: positive for a sale, negative for a refund.
struct Entry<'a> {
    id: &'a str,
    kind: &'static str,
    /// Money, and what points paid.
    amount: Fen,
    /// Of it what points paid.
    points: Fen,
    commission: Fen,
    at: Timestamp,
}

impl Mall {
    pub(crate) async fn settle_sale(&self, tx: &Tx, order: &Order) -> Result<(), Error> {
        let commission = commission(order.worth(), order.commission_rate)?;
        let (amount, points) = (order.worth(), order.by_points.fen);
        let entry = Entry { id: order.id.as_str(), kind: "sale", amount, points, commission, at: self.kernel.clock.now() };
        self.settle(tx, order, &entry).await
    }

    /// Takes back the commission's difference between what was kept before and after, so that it is right after any refunds.
    pub(crate) async fn settle_refund(&self, tx: &Tx, order: &Order, refund: &Refund) -> Result<(), Error> {
        let kept = Fen(order.worth().0 - order.refunded.0 - order.points_refunded().fen.0);
        let back = refund.amount.0 + refund.by_points.fen.0;
        let before = commission(kept, order.commission_rate)?;
        let after = commission(Fen(kept.0 - back), order.commission_rate)?;
        let entry = Entry {
            id: &refund.id,
            kind: "refund",
            amount: Fen(-back),
            points: Fen(-refund.by_points.fen.0),
            commission: Fen(after.0 - before.0),
            at: refund.refunded_at,
        };
        self.settle(tx, order, &entry).await
    }

    async fn settle(&self, tx: &Tx, order: &Order, entry: &Entry<'_>) -> Result<(), Error> {
        sql::execute(
            tx.conn(),
            "INSERT INTO mall_settlement (id, merchant, order_id, kind, amount, commission, settled_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                entry.id.into(),
                order.merchant.as_str().into(),
                order.id.as_str().into(),
                entry.kind.into(),
                entry.amount.0.into(),
                entry.commission.0.into(),
                entry.at.ms().into(),
            ],
        )
        .await?;
        let merchant = merchant_account(&order.merchant);
        let mall = format!("unit/{}/commission/cny_fen", order.unit);
        let parts = [
            (merchant, order.merchant.as_str(), "share", entry.amount.0 - entry.commission.0),
            (mall, order.unit.as_str(), "commission", entry.commission.0),
            // The gateway holds no money for what points paid: the points centre owes it.
            (CENTRE.to_owned(), "centre", "points", -entry.points.0),
        ];
        let mut accounts = vec![Account::striped(GATEWAY, "gateway", UNIT)];
        let mut transfers = Vec::new();
        for (account, owner, part, amount) in parts {
            if amount != 0 {
                let (debit, credit) =
                    if amount > 0 { (GATEWAY.to_owned(), account.clone()) } else { (account.clone(), GATEWAY.to_owned()) };
                accounts.push(Account::striped(account, owner, UNIT));
                transfers.push(Transfer {
                    key: format!("mall/{}/{}/{part}", entry.kind, entry.id),
                    unit: UNIT.into(),
                    debit,
                    credit,
                    amount: amount.abs(),
                    occurred_at: entry.at,
                    period: Period::of(&self.kernel.zone, entry.at),
                    kind: entry.kind.into(),
                    reference: order.id.to_string(),
                    lots: Lots::None,
                });
            }
        }
        if transfers.is_empty() {
            return Ok(());
        }
        self.ledger.open(tx, &accounts).await.map_err(in_book)?;
        self.ledger.post(tx, &transfers).await.map_err(in_book)?;
        Ok(())
    }

    /// A merchant's statement of a month.
    ///
    /// # Errors
    /// `invalid_request` for a period that is no month, `not_found`, `forbidden`.
    pub async fn statement(&self, actor: &Actor, merchant: &MerchantId, period: &str) -> Result<Statement, Error> {
        actor.require(Scope::Admin)?;
        self.merchant(actor, merchant).await?;
        let month = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        let first = heyuan_kernel::time::parse_day("period", &format!("{month}-01"))?;
        let next = first.last_of_month().tomorrow().map_err(|_| Problem::invalid("period", "expected a month before 9999-12"))?;
        let (from, until) = (self.kernel.zone.day_start(first), self.kernel.zone.day_start(next));
        let text = "SELECT kind, COUNT(*) AS entries, CAST(SUM(amount) AS BIGINT) AS amount, CAST(SUM(commission) AS BIGINT) AS commission
                    FROM mall_settlement WHERE merchant = $1 AND settled_at >= $2 AND settled_at < $3 GROUP BY kind";
        let rows = sql::all(self.kernel.db.reader(), text, [merchant.as_str().into(), from.ms().into(), until.ms().into()]).await?;
        let mut statement = Statement {
            merchant: merchant.clone(),
            period: month.to_string(),
            sales: 0,
            sales_amount: Fen(0),
            refunds: 0,
            refunds_amount: Fen(0),
            commission: Fen(0),
            payable: Fen(0),
            balance: self.balance_of(merchant).await?,
        };
        for row in &rows {
            let (entries, amount, commission): (i64, i64, i64) =
                (sql::get(row, "entries")?, sql::get(row, "amount")?, sql::get(row, "commission")?);
            if sql::get::<String>(row, "kind")? == "sale" {
                (statement.sales, statement.sales_amount) = (entries, Fen(amount));
            } else {
                (statement.refunds, statement.refunds_amount) = (entries, Fen(-amount));
            }
            statement.commission = Fen(statement.commission.0 + commission);
            statement.payable = Fen(statement.payable.0 + amount - commission);
        }
        Ok(statement)
    }

    async fn balance_of(&self, merchant: &MerchantId) -> Result<Fen, Error> {
        match self.ledger.balance(&merchant_account(merchant)).await {
            Ok(balance) => Ok(Fen(balance.balance)),
            // The account is opened by the first sale.
            Err(heyuan_ledger::Error::UnknownAccount(_)) => Ok(Fen(0)),
            Err(error) => Err(in_book(error)),
        }
    }
}

fn merchant_account(merchant: &MerchantId) -> String {
    format!("merchant/{merchant}/cny_fen")
}

fn in_book(error: heyuan_ledger::Error) -> Error {
    match error {
        heyuan_ledger::Error::Kernel(error) => Error::Kernel(error),
        other => corrupt("settlement", other),
    }
}
