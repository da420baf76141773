//! Codes sent to phones: six digits, for five minutes and five tries, used once; and how many go out.
//!
//! Nothing here can be read back: the number and the code stand in their tables as keyed hashes, of a key that is not beside the data.

use crate::error::{Error, codes};
use heyuan_contract::Timestamp;
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::keys::same;
use heyuan_kernel::{Kernel, Problem, Tx, sql};

/// How long a code is good.
pub(crate) const CODE_TIME_MS: i64 = 300_000;
/// Tries of one code: five of a million.
const TRIES_MAX: i64 = 5;
/// A number gets no second code sooner.
const PAUSE_MS: i64 = 60_000;
/// Refusals of the provider that a number has free in a day; from then on each counts as a code, so that nobody has it asked without end.
const REFUSALS_A_PHONE: u32 = 5;
/// How long counts are kept: longer than any day.
const COUNTS_KEPT_MS: i64 = 2 * 86_400_000;
/// Codes below this number, with leading zeros.
const CODES: u32 = 1_000_000;

/// A number of a mobile phone in mainland China, in its one spelling. Numbers of elsewhere are not taken: without their country they
/// would pass for somebody's here.
pub(super) fn mainland(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let own = ["+86", "0086"].iter().find_map(|country| plain.strip_prefix(country)).unwrap_or(&plain);
    let own = own.strip_prefix("86").filter(|rest| rest.len() == 11).unwrap_or(own);
    let mobile =
        own.len() == 11 && own.starts_with('1') && matches!(own.as_bytes()[1], b'3'..=b'9') && own.bytes().all(|b| b.is_ascii_digit());
    mobile.then(|| own.to_owned())
}

/// A number as the tables know it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Phone {
    number: String,
    hash: Vec<u8>,
}

impl Phone {
    /// The number, for whoever sends to it and whoever identifies by it.
    pub(super) fn number(&self) -> &str {
        &self.number
    }

    /// Reads a number.
    ///
    /// # Errors
    /// `invalid_request` with the field; the number is not repeated.
    pub(super) fn read(kernel: &Kernel, field: &str, text: &str) -> Result<Phone, Problem> {
        let words = "expected a mobile number of mainland China, such as 13800138000";
        let number = mainland(text).ok_or_else(|| Problem::invalid(field, words))?;
        let hash = kernel.keys.token().mac(&[b"phone", number.as_bytes()]).to_vec();
        Ok(Phone { number, hash })
    }
}

/// A code that was proven and is used up by the unit of work that lets its holder in.
#[derive(Clone)]
pub(crate) struct Claim {
    phone: Vec<u8>,
    app: String,
    code: Vec<u8>,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim(…)")
    }
}

impl Claim {
    /// A claim to what a code of this app proves for this number.
    pub(super) fn new(kernel: &Kernel, phone: &Phone, app: &str, code: &str) -> Claim {
        let hashed = kernel.keys.token().mac(&[b"phone code", app.as_bytes(), &phone.hash, code.as_bytes()]);
        Claim { phone: phone.hash.clone(), app: app.to_owned(), code: hashed.to_vec() }
    }

    /// Counts a try and tells whether the code is the one that was sent last and is good.
    pub(super) async fn try_it(&self, tx: &Tx, now: Timestamp) -> Result<bool, Error> {
        let lock = sql::for_update(tx.conn());
        let text = format!("SELECT code, tries, expires_at FROM membership_phone_code WHERE phone = $1 AND app = $2{lock}");
        let Some(row) = sql::one(tx.conn(), &text, [self.phone.clone().into(), self.app.as_str().into()]).await? else { return Ok(false) };
        if sql::get::<i64>(&row, "tries")? >= TRIES_MAX || sql::get::<i64>(&row, "expires_at")? <= now.ms() {
            return Ok(false);
        }
        let text = "UPDATE membership_phone_code SET tries = tries + 1 WHERE phone = $1 AND app = $2";
        sql::execute(tx.conn(), text, [self.phone.clone().into(), self.app.as_str().into()]).await?;
        Ok(same(&sql::get::<Vec<u8>>(&row, "code")?, &self.code))
    }

    /// Uses the code up; of two who do so at once, one is let in.
    pub(crate) async fn use_up(&self, tx: &Tx, now: Timestamp) -> Result<(), Error> {
        let text = "DELETE FROM membership_phone_code WHERE phone = $1 AND app = $2 AND code = $3 AND expires_at > $4";
        let values = [self.phone.clone().into(), self.app.as_str().into(), self.code.clone().into(), now.ms().into()];
        if sql::execute(tx.conn(), text, values).await? == 0 { Err(refused()) } else { Ok(()) }
    }

    /// Keeps the code as the one that counts, in place of any before.
    pub(super) async fn keep(&self, tx: &Tx, expires_at: Timestamp) -> Result<(), Error> {
        let text = "INSERT INTO membership_phone_code (phone, app, code, tries, expires_at) VALUES ($1, $2, $3, 0, $4)
                    ON CONFLICT (phone, app) DO UPDATE SET code = $3, tries = 0, expires_at = $4";
        let values = [self.phone.clone().into(), self.app.as_str().into(), self.code.clone().into(), expires_at.ms().into()];
        sql::execute(tx.conn(), text, values).await?;
        Ok(())
    }

    /// Drops the code, which nobody has got.
    pub(super) async fn drop_it(&self, tx: &Tx) -> Result<(), Error> {
        let text = "DELETE FROM membership_phone_code WHERE phone = $1 AND app = $2 AND code = $3";
        let values = [self.phone.clone().into(), self.app.as_str().into(), self.code.clone().into()];
        sql::execute(tx.conn(), text, values).await?;
        Ok(())
    }
}

/// The one answer to a code that is wrong, used, too old, tried too often or was never sent.
pub(super) fn refused() -> Error {
    let words =
        "the code is not the one that was sent last to this number for this app, was used, tried too often or is over five minutes old";
    Problem::new(codes::PHONE_CODE_REFUSED, words).field("phone.code").into()
}

/// Six digits, each as likely as any other (`rand`'s generator is a cryptographic one).
pub(super) fn fresh_code() -> String {
    format!("{:06}", rand::random_range(0..CODES))
}

/// How many codes may go out in a day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) a_phone: u32,
    pub(super) a_key: u32,
    pub(super) in_all: u32,
}

/// One of those whose codes are counted.
#[derive(Clone)]
struct Subject {
    name: String,
    /// Codes of a day.
    most: u32,
    /// How long nothing follows a code.
    pause_ms: i64,
    /// Codes of a day that the provider refused and that don't count.
    refusals: u32,
}

/// Whose codes are counted: the number's, the key's and all of them.
#[derive(Clone)]
pub(super) struct Counted {
    subjects: [Subject; 3],
    day: Timestamp,
    next_day: Timestamp,
    now: Timestamp,
}

impl Counted {
    pub(super) fn new(kernel: &Kernel, phone: &Phone, key: &str, bounds: Bounds) -> Counted {
        let now = kernel.clock.now();
        let hash: String = phone.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let subject = |name: String, most, pause_ms, refusals| Subject { name, most, pause_ms, refusals };
        // Always in this order, so that two who count at once don't wait for each other.
        let subjects = [
            subject(format!("phone/{hash}"), bounds.a_phone, PAUSE_MS, REFUSALS_A_PHONE),
            subject(format!("by/{key}"), bounds.a_key, 0, bounds.a_key),
            subject("all".to_owned(), bounds.in_all, 0, bounds.in_all),
        ];
        Counted { subjects, day: kernel.zone.day_start_after(now, 0), next_day: kernel.zone.day_start_after(now, 1), now }
    }

    /// Counts one code more.
    ///
    /// # Errors
    /// `limited`, with the time when it may be tried again; the unit then counts nothing.
    pub(super) async fn count(&self, tx: &Tx) -> Result<(), Error> {
        for Subject { name, most, pause_ms, .. } in &self.subjects {
            let free_before = self.now.ms() - pause_ms;
            if *pause_ms > 0 && self.last_of_earlier_days(tx, name).await? > free_before {
                return Err(self.limited(tx, name, i64::from(*most)).await?.into());
            }
            let text = "INSERT INTO membership_phone_count (subject, day, count, last_at) VALUES ($1, $2, 1, $3)
                        ON CONFLICT (subject, day) DO UPDATE SET count = membership_phone_count.count + 1, last_at = $3
                        WHERE membership_phone_count.count < $4 AND membership_phone_count.last_at <= $5";
            let most = i64::from(*most);
            let values = [name.as_str().into(), self.day.ms().into(), self.now.ms().into(), most.into(), free_before.into()];
            if sql::execute(tx.conn(), text, values).await? == 0 {
                return Err(self.limited(tx, name, most).await?.into());
            }
        }
        Ok(())
    }

    /// When a subject had its last code before today: a pause does not end at midnight.
    async fn last_of_earlier_days(&self, tx: &Tx, subject: &str) -> Result<i64, Error> {
        let lock = sql::for_update(tx.conn());
        let text = format!("SELECT last_at FROM membership_phone_count WHERE subject = $1 AND day < $2 ORDER BY day DESC LIMIT 1{lock}");
        let row = sql::one(tx.conn(), &text, [subject.into(), self.day.ms().into()]).await?;
        Ok(row.map_or(Ok(0), |row| sql::get(&row, "last_at"))?)
    }

    async fn limited(&self, tx: &Tx, subject: &str, most: i64) -> Result<Problem, Error> {
        let text = "SELECT count, last_at FROM membership_phone_count WHERE subject = $1 AND day = $2";
        let row = sql::one(tx.conn(), text, [subject.into(), self.day.ms().into()]).await?;
        let (count, last_at) = match row {
            Some(row) => (sql::get::<i64>(&row, "count")?, sql::get::<i64>(&row, "last_at")?),
            None => (0, 0),
        };
        let last_at = last_at.max(self.last_of_earlier_days(tx, subject).await?);
        let whose = match subject.split_once('/') {
            Some(("phone", _)) => "this number",
            Some(_) => "this key",
            None => "the whole group",
        };
        let (words, wait) = if count >= most {
            (format!("{whose} has had as many codes today as it may have"), self.next_day.ms() - self.now.ms())
        } else {
            (format!("{whose} has just got a code; another one is sent a minute after it"), last_at + PAUSE_MS - self.now.ms())
        };
        let seconds = u32::try_from((wait.max(1) + 999) / 1000).unwrap_or(u32::MAX);
        Ok(Problem::new(kernel_codes::LIMITED, words).retry_after_s(seconds))
    }

    /// Takes back a code that was not sent after all, so that another one may go out at once: as often as a subject has refusals free.
    pub(super) async fn take_back(&self, tx: &Tx) -> Result<(), Error> {
        for Subject { name, refusals, .. } in &self.subjects {
            let text = "INSERT INTO membership_phone_count (subject, day, count, last_at) VALUES ($1, $2, 1, 0)
                        ON CONFLICT (subject, day) DO UPDATE SET count = membership_phone_count.count + 1
                        WHERE membership_phone_count.count < $3";
            let values = [format!("refused/{name}").into(), self.day.ms().into(), i64::from(*refusals).into()];
            if *refusals == 0 || sql::execute(tx.conn(), text, values).await? == 0 {
                continue;
            }
            let text = "UPDATE membership_phone_count SET count = count - 1, last_at = 0 WHERE subject = $1 AND day = $2 AND count > 0";
            sql::execute(tx.conn(), text, [name.as_str().into(), self.day.ms().into()]).await?;
        }
        Ok(())
    }
}

/// Whether there is a code or a count that is kept no longer.
pub(crate) async fn codes_to_sweep(kernel: &Kernel) -> Result<bool, Error> {
    let now = kernel.clock.now().ms();
    let text = "SELECT app FROM membership_phone_code WHERE expires_at <= $1 LIMIT 1";
    if sql::one(kernel.db.near(), text, [now.into()]).await?.is_some() {
        return Ok(true);
    }
    let text = "SELECT subject FROM membership_phone_count WHERE day <= $1 LIMIT 1";
    Ok(sql::one(kernel.db.near(), text, [(now - COUNTS_KEPT_MS).into()]).await?.is_some())
}

/// Removes a batch of them; answers how many.
pub(crate) async fn sweep_codes(kernel: &Kernel, tx: &Tx, limit: u64) -> Result<u64, Error> {
    let now = kernel.clock.now().ms();
    let text = "DELETE FROM membership_phone_code WHERE (phone, app) IN (
                  SELECT phone, app FROM membership_phone_code WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
    let codes = sql::execute(tx.conn(), text, [now.into(), limit.into()]).await?;
    let text = "DELETE FROM membership_phone_count WHERE (subject, day) IN (
                  SELECT subject, day FROM membership_phone_count WHERE day <= $1 ORDER BY day, subject LIMIT $2)";
    Ok(codes + sql::execute(tx.conn(), text, [(now - COUNTS_KEPT_MS).into(), limit.into()]).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mainland_number_has_one_spelling_and_others_are_not_taken() {
        for (text, expected) in [
            ("13800138000", Some("13800138000")),
            ("+86 138-0013-8000", Some("13800138000")),
            ("008613800138000", Some("13800138000")),
            ("8613800138000", Some("13800138000")),
            // A number in the United States, which without its country would be somebody's in China.
            ("+1 3800138000", None),
            ("+13800138000", None),
            ("12800138000", None),
            ("1380013800", None),
            ("138001380000", None),
            ("+852 91234567", None),
            ("１３800138000", None),
            ("1380013800a", None),
            ("", None),
        ] {
            assert_eq!(mainland(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_code_is_six_digits_and_never_the_same() {
        let codes: std::collections::BTreeSet<String> = (0..200).map(|_| fresh_code()).collect();
        assert!(codes.iter().all(|code| code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit())));
        assert!(codes.len() > 150, "200 codes of a million are nearly all different, not {}", codes.len());
    }
}
