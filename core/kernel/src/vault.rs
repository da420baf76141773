//! The vault of personal data: values sealed with a key of their identity, references everywhere else, masks, reveal, erasure.

use crate::actor::{Actor, Scope};
use crate::audit;
use crate::database::{Database, Tx};
use crate::error::{Error, Problem, codes};
use crate::secret::{Key, TenantKeys};
use crate::sql;
use futures::FutureExt;
use heyuan_contract::PersonalRef;
use std::fmt;

/// Longest reason for a look at a value, in bytes: it stands in the audit record for ever.
const REASON_BYTES_MAX: usize = 500;

/// What a personal value is: decides how it is normalised and masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Personal {
    /// A phone number.
    Phone,
    /// An e-mail address.
    Email,
    /// A person's name.
    Name,
    /// A postal address.
    Address,
    /// A car's plate.
    Plate,
    /// A platform's id of a person (openid, unionid, member or CRM id, device).
    Identifier,
    /// A government id.
    IdCard,
    /// Anything else that an event type declares as personal.
    Other,
}

impl Personal {
    const ALL: [Personal; 8] = [
        Personal::Phone,
        Personal::Email,
        Personal::Name,
        Personal::Address,
        Personal::Plate,
        Personal::Identifier,
        Personal::IdCard,
        Personal::Other,
    ];

    /// The spelling in schemas and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Personal::Phone => "phone",
            Personal::Email => "email",
            Personal::Name => "name",
            Personal::Address => "address",
            Personal::Plate => "plate",
            Personal::Identifier => "identifier",
            Personal::IdCard => "id_card",
            Personal::Other => "other",
        }
    }

    /// The class with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<Personal> {
        Personal::ALL.into_iter().find(|class| class.as_str() == text)
    }

    /// The value with its middle hidden: `138****1234`, `张*`, `a***@example.com`.
    pub fn mask(self, value: &str) -> String {
        let chars: Vec<char> = value.chars().collect();
        let ends = |front: usize, back: usize| {
            if chars.len() <= front + back {
                return "****".to_owned();
            }
            let head: String = chars[..front].iter().collect();
            let tail: String = chars[chars.len() - back..].iter().collect();
            format!("{head}****{tail}")
        };
        match self {
            Personal::Phone => ends(3, 4),
            Personal::Plate => ends(2, 1),
            Personal::Identifier | Personal::IdCard => ends(3, 2),
            Personal::Name => chars.first().map_or_else(String::new, |first| format!("{first}*")),
            Personal::Email => match value.split_once('@') {
                Some((user, host)) => format!("{}***@{host}", user.chars().take(1).collect::<String>()),
                None => "****".to_owned(),
            },
            Personal::Address | Personal::Other => "****".to_owned(),
        }
    }
}

impl fmt::Display for Personal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Seals, opens and erases personal values. A *subject* is the identity whose key seals a value; erasing it destroys the key.
#[derive(Clone)]
pub struct Vault {
    db: Database,
    keys: TenantKeys,
}

impl Vault {
    /// The tenant's vault.
    pub fn new(db: Database, keys: TenantKeys) -> Vault {
        Vault { db, keys }
    }

    /// The keyed hash by which an identifier is found; 16 bytes of HMAC-SHA-256, key version 1. Stored in the identifier table alone.
    pub fn lookup_hash(&self, kind: &str, value: &str) -> [u8; 16] {
        let full = self.keys.lookup().mac(&[kind.as_bytes(), value.as_bytes()]);
        let mut short = [0; 16];
        short.copy_from_slice(&full[..16]);
        short
    }

    /// Puts a value into the vault under a subject and returns its reference.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn seal(&self, tx: &Tx, subject: &str, class: Personal, value: &str) -> Result<PersonalRef, Error> {
        let key = self.subject_key(tx, subject).await?;
        let reference = format!("per_{}", hex::encode(rand::random::<[u8; 16]>()));
        let sealed = key.seal(value.as_bytes(), reference.as_bytes());
        sql::execute(
            tx.conn(),
            "INSERT INTO kernel_vault_value (ref, subject, class, sealed) VALUES ($1, $2, $3, $4)",
            [reference.clone().into(), subject.into(), class.as_str().into(), sealed.into()],
        )
        .await?;
        PersonalRef::new(reference).map_err(|e| Error::Corrupt { what: "reference", why: e.to_string() })
    }

    /// Seals bytes under a subject's key without keeping them in the vault: for columns of a file or a table that erasure must also close.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn subject_key(&self, tx: &Tx, subject: &str) -> Result<Key, Error> {
        if let Some(key) = self.open_subject(tx.conn(), subject).await? {
            return Ok(key);
        }
        let key = Key::random();
        let wrapped = self.keys.wrap().seal(key.bytes(), subject.as_bytes());
        sql::execute(
            tx.conn(),
            "INSERT INTO kernel_vault_key (subject, wrapped) VALUES ($1, $2) ON CONFLICT (subject) DO NOTHING",
            [subject.into(), wrapped.into()],
        )
        .await?;
        self.open_subject(tx.conn(), subject).await?.ok_or(Error::Corrupt { what: "subject key", why: "it vanished".into() })
    }

    /// The key of a subject, if it has one and was not erased.
    ///
    /// # Errors
    /// [`Error::Database`]; [`Error::Corrupt`] when the tenant key does not open it.
    pub async fn open_subject<C: sql::Connection>(&self, conn: &C, subject: &str) -> Result<Option<Key>, Error> {
        let row = sql::one(conn, "SELECT wrapped FROM kernel_vault_key WHERE subject = $1", [subject.into()]).await?;
        let Some(row) = row else { return Ok(None) };
        let wrapped: Vec<u8> = sql::get(&row, "wrapped")?;
        let bytes: Option<[u8; 32]> = self.keys.wrap().open(&wrapped, subject.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(|bytes| Some(Key::from_bytes(bytes)))
            .ok_or(Error::Corrupt { what: "subject key", why: "the tenant key does not open it".into() })
    }

    /// The value behind a reference; `None` once it is erased. For use inside the process: an answer to a caller goes through
    /// [`Vault::masked`] or [`Vault::reveal`].
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn open(&self, reference: &PersonalRef) -> Result<Option<(Personal, String)>, Error> {
        let row = sql::one(
            self.db.reader(),
            "SELECT v.class, v.sealed, k.wrapped, v.subject FROM kernel_vault_value v JOIN kernel_vault_key k ON k.subject = v.subject WHERE v.ref = $1",
            [reference.as_str().into()],
        )
        .await?;
        let Some(row) = row else { return Ok(None) };
        let class: String = sql::get(&row, "class")?;
        let sealed: Vec<u8> = sql::get(&row, "sealed")?;
        let wrapped: Vec<u8> = sql::get(&row, "wrapped")?;
        let subject: String = sql::get(&row, "subject")?;
        let corrupt = |why: &str| Error::Corrupt { what: "vault value", why: why.to_owned() };
        let key: [u8; 32] = self
            .keys
            .wrap()
            .open(&wrapped, subject.as_bytes())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| corrupt("the tenant key does not open its key"))?;
        let plain = Key::from_bytes(key).open(&sealed, reference.as_str().as_bytes()).ok_or_else(|| corrupt("its key does not open it"))?;
        let text = String::from_utf8(plain).map_err(|_| corrupt("it is no text"))?;
        Ok(Some((Personal::parse(&class).unwrap_or(Personal::Other), text)))
    }

    /// The value behind a reference with its middle hidden; `None` once it is erased.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn masked(&self, reference: &PersonalRef) -> Result<Option<String>, Error> {
        Ok(self.open(reference).await?.map(|(class, value)| class.mask(&value)))
    }

    /// Whether an actor may look at personal values for this reason; who looks has to say one.
    ///
    /// # Errors
    /// `forbidden` without the scope `reveal`; `invalid_request` without a reason.
    pub fn check_reveal(actor: &Actor, reason: &str) -> Result<(), Problem> {
        actor.require(Scope::Reveal)?;
        if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(Problem::invalid("reason", format!("say in 1 to {REASON_BYTES_MAX} bytes why the value is needed")));
        }
        Ok(())
    }

    /// The value itself, for an actor and a reason that pass [`Vault::check_reveal`]; the look is audited before it is answered.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `erased`; the database's.
    pub async fn reveal(&self, actor: &Actor, reference: &PersonalRef, reason: &str) -> Result<String, Problem> {
        Vault::check_reveal(actor, reason)?;
        let (class, value) = self.open(reference).await?.ok_or_else(|| Problem::new(codes::ERASED, "the value was erased"))?;
        let entry = audit::Entry::new(actor, "reveal", reference.as_str()).detail("class", class.as_str()).detail("reason", reason);
        self.db
            .write("audit a reveal", move |tx| {
                let entry = entry.clone();
                async move { audit::record(tx, &entry).await }.boxed()
            })
            .await?;
        Ok(value)
    }

    /// Destroys the keys and the values of subjects.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn erase(&self, tx: &Tx, subjects: &[String]) -> Result<(), Error> {
        for subject in subjects {
            sql::execute(tx.conn(), "DELETE FROM kernel_vault_value WHERE subject = $1", [subject.clone().into()]).await?;
            sql::execute(tx.conn(), "DELETE FROM kernel_vault_key WHERE subject = $1", [subject.clone().into()]).await?;
        }
        Ok(())
    }

    /// Destroys single values, where a subject goes on.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn forget(&self, tx: &Tx, reference: &PersonalRef) -> Result<(), Error> {
        sql::execute(tx.conn(), "DELETE FROM kernel_vault_value WHERE ref = $1", [reference.as_str().into()]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_hide_the_middle() {
        for (class, value, masked) in [
            (Personal::Phone, "13812345678", "138****5678"),
            (Personal::Phone, "110", "****"),
            (Personal::Name, "张三丰", "张*"),
            (Personal::Email, "zhang@example.com", "z***@example.com"),
            (Personal::Plate, "粤B12345", "粤B****5"),
            (Personal::Address, "深圳市南山区", "****"),
        ] {
            assert_eq!(class.mask(value), masked);
        }
    }
}
