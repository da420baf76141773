//! Generated histories on both databases: one after the other beside a model in plain code, and by several writers at once.

use crate::ground::{self, at, ledger, month, open, sealed_and_sound, write};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::Ratio;
use heyuan_harness::for_both_databases;
use heyuan_ledger::{Account, Carry, Error, Hold, Ledger, Lots, NewLot, TakeBack, Transfer};
use std::collections::BTreeMap;

const MEMBERS: [&str; 3] = ["anna", "bert", "carl"];

/// A small generator of its own: the same histories on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).expect("small")
    }

    fn amount(&mut self, max: usize) -> i64 {
        i64::try_from(1 + self.roll(max)).expect("small")
    }

    fn one_of<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.roll(of.len())) }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Earn {
        to: &'static str,
        amount: i64,
        days: i64,
    },
    Spend {
        from: &'static str,
        amount: i64,
        day: i64,
    },
    Restore {
        of: String,
        to: &'static str,
        amount: i64,
    },
    TakeBack {
        lot: String,
        from: &'static str,
        amount: i64,
    },
    Carry {
        from: &'static str,
        to: &'static str,
        amount: i64,
        day: i64,
    },
    Hold {
        from: &'static str,
        amount: i64,
        until: i64,
    },
    Post {
        hold: String,
        amount: i64,
    },
    Void {
        hold: String,
    },
    /// Of these, each with its account, those that have run out.
    Expire {
        holds: Vec<(String, &'static str)>,
    },
}

/// What a generator may name: what it did itself.
#[derive(Default)]
struct Known {
    lots: Vec<(String, &'static str)>,
    spends: Vec<(String, &'static str)>,
    holds: Vec<(String, &'static str)>,
}

impl Known {
    fn step(&self, dice: &mut Dice) -> Step {
        let (one, other) = (dice.roll(3), 1 + dice.roll(2));
        let (from, to) = (MEMBERS[one], MEMBERS[(one + other) % 3]);
        let day = i64::try_from(dice.roll(25)).expect("small");
        let expire = || {
            let mut holds = self.holds.clone();
            // Everybody locks accounts in one order.
            holds.sort_unstable_by_key(|(_, account)| *account);
            Step::Expire { holds }
        };
        match dice.roll(10) {
            0 | 1 => Step::Earn { to, amount: dice.amount(60), days: day + 1 },
            2 => Step::Spend { from, amount: dice.amount(70), day },
            3 => Step::Carry { from, to, amount: dice.amount(60), day },
            4 => Step::Hold { from, amount: dice.amount(40), until: if dice.roll(3) == 0 { -1 } else { 1 } },
            5 => dice.one_of(&self.spends).map_or_else(expire, |(of, to)| Step::Restore { of: of.clone(), to, amount: dice.amount(20) }),
            6 => dice.one_of(&self.lots).map_or_else(expire, |(lot, from)| Step::TakeBack {
                lot: lot.clone(),
                from,
                amount: dice.amount(30),
            }),
            7 | 8 => dice.one_of(&self.holds).map_or_else(expire, |(hold, _)| Step::Post { hold: hold.clone(), amount: dice.amount(30) }),
            _ if dice.roll(4) == 0 => expire(),
            _ => dice.one_of(&self.holds).map_or_else(expire, |(hold, _)| Step::Void { hold: hold.clone() }),
        }
    }

    fn learn(&mut self, key: &str, step: &Step) {
        match step {
            Step::Earn { to, .. } => self.lots.push((key.to_owned(), to)),
            Step::Carry { to, .. } => self.lots.push((format!("{key}/1"), to)),
            Step::Spend { from, .. } => self.spends.push((key.to_owned(), from)),
            Step::Hold { from, .. } => self.holds.push((key.to_owned(), from)),
            _ => {}
        }
    }
}

fn transfer(key: &str, debit: &str, credit: &str, amount: i64, day: i64, lots: Lots) -> Transfer {
    Transfer { occurred_at: at(day), ..ground::transfer(key, debit, credit, amount, lots) }
}

/// Does it in the book.
async fn act(ledger: &Ledger, key: &str, step: &Step) -> Result<(), Error> {
    let (key, step) = (key.to_owned(), step.clone());
    write(ledger, move |ledger, tx| {
        let (key, step) = (key.clone(), step.clone());
        async move {
            let post = async |transfer: Transfer| ledger.post(tx, &[transfer]).await.map(drop);
            match step {
                Step::Earn { to, amount, days } => {
                    let lot = NewLot { issuer: "mall".into(), cost: Ratio::new(6, 5).expect("a ratio"), expires_at: at(days) };
                    post(transfer(&key, "issued", to, amount, 0, Lots::New(lot))).await
                }
                Step::Spend { from, amount, day } => post(transfer(&key, from, "spent", amount, day, Lots::FirstExpiring)).await,
                Step::Restore { of, to, amount } => post(transfer(&key, "spent", to, amount, 0, Lots::RestoredFrom(of))).await,
                Step::TakeBack { lot, from, amount } => {
                    let (account, receivable) = (from.to_owned(), format!("{from}/owed"));
                    let (unit, credit, kind, reference) = ("points".into(), "issued".into(), "refund".into(), "test".into());
                    let (occurred_at, period) = (at(0), month());
                    let taking = TakeBack {
                        key,
                        unit,
                        lot,
                        account,
                        receivable,
                        credit,
                        amount,
                        owed_max: 10,
                        occurred_at,
                        period,
                        kind,
                        reference,
                    };
                    ledger.take_back(tx, &taking).await.map(drop)
                }
                Step::Carry { from, to, amount, day } => {
                    let (unit, from, to, kind, reference) = ("points".into(), from.into(), to.into(), "transfer".into(), "gift".into());
                    let carry = Carry { key, unit, from, to, amount, occurred_at: at(day), period: month(), kind, reference };
                    ledger.carry(tx, &carry).await.map(drop)
                }
                Step::Hold { from, amount, until } => {
                    let (unit, debit, credit) = ("points".into(), from.into(), "spent".into());
                    let (kind, reference) = ("spend".into(), "order".into());
                    let hold = Hold { key, unit, debit, credit, amount, kind, reference, at: at(0), expires_at: at(until) };
                    ledger.hold(tx, &hold).await
                }
                Step::Post { hold, amount } => ledger.post_hold(tx, &hold, amount, month()).await.map(drop),
                Step::Void { hold } => ledger.void_hold(tx, &hold).await,
                Step::Expire { holds } => {
                    for (hold, _) in holds {
                        ledger.expire_hold(tx, &hold).await?;
                    }
                    Ok(())
                }
            }
        }
        .boxed()
    })
    .await
}

async fn accounts(ledger: &Ledger) {
    let mut accounts = vec![Account::striped("issued", "mall", "points"), Account::striped("spent", "mall", "points")];
    for member in MEMBERS {
        accounts.push(Account::lots(member, member, "points"));
        accounts.push(Account::plain(format!("{member}/owed"), member, "points", None));
    }
    open(ledger, accounts).await;
}

struct Lot {
    source: String,
    account: &'static str,
    remaining: i64,
    held: i64,
    expires: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Posted(i64),
    Voided,
    Expired,
}

struct Held {
    parts: Vec<(usize, i64)>,
    amount: i64,
    until: i64,
    end: Option<End>,
}

/// The book in plain code: what each step does, or whether it is refused.
#[derive(Default)]
struct Model {
    lots: Vec<Lot>,
    spends: BTreeMap<String, Vec<(usize, i64)>>,
    holds: BTreeMap<String, Held>,
    owed: BTreeMap<&'static str, i64>,
}

impl Model {
    fn parts(&self, account: &str, amount: i64, day: i64) -> Option<Vec<(usize, i64)>> {
        let mut open: Vec<usize> =
            (0..self.lots.len()).filter(|lot| self.lots[*lot].account == account && self.lots[*lot].expires > day).collect();
        open.sort_by_key(|lot| (self.lots[*lot].expires, *lot));
        let (mut wanted, mut parts) = (amount, Vec::new());
        for lot in open {
            let part = self.lots[lot].remaining.min(wanted);
            if part > 0 {
                parts.push((lot, part));
                wanted -= part;
            }
        }
        (wanted == 0).then_some(parts)
    }

    fn draw(&mut self, parts: &[(usize, i64)]) {
        for (lot, part) in parts {
            self.lots[*lot].remaining -= part;
        }
    }

    fn act(&mut self, key: &str, step: &Step) -> bool {
        match step {
            Step::Earn { to, amount, days } => {
                self.lots.push(Lot { source: key.into(), account: to, remaining: *amount, held: 0, expires: *days });
                true
            }
            Step::Spend { from, amount, day } => {
                let Some(parts) = self.parts(from, *amount, *day) else { return false };
                self.draw(&parts);
                self.spends.insert(key.to_owned(), parts);
                true
            }
            Step::Restore { of, amount, .. } => self.restore(of, *amount),
            Step::TakeBack { lot, from, amount } => {
                let lot = self.lots.iter_mut().find(|known| known.source == *lot).expect("it was opened");
                let part = lot.remaining.min(*amount);
                lot.remaining -= part;
                *self.owed.entry(from).or_default() += (amount - part).min(10);
                true
            }
            Step::Carry { from, to, amount, day } => {
                let Some(parts) = self.parts(from, *amount, *day) else { return false };
                self.draw(&parts);
                for ((lot, part), place) in parts.into_iter().zip(1..) {
                    let expires = self.lots[lot].expires;
                    self.lots.push(Lot { source: format!("{key}/{place}"), account: to, remaining: part, held: 0, expires });
                }
                true
            }
            Step::Hold { from, amount, until } => {
                let Some(parts) = self.parts(from, *amount, 0) else { return false };
                self.draw(&parts);
                parts.iter().for_each(|(lot, part)| self.lots[*lot].held += part);
                self.holds.insert(key.to_owned(), Held { parts, amount: *amount, until: *until, end: None });
                true
            }
            Step::Post { hold, amount } => {
                let held = &self.holds[hold];
                if held.end == Some(End::Posted(*amount)) {
                    return true;
                }
                held.end.is_none() && held.until >= 0 && *amount <= held.amount && self.end(hold, End::Posted(*amount))
            }
            Step::Void { hold } => match self.holds[hold].end {
                None => self.end(hold, End::Voided),
                Some(end) => end == End::Voided,
            },
            Step::Expire { .. } => {
                let due: Vec<String> =
                    self.holds.iter().filter(|(_, held)| held.end.is_none() && held.until < 0).map(|(key, _)| key.clone()).collect();
                due.iter().all(|key| self.end(key, End::Expired))
            }
        }
    }

    /// The last-expiring lot first.
    fn restore(&mut self, of: &str, amount: i64) -> bool {
        let spent = self.spends.get_mut(of).expect("it was spent");
        if spent.iter().map(|(_, left)| left).sum::<i64>() < amount {
            return false;
        }
        let mut wanted = amount;
        for (lot, left) in spent.iter_mut().rev() {
            let part = wanted.min(*left);
            *left -= part;
            self.lots[*lot].remaining += part;
            wanted -= part;
        }
        true
    }

    fn end(&mut self, hold: &str, end: End) -> bool {
        let held = self.holds.get_mut(hold).expect("it was set aside");
        held.end = Some(end);
        let mut wanted = if let End::Posted(amount) = end { amount } else { 0 };
        for (lot, part) in &held.parts {
            let posted = wanted.min(*part);
            wanted -= posted;
            self.lots[*lot].held -= part;
            self.lots[*lot].remaining += part - posted;
        }
        true
    }
}

/// Whether the book refused, as it may; anything else is wrong.
fn is_done(answer: Result<(), Error>, what: &str) -> bool {
    match answer {
        Ok(()) => true,
        Err(Error::NotEnough { .. } | Error::Lots { .. } | Error::HoldSettled(_) | Error::Amount(_)) => false,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_equals_a_plain_model() {
    for_both_databases(|database| async move {
        let seed = 20_261_127;
        let ledger = ledger(&database).await;
        accounts(&ledger).await;
        let (mut dice, mut known, mut model, mut done) = (Dice(seed), Known::default(), Model::default(), 0);
        for n in 0..300 {
            let (key, step) = (format!("step/{n}"), known.step(&mut dice));
            let expected = model.act(&key, &step);
            let what = format!("seed {seed}, {key} {step:?}");
            assert_eq!(is_done(act(&ledger, &key, &step).await, &what), expected, "{what}");
            if expected {
                known.learn(&key, &step);
                done += 1;
            }
        }
        assert!((100..300).contains(&done), "{done} steps were done: some fit, some are refused");
        for member in MEMBERS {
            let mut lots: Vec<(String, i64)> =
                ledger.open_lots(member, 500).await.expect("listed").into_iter().map(|lot| (lot.source, lot.remaining)).collect();
            let own = || model.lots.iter().filter(|lot| lot.account == member);
            let mut expected: Vec<(String, i64)> =
                own().filter(|lot| lot.remaining > 0).map(|lot| (lot.source.clone(), lot.remaining)).collect();
            lots.sort_unstable();
            expected.sort_unstable();
            assert_eq!(lots, expected, "{member}");
            let balance = ledger.balance(member).await.expect("it is open");
            let held: i64 = own().map(|lot| lot.held).sum();
            assert_eq!((balance.balance, balance.reserved), (own().map(|lot| lot.remaining).sum::<i64>() + held, held), "{member}");
            let owed = ledger.balance(&format!("{member}/owed")).await.expect("it is open").balance;
            assert_eq!(-owed, model.owed.get(member).copied().unwrap_or(0), "{member}");
        }
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_keep_every_promise() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        accounts(&ledger).await;
        let writers = (1..=4u64).map(|seed| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let (mut dice, mut known, mut done) = (Dice(seed), Known::default(), 0);
                for n in 0..100 {
                    let (key, step) = (format!("{seed}/{n}"), known.step(&mut dice));
                    if is_done(act(&ledger, &key, &step).await, &format!("seed {seed}, {key} {step:?}")) {
                        known.learn(&key, &step);
                        done += 1;
                    }
                }
                done
            })
        });
        let done: i32 = join_all(writers).await.into_iter().map(|done| done.expect("no writer fails")).sum();
        assert!(done > 100, "only {done} steps were done");
        sealed_and_sound(&ledger).await;
        let lines = ledger.trial_balance(ledger.database().reader(), month()).await.expect("it is read");
        assert!(lines.len() >= 3, "{lines:?}");
        assert_eq!(lines.iter().map(|line| line.closing).sum::<i64>(), 0, "{lines:?}");
        for member in MEMBERS {
            let balance = ledger.balance(member).await.expect("it is open");
            assert!(balance.balance >= balance.reserved && balance.reserved >= 0, "{member} {balance:?}");
        }
    })
    .await;
}
