//! Transactions of the lines as their systems report them: purchases and refunds, late, out of order and now and then twice.

use serde::Serialize;

use crate::Error;
use crate::calendar::Calendar;
use crate::draw::{Draw, Purpose};
use crate::faults::{Fault, Faults, taxed};
use crate::output::Sorted;
use crate::person::Person;
use crate::stamp::{DAY, HOUR, MINUTE, SECOND, Stamp};
use crate::world::App;

#[derive(Serialize)]
struct Transaction<'a> {
    id: &'a str,
    unit: &'static str,
    line: &'static str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_of: Option<&'a str>,
    occurred_at: Stamp,
    amount_fen: i64,
    currency: &'static str,
    identifiers: &'a [Known<'a>],
    lines: &'a [Item],
}

/// By what the cash desk knows the customer.
#[derive(Serialize)]
pub(crate) struct Known<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'static str>,
}

impl<'a> Known<'a> {
    pub(crate) fn email(person: &'a Person) -> Option<Self> {
        person.email().map(|value| Self { kind: "email", value, app: None })
    }
}

#[derive(Clone, Serialize)]
pub(crate) struct Item {
    pub(crate) sku: String,
    pub(crate) category: &'static str,
    pub(crate) quantity: i64,
    pub(crate) amount_fen: i64,
}

pub(crate) struct Sale<'a> {
    pub(crate) unit: &'static str,
    pub(crate) line: &'static str,
    pub(crate) at: i64,
    pub(crate) identifiers: Vec<Known<'a>>,
    pub(crate) items: Vec<Item>,
    pub(crate) refund_per_mille: u64,
}

/// What is reported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    /// A purchase that stays one.
    Kept,
    /// A purchase of which something will come back.
    BroughtBack,
    /// A refund of the purchase with this id.
    Refund(&'a str),
}

/// Writes `transactions.ndjson`.
pub(crate) struct Till {
    pub(crate) lines: Sorted,
    draw: Draw,
    end: i64,
    /// Where lines make mistakes.
    pub(crate) faults: Option<Faults>,
    pub(crate) purchases: u64,
    pub(crate) refunds: u64,
    pub(crate) resent: u64,
}

impl Till {
    pub(crate) fn new(seed: u64, lines: Sorted, calendar: &Calendar, faults: Option<Faults>) -> Self {
        Self { lines, draw: Draw::new(seed, Purpose::Tills), end: calendar.end, faults, purchases: 0, refunds: 0, resent: 0 }
    }

    pub(crate) fn id(&mut self) -> String {
        format!("txn-{}", self.draw.hexadecimal(18))
    }

    pub(crate) fn draw(&mut self) -> &mut Draw {
        &mut self.draw
    }

    /// Reports a sale under an id from [`Till::id`], with what becomes of it.
    pub(crate) fn sell(&mut self, id: &str, sale: &Sale<'_>) -> Result<(), Error> {
        let refunded = self.draw.chance(sale.refund_per_mille);
        // A cashier who strikes a sale out at once, while the day's sales are uploaded at night.
        let struck_out = refunded && self.draw.chance(90);
        let delay = match self.draw.below(1000) {
            _ if struck_out => self.draw.between(2 * HOUR, 9 * HOUR),
            0..930 => self.draw.between(SECOND, 4 * MINUTE),
            930..980 => self.draw.between(HOUR, 14 * HOUR),
            _ => self.draw.between(DAY, 8 * DAY),
        };
        self.purchases += 1;
        let what = if refunded { Kind::BroughtBack } else { Kind::Kept };
        self.report(id, what, sale, sale.at, delay, &sale.items)?;
        if !refunded {
            return Ok(());
        }
        let wait = if struck_out { self.draw.between(2 * MINUTE, HOUR) } else { self.draw.between(HOUR, 21 * DAY) };
        let (back, kept) = self.returned(&sale.items);
        self.refund(id, sale, sale.at + wait, &back)?;
        // Some bring the rest, too.
        if !kept.is_empty() && self.draw.chance(200) {
            let later = sale.at + wait + self.draw.between(HOUR, 9 * DAY);
            self.refund(id, sale, later, &kept)?;
        }
        Ok(())
    }

    fn refund(&mut self, purchase: &str, sale: &Sale<'_>, at: i64, items: &[Item]) -> Result<(), Error> {
        if at >= self.end {
            return Ok(());
        }
        self.refunds += 1;
        let id = self.id();
        let delay = if self.draw.chance(950) { self.draw.between(SECOND, 3 * MINUTE) } else { self.draw.between(HOUR, 6 * DAY) };
        self.report(&id, Kind::Refund(purchase), sale, at, delay, items)
    }

    fn report(&mut self, id: &str, what: Kind<'_>, sale: &Sale<'_>, at: i64, delay: i64, items: &[Item]) -> Result<(), Error> {
        let (kind, refund_of) = match what {
            Kind::Refund(purchase) => ("refund", Some(purchase)),
            Kind::Kept | Kind::BroughtBack => ("purchase", None),
        };
        let fault = match &mut self.faults {
            Some(faults) => faults.enter(id, kind, sale, at, items, what == Kind::BroughtBack)?,
            None => None,
        };
        let taxed = if fault == Some(Fault::WrongRate) { Some(taxed(items)) } else { None };
        let lines = taxed.as_deref().unwrap_or(items);
        let transaction = Transaction {
            id,
            unit: sale.unit,
            line: sale.line,
            kind,
            refund_of,
            occurred_at: Stamp::shanghai(at),
            amount_fen: lines.iter().map(|item| item.amount_fen).sum(),
            currency: "CNY",
            identifiers: &sale.identifiers,
            lines,
        };
        let arrived = (at + delay).min(self.end - 1);
        let resent = self.draw.chance(6).then(|| self.draw.between(SECOND, HOUR));
        if fault == Some(Fault::LostRefund) {
            return Ok(());
        }
        self.lines.push(arrived, &transaction)?;
        if let Some(wait) = resent {
            self.resent += u64::from(self.lines.repeat((arrived + wait).min(self.end - 1)));
        }
        if let Some(Fault::DoubleImport(twin)) = &fault {
            self.lines.push((arrived + HOUR).min(self.end - 1), &Transaction { id: twin, ..transaction })?;
        }
        Ok(())
    }

    /// What comes back and what is kept: everything, one of several lines, or some pieces of a line.
    fn returned(&mut self, items: &[Item]) -> (Vec<Item>, Vec<Item>) {
        if self.draw.chance(450) {
            return (items.to_vec(), Vec::new());
        }
        if items.len() > 1 {
            let place = self.draw.index(items.len());
            let kept = items.iter().enumerate().filter(|(index, _)| *index != place).map(|(_, item)| item.clone());
            return (vec![items[place].clone()], kept.collect());
        }
        let item = &items[0];
        if item.quantity < 2 {
            return (items.to_vec(), Vec::new());
        }
        let pieces = self.draw.between(1, item.quantity - 1);
        let amount_fen = item.amount_fen * pieces / item.quantity;
        let back = Item { quantity: pieces, amount_fen, ..item.clone() };
        let kept = Item { quantity: item.quantity - pieces, amount_fen: item.amount_fen - amount_fen, ..item.clone() };
        (vec![back], vec![kept])
    }
}

/// The identifiers of a person that a system of a line has at hand. Where a family shares the number, the member id is asked for as well.
pub(crate) fn known<'p>(draw: &mut Draw, person: &'p Person, at: i64, app: Option<App>, with_plate: bool) -> Vec<Known<'p>> {
    let mut identifiers = Vec::with_capacity(3);
    let plain = |kind, value| Known { kind, value, app: None };
    if with_plate {
        identifiers.extend(person.plate().map(|plate| plain("plate", plate)));
        if identifiers.len() == 1 && draw.chance(700) {
            return identifiers;
        }
    }
    let by_member = person.shares_phone || draw.chance(600);
    if by_member {
        identifiers.extend(person.member().map(|member| plain("member", member)));
    }
    if identifiers.len() <= usize::from(with_plate) || draw.chance(250) {
        identifiers.extend(person.phone(at).map(|phone| plain("phone", phone)));
    }
    if let Some(app) = app
        && draw.chance(160)
        && let Some(openid) = person.openid(app)
    {
        identifiers.push(Known { kind: "openid", value: openid, app: Some(app.name()) });
    }
    identifiers
}
