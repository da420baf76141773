//! The arithmetic of a posting: what a batch of transfers does to accounts and lots, in memory, before anything is written.
//!
//! A transfer that does not fit is refused alone and leaves no trace, so that one statement can post what many callers sent.

use crate::account::{Row, Shape};
use crate::error::Error;
use crate::lot::{LotRow, SpentRow};
use crate::transfer::{LotPart, LotUse, Lots, NewLot, Transfer};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Largest amount of one transfer: a hundred billion yuan in fen, far from what overflows a balance.
pub const AMOUNT_MAX: i64 = 10_000_000_000_000;

/// What one transfer will be in the book.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub(crate) debit: Side,
    pub(crate) credit: Side,
    pub(crate) moves: Vec<Move>,
}

/// One entry: the account, and for one that is not striped its version and balance after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    pub(crate) account: i64,
    pub(crate) version: Option<i64>,
    pub(crate) balance: Option<i64>,
}

/// What a transfer does to one lot; a lot that the batch opens has a negative number until it is written.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) lot: i64,
    pub(crate) amount: i64,
    pub(crate) restores: Option<i64>,
    pub(crate) used: LotUse,
}

/// A batch under work.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    accounts: HashMap<String, Row>,
    lots: HashMap<i64, LotRow>,
    by_source: HashMap<String, i64>,
    by_account: HashMap<i64, BTreeSet<(i64, i64)>>,
    spent: HashMap<String, Vec<SpentRow>>,
    /// Accounts whose row changes.
    pub(crate) moved: BTreeSet<String>,
    /// Lots whose row changes.
    pub(crate) drawn: BTreeSet<i64>,
    /// Lots to open, the first one under number -1.
    pub(crate) opened: Vec<LotRow>,
    /// Movement of striped accounts by account and period: debits, credits.
    pub(crate) stripes: BTreeMap<(i64, i64), (i64, i64)>,
}

impl Draft {
    pub(crate) fn new(accounts: Vec<Row>, lots: Vec<LotRow>, spent: Vec<SpentRow>) -> Draft {
        let mut draft = Draft { accounts: accounts.into_iter().map(|row| (row.id.clone(), row)).collect(), ..Draft::default() };
        for lot in lots {
            draft.keep(lot);
        }
        for row in spent {
            draft.spent.entry(row.key.clone()).or_default().push(row);
        }
        draft
    }

    pub(crate) fn account(&self, id: &str) -> Option<&Row> {
        self.accounts.get(id)
    }

    pub(crate) fn lot(&self, number: i64) -> Option<&LotRow> {
        self.lots.get(&number)
    }

    fn keep(&mut self, lot: LotRow) {
        self.by_source.insert(lot.source.clone(), lot.no);
        self.by_account.entry(lot.account).or_default().insert((lot.expires_at.ms(), lot.no));
        self.lots.insert(lot.no, lot);
    }

    /// Takes a transfer into the batch, or refuses it alone.
    pub(crate) fn add(&mut self, transfer: &Transfer) -> Result<Drafted, Error> {
        if transfer.amount <= 0 || transfer.amount > AMOUNT_MAX {
            return Err(Error::Amount(transfer.key.clone()));
        }
        let debit = self.known(&transfer.debit)?.clone();
        let credit = self.known(&transfer.credit)?.clone();
        if debit.unit != transfer.unit || credit.unit != transfer.unit || debit.no == credit.no {
            return Err(Error::UnitMismatch(transfer.key.clone()));
        }
        self.check_shapes(transfer, &debit, &credit)?;
        let overflow = || Error::Amount(transfer.key.clone());
        let fallen = debit.balance.checked_sub(transfer.amount).ok_or_else(overflow)?;
        let risen = credit.balance.checked_add(transfer.amount).ok_or_else(overflow)?;
        if debit.floor.is_some_and(|floor| i128::from(fallen) - i128::from(debit.reserved) < i128::from(floor)) {
            return Err(Error::NotEnough { account: debit.id.clone(), amount: transfer.amount });
        }
        // The last step that can refuse; from here on everything is taken.
        let moves = self.move_lots(transfer, &debit, &credit)?;
        let sides = (self.step(&debit, fallen, transfer, false), self.step(&credit, risen, transfer, true));
        Ok(Drafted { debit: sides.0, credit: sides.1, moves })
    }

    fn known(&self, id: &str) -> Result<&Row, Error> {
        self.accounts.get(id).ok_or_else(|| Error::UnknownAccount(id.to_owned()))
    }

    fn check_shapes(&self, transfer: &Transfer, debit: &Row, credit: &Row) -> Result<(), Error> {
        let (gives, gets) = (debit.shape == Shape::Lots, credit.shape == Shape::Lots);
        let fits = match &transfer.lots {
            Lots::None => !gives && !gets,
            Lots::New(_) | Lots::RestoredFrom(_) => gets && !gives,
            Lots::FirstExpiring | Lots::From(_) | Lots::Parts(_) => gives && !gets,
            Lots::Carried(_) => gives && gets,
        };
        let why = "what it says about lots does not fit the shapes of its accounts";
        if fits { Ok(()) } else { Err(Error::Lots { key: transfer.key.clone(), why }) }
    }

    fn step(&mut self, row: &Row, balance: i64, transfer: &Transfer, rises: bool) -> Side {
        if row.shape == Shape::Striped {
            let stripe = self.stripes.entry((row.no, transfer.period.number())).or_default();
            if rises {
                stripe.1 += transfer.amount;
            } else {
                stripe.0 += transfer.amount;
            }
            return Side { account: row.no, version: None, balance: None };
        }
        self.moved.insert(row.id.clone());
        let version = row.version + 1;
        if let Some(kept) = self.accounts.get_mut(&row.id) {
            kept.balance = balance;
            kept.version = version;
        }
        Side { account: row.no, version: Some(version), balance: Some(balance) }
    }

    fn move_lots(&mut self, transfer: &Transfer, debit: &Row, credit: &Row) -> Result<Vec<Move>, Error> {
        match &transfer.lots {
            Lots::None => Ok(Vec::new()),
            Lots::New(lot) => {
                self.open(transfer, lot.clone(), credit);
                Ok(Vec::new())
            }
            Lots::FirstExpiring => {
                let at = transfer.occurred_at.ms();
                let open = self.by_account.get(&debit.no);
                let lots = open.into_iter().flatten().filter(|(expires, _)| *expires > at).map(|(_, number)| *number);
                self.take(transfer, lots.collect())
            }
            Lots::From(source) => {
                let lot = self.by_source.get(source).copied().filter(|number| self.lots[number].account == debit.no);
                self.take(transfer, lot.into_iter().collect())
            }
            Lots::Carried(source) => self.carry(transfer, source, debit, credit),
            Lots::Parts(parts) => self.take_parts(transfer, parts, debit),
            Lots::RestoredFrom(key) => self.restore(transfer, key, credit),
        }
    }

    /// Opens a lot of the whole amount in the credited account.
    fn open(&mut self, transfer: &Transfer, lot: NewLot, credit: &Row) {
        let number = -1 - i64::try_from(self.opened.len()).unwrap_or(i64::MAX - 1);
        let row = LotRow {
            no: number,
            account: credit.no,
            source: transfer.key.clone(),
            issuer: lot.issuer,
            cost: lot.cost,
            amount: transfer.amount,
            remaining: transfer.amount,
            expires_at: lot.expires_at,
            period: transfer.period.number(),
        };
        self.opened.push(row.clone());
        self.keep(row);
    }

    /// Takes the amount from one lot and opens one like it.
    fn carry(&mut self, transfer: &Transfer, source: &str, debit: &Row, credit: &Row) -> Result<Vec<Move>, Error> {
        let lot = self.by_source.get(source).map(|number| &self.lots[number]);
        let lot = lot.filter(|lot| lot.account == debit.no && lot.expires_at > transfer.occurred_at).cloned();
        let moves = self.take(transfer, lot.iter().map(|lot| lot.no).collect())?;
        if let Some(lot) = lot {
            self.open(transfer, NewLot { issuer: lot.issuer, cost: lot.cost, expires_at: lot.expires_at }, credit);
        }
        Ok(moves)
    }

    /// Draws these parts, or refuses the transfer whole.
    fn take_parts(&mut self, transfer: &Transfer, parts: &[LotPart], debit: &Row) -> Result<Vec<Move>, Error> {
        let not_enough = || Error::NotEnough { account: debit.id.clone(), amount: transfer.amount };
        if parts.iter().map(|part| i128::from(part.amount)).sum::<i128>() != i128::from(transfer.amount) {
            return Err(Error::Lots { key: transfer.key.clone(), why: "its parts do not sum to its amount" });
        }
        let mut moves: Vec<Move> = Vec::with_capacity(parts.len());
        for part in parts {
            let lot = self.by_source.get(&part.source).map(|number| &self.lots[number]);
            let lot = lot.filter(|lot| lot.account == debit.no && part.amount > 0 && lot.remaining >= part.amount);
            let lot = lot.filter(|lot| moves.iter().all(|other| other.lot != lot.no)).ok_or_else(not_enough)?;
            moves.push(Move { lot: lot.no, amount: -part.amount, restores: None, used: lot.used(part.amount) });
        }
        self.draw(&moves);
        Ok(moves)
    }

    /// Draws the amount from the lots in this order, or refuses it whole.
    fn take(&mut self, transfer: &Transfer, lots: Vec<i64>) -> Result<Vec<Move>, Error> {
        let mut wanted = transfer.amount;
        let mut moves = Vec::new();
        for number in lots {
            let lot = &self.lots[&number];
            let part = lot.remaining.min(wanted);
            if part > 0 {
                moves.push(Move { lot: number, amount: -part, restores: None, used: lot.used(part) });
                wanted -= part;
            }
            if wanted == 0 {
                break;
            }
        }
        if wanted > 0 {
            return Err(Error::NotEnough { account: transfer.debit.clone(), amount: transfer.amount });
        }
        self.draw(&moves);
        Ok(moves)
    }

    /// Gives back what a transfer took, the lot that expires last first.
    fn restore(&mut self, transfer: &Transfer, key: &str, credit: &Row) -> Result<Vec<Move>, Error> {
        let mut wanted = transfer.amount;
        let mut moves = Vec::new();
        for row in self.spent.get(key).into_iter().flatten() {
            let lot = self.lots.get(&row.lot).filter(|lot| lot.account == credit.no);
            let Some(lot) = lot else { continue };
            let part = row.left.min(wanted);
            if part > 0 {
                moves.push(Move { lot: row.lot, amount: part, restores: Some(row.no), used: lot.used(part) });
                wanted -= part;
            }
        }
        if wanted > 0 {
            return Err(Error::Lots { key: transfer.key.clone(), why: "it gives back more than the transfer that it names took" });
        }
        for part in &moves {
            if let Some(row) = self.spent.get_mut(key).and_then(|rows| rows.iter_mut().find(|row| Some(row.no) == part.restores)) {
                row.left -= part.amount;
            }
        }
        self.draw(&moves);
        Ok(moves)
    }

    fn draw(&mut self, moves: &[Move]) {
        for part in moves {
            if let Some(lot) = self.lots.get_mut(&part.lot) {
                lot.remaining += part.amount;
            }
            if part.lot < 0 {
                let index = usize::try_from(-1 - part.lot).unwrap_or(usize::MAX);
                if let Some(lot) = self.opened.get_mut(index) {
                    lot.remaining += part.amount;
                }
            } else {
                self.drawn.insert(part.lot);
            }
        }
    }
}
