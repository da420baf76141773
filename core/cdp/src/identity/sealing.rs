//! Personal values on their way into the vault, many at once: keys and values are made outside the transaction and written in bulk.
//!
//! A reference is a keyed hash of the value under its subject's own key: the same value of the same subject is stored once, and a
//! reference tells nothing once the key is destroyed.

use crate::batch_sql::{in_texts, insert, list};
use heyuan_contract::{AnchorId, PersonalRef};
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Error, Personal, Tx, sql};
use sea_orm::Value;
use std::collections::{BTreeMap, HashMap};

/// The vault rows of one batch.
#[derive(Default)]
pub(crate) struct Sealing {
    keys: HashMap<AnchorId, Key>,
    new_keys: BTreeMap<String, Vec<u8>>,
    values: BTreeMap<String, (String, &'static str, Vec<u8>)>,
}

impl Sealing {
    /// Makes the key of a subject that has none yet.
    pub(crate) fn found(&mut self, tenant: &TenantKeys, subject: &AnchorId) {
        let key = Key::random();
        self.new_keys.insert(subject.as_str().to_owned(), tenant.wrap().seal(key.bytes(), subject.as_str().as_bytes()));
        self.keys.insert(subject.clone(), key);
    }

    /// Reads the keys of subjects that are known already; erased ones are left out.
    pub(crate) async fn load<'a, C: sql::Connection>(
        &mut self,
        conn: &C,
        tenant: &TenantKeys,
        subjects: impl IntoIterator<Item = &'a AnchorId>,
    ) -> Result<(), Error> {
        let missing: std::collections::BTreeSet<&str> =
            subjects.into_iter().filter(|subject| !self.keys.contains_key(*subject)).map(AnchorId::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let backend = conn.backend();
        let text = format!("SELECT subject, wrapped FROM kernel_vault_key WHERE subject {}", in_texts(backend, 1));
        for row in sql::all(conn, &text, [list(backend, missing)]).await? {
            let subject: String = sql::get(&row, "subject")?;
            let wrapped: Vec<u8> = sql::get(&row, "wrapped")?;
            let key = open_key(tenant, &subject, &wrapped)?;
            let id = AnchorId::new(subject).map_err(|e| Error::Corrupt { what: "vault subject", why: e.to_string() })?;
            self.keys.insert(id, key);
        }
        Ok(())
    }

    /// Seals a value of a subject; `None` when the subject has no key, that is, was erased.
    pub(crate) fn value(&mut self, subject: &AnchorId, class: Personal, value: &str) -> Option<PersonalRef> {
        let key = self.keys.get(subject)?;
        let digest = key.mac(&[b"ref", class.as_str().as_bytes(), value.as_bytes()]);
        let reference = format!("per_{}", hex::encode(&digest[..16]));
        if !self.values.contains_key(&reference) {
            let sealed = key.seal(value.as_bytes(), reference.as_bytes());
            self.values.insert(reference.clone(), (subject.as_str().to_owned(), class.as_str(), sealed));
        }
        PersonalRef::new(reference).ok()
    }

    /// Seals bytes that stay with their event.
    pub(crate) fn bytes(&self, subject: &AnchorId, plain: &[u8], context: &str) -> Option<Vec<u8>> {
        self.keys.get(subject).map(|key| key.seal(plain, context.as_bytes()))
    }

    /// Opens bytes that [`Sealing::bytes`] sealed.
    pub(crate) fn open(&self, subject: &AnchorId, sealed: &[u8], context: &str) -> Option<Vec<u8>> {
        self.keys.get(subject).and_then(|key| key.open(sealed, context.as_bytes()))
    }

    /// Writes keys and values.
    pub(crate) async fn write(&self, tx: &Tx) -> Result<(), Error> {
        let keys: Vec<Vec<Value>> =
            self.new_keys.iter().map(|(subject, wrapped)| vec![subject.clone().into(), wrapped.clone().into()]).collect();
        insert(tx.conn(), "INSERT INTO kernel_vault_key (subject, wrapped) VALUES", "", 2, keys).await?;
        let values: Vec<Vec<Value>> = self
            .values
            .iter()
            .map(|(reference, (subject, class, sealed))| {
                vec![reference.clone().into(), subject.clone().into(), (*class).into(), sealed.clone().into()]
            })
            .collect();
        let head = "INSERT INTO kernel_vault_value (ref, subject, class, sealed) VALUES";
        insert(tx.conn(), head, "ON CONFLICT (ref) DO NOTHING", 4, values).await?;
        Ok(())
    }
}

fn open_key(tenant: &TenantKeys, subject: &str, wrapped: &[u8]) -> Result<Key, Error> {
    let bytes: Option<[u8; 32]> = tenant.wrap().open(wrapped, subject.as_bytes()).and_then(|bytes| bytes.try_into().ok());
    bytes.map(Key::from_bytes).ok_or(Error::Corrupt { what: "subject key", why: "the tenant key does not open it".into() })
}
