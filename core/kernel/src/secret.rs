//! The tenant's key and what is derived from it; nothing here is ever printed or logged.

use crate::database::Database;
use crate::error::Error;
use crate::sql;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use futures::FutureExt;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The length of every key, in bytes.
pub const KEY_BYTES: usize = 32;
/// The nonce that stands in front of every sealed value.
const NONCE_BYTES: usize = 24;
/// What a right key opens at start.
const CHECK: &[u8] = b"heyuan tenant key check";

/// A key of one purpose.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A key from fresh randomness.
    pub fn random() -> Key {
        Key(rand::random())
    }

    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        Key(bytes)
    }

    /// The bytes, for a library that needs them.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Encrypts and authenticates; `context` is bound to the value and must be the same when it is opened.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let cipher = XChaCha20Poly1305::new(&self.0.into());
        let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: context });
        let sealed = sealed.expect("encryption in memory can't fail below 256 GiB");
        [nonce.as_slice(), sealed.as_slice()].concat()
    }

    /// Opens what [`Key::seal`] made; `None` when key, context or bytes differ.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        XChaCha20Poly1305::new(&self.0.into()).decrypt(&XNonce::from(nonce), Payload { msg: body, aad: context }).ok()
    }

    /// A keyed hash (HMAC-SHA-256).
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// A key of another purpose, derived from this one (HKDF-SHA-256).
    pub fn derive(&self, purpose: &str) -> Key {
        let mut out = [0; KEY_BYTES];
        Hkdf::<Sha256>::new(None, &self.0).expand(purpose.as_bytes(), &mut out).expect("32 bytes are within what HKDF can give");
        Key(out)
    }
}

/// SHA-256 of some bytes, in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The keys of a tenant, by purpose.
#[derive(Debug, Clone)]
pub struct TenantKeys {
    inner: Arc<Purposes>,
}

#[derive(Debug)]
struct Purposes {
    wrap: Key,
    lookup: Key,
    inbox: Key,
    token: Key,
    plugin: Key,
    check: Key,
    head: Key,
}

impl TenantKeys {
    /// Derives every key from the tenant's.
    pub fn new(tenant: &Key) -> TenantKeys {
        TenantKeys {
            inner: Arc::new(Purposes {
                wrap: tenant.derive("heyuan/v1/vault-wrap"),
                lookup: tenant.derive("heyuan/v1/lookup-hash/1"),
                inbox: tenant.derive("heyuan/v1/inbox"),
                token: tenant.derive("heyuan/v1/member-token"),
                plugin: tenant.derive("heyuan/v1/plugin-cache"),
                check: tenant.derive("heyuan/v1/check"),
                head: tenant.derive("heyuan/v1/chain-head"),
            }),
        }
    }

    /// Reads the key file, 64 hex digits; in the embedded mode a missing one is made, readable by its owner only.
    ///
    /// # Errors
    /// [`Error::TenantKey`] when it is missing or malformed, [`Error::File`].
    pub fn load(path: &Path, make_if_missing: bool) -> Result<TenantKeys, Error> {
        let file = |doing, source| Error::File { doing, path: path.display().to_string(), source };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && make_if_missing => {
                let text = hex::encode(Key::random().bytes());
                write_private(path, &text).map_err(|source| file("write the tenant key", source))?;
                text
            }
            Err(source) => return Err(file("read the tenant key", source)),
        };
        let bytes: Option<[u8; KEY_BYTES]> = hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| Error::TenantKey(format!("the tenant key in {} is not 64 hex digits", path.display())))?;
        Ok(TenantKeys::new(&Key(bytes)))
    }

    /// Stops a start with a key that is not this tenant's: the first start leaves a mark that only the right key opens.
    ///
    /// # Errors
    /// [`Error::TenantKey`] on a wrong key; [`Error::Database`].
    pub async fn verify(&self, db: &Database) -> Result<(), Error> {
        const NAME: &str = "tenant_key_check";
        let sealed = hex::encode(self.inner.check.seal(CHECK, b"check"));
        let row = sql::one(db.reader(), "SELECT value FROM kernel_setting WHERE name = $1", [NAME.into()]).await?;
        let stored: String = match row {
            Some(row) => sql::get(&row, "value")?,
            None => {
                db.write("mark the tenant key", move |tx| {
                    let sealed = sealed.clone();
                    async move {
                        sql::execute(
                            tx.conn(),
                            "INSERT INTO kernel_setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                            [NAME.into(), sealed.into()],
                        )
                        .await?;
                        let row = sql::one(tx.conn(), "SELECT value FROM kernel_setting WHERE name = $1", [NAME.into()]).await?;
                        let row = row.ok_or(Error::Corrupt { what: "tenant key mark", why: "it vanished".into() })?;
                        sql::get::<String>(&row, "value")
                    }
                    .boxed()
                })
                .await?
            }
        };
        let opened = hex::decode(stored).ok().and_then(|sealed| self.inner.check.open(&sealed, b"check"));
        if opened.as_deref() == Some(CHECK) {
            Ok(())
        } else {
            Err(Error::TenantKey("the tenant key is not the one that this tenant's data is sealed with".into()))
        }
    }

    /// Wraps the keys of identities.
    pub fn wrap(&self) -> &Key {
        &self.inner.wrap
    }

    /// Hashes identifiers for look-up, version 1.
    pub fn lookup(&self) -> &Key {
        &self.inner.lookup
    }

    /// Seals inbox blocks and rejected events.
    pub fn inbox(&self) -> &Key {
        &self.inner.inbox
    }

    /// Signs member tokens.
    pub fn token(&self) -> &Key {
        &self.inner.token
    }

    /// Authenticates compiled plugins.
    pub fn plugin(&self) -> &Key {
        &self.inner.plugin
    }

    /// Signs the heads of sealed chains.
    pub fn head(&self) -> &Key {
        &self.inner.head
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_values_open_only_with_key_and_context() {
        let key = Key::random();
        let sealed = key.seal("13812345678".as_bytes(), b"phone");
        assert_eq!(key.open(&sealed, b"phone").as_deref(), Some("13812345678".as_bytes()));
        assert_eq!(key.open(&sealed, b"email"), None);
        assert_eq!(Key::random().open(&sealed, b"phone"), None);
        assert_eq!(key.open(&sealed[..10], b"phone"), None);
        assert_ne!(key.derive("a").bytes(), key.derive("b").bytes());
        assert_ne!(key.mac(&[b"a", b"bc"]), key.mac(&[b"ab", b"c"]));
    }
}
