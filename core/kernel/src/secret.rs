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
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

/// The length of every key, in bytes.
pub const KEY_BYTES: usize = 32;
/// The nonce that stands in front of every sealed value.
const NONCE_BYTES: usize = 24;
/// What a right key opens at start.
const CHECK: &[u8] = b"heyuan tenant key check";
/// The setting under which the data keeps it, sealed.
pub(crate) const TENANT_MARK: &str = "tenant_key_check";

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

    /// Reads the key file, 64 hex digits. With `make_if_missing` a missing one is made, readable by its owner only; a tenant whose data
    /// is marked already ([`TenantKeys::mark`]) has a key elsewhere, and none is made for it.
    ///
    /// # Errors
    /// [`Error::TenantKey`] when it is missing or malformed, [`Error::File`].
    pub fn load(path: &Path, make_if_missing: bool) -> Result<TenantKeys, Error> {
        let file = |doing, source| Error::File { doing, path: path.display().to_string(), source };
        if make_if_missing && !path.exists() {
            write_private(path, &hex::encode(Key::random().bytes())).map_err(|source| file("write the tenant key", source))?;
        }
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::TenantKey(format!(
                "there is no tenant key in {}; tenant.key_file names the file with the key of this tenant's data",
                path.display()
            )),
            _ => file("read the tenant key", source),
        })?;
        let bytes: Option<[u8; KEY_BYTES]> = hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| Error::TenantKey(format!("the tenant key in {} is not 64 hex digits", path.display())))?;
        Ok(TenantKeys::new(&Key(bytes)))
    }

    /// What the first start left in the data, for the right key to open; `None` where there was no start yet.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn mark(db: &Database) -> Result<Option<String>, Error> {
        let row = sql::one(db.reader(), "SELECT value FROM kernel_setting WHERE name = $1", [TENANT_MARK.into()]).await?;
        row.map(|row| sql::get(&row, "value")).transpose()
    }

    /// Stops a start with a key that is not this tenant's: the first start leaves a mark that only the right key opens.
    ///
    /// # Errors
    /// [`Error::TenantKey`] on a wrong key; [`Error::Database`].
    pub async fn verify(&self, db: &Database) -> Result<(), Error> {
        let sealed = hex::encode(self.inner.check.seal(CHECK, b"check"));
        let stored: String = match TenantKeys::mark(db).await? {
            Some(mark) => mark,
            None => {
                db.write("mark the tenant key", move |tx| {
                    let sealed = sealed.clone();
                    async move {
                        sql::execute(
                            tx.conn(),
                            "INSERT INTO kernel_setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                            [TENANT_MARK.into(), sealed.into()],
                        )
                        .await?;
                        let row = sql::one(tx.conn(), "SELECT value FROM kernel_setting WHERE name = $1", [TENANT_MARK.into()]).await?;
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

/// Makes a file that only its owner reads, whole or not at all; of two that make it at once the first stands for both.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".tenant.key.").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => std::fs::File::open(folder)?.sync_all(),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
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

    #[test]
    fn a_key_file_is_made_whole_and_only_once() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tenant.key");
        let missing = TenantKeys::load(&path, false).expect_err("nobody made it");
        assert!(matches!(missing, Error::TenantKey(_)) && !path.exists(), "{missing}");
        let made = TenantKeys::load(&path, true).expect("it is made");
        let read = TenantKeys::load(&path, true).expect("it is read");
        assert_eq!(made.wrap().bytes(), read.wrap().bytes());
        write_private(&path, "another").expect("who comes second makes none");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text.len(), 2 * KEY_BYTES);
        assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        let names: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(names, ["tenant.key"], "nothing is left beside it");
    }
}
