//! Compiled code between restarts and replicas: one file a plugin and engine, believed only with our mark on it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{Digest, Error};

const MAGIC: &[u8; 8] = b"heyuanc1";
const MARK_BYTES: usize = 32;

pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    /// What the code depends on besides the component.
    code_key: [u8; 32],
}

impl Cache {
    pub(crate) fn open(dir: &Path, key: [u8; 32], code_key: [u8; 32]) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|source| Error::Store {
            doing: "make the folder of compiled code",
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self { dir: dir.to_owned(), key, code_key })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}-{}.code", hex::encode(&self.code_key[..8])))
    }

    /// Over the plugin and the engine too, so that authentic code of another plugin can't be put under this name.
    fn mac(&self, digest: &Digest, code: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(MAGIC);
        mac.update(digest.as_bytes());
        mac.update(&self.code_key);
        mac.update(code);
        Some(mac)
    }

    /// The code of this plugin for this engine, if it is there and ours.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(digest);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Store { doing: "read compiled code", path, source }),
        };
        let header = MAGIC.len() + MARK_BYTES;
        let authentic = bytes.len() > header
            && bytes.starts_with(MAGIC)
            && self.mac(digest, &bytes[header..]).is_some_and(|mac| mac.verify_slice(&bytes[MAGIC.len()..header]).is_ok());
        if !authentic {
            return Err(Error::Tampered { path });
        }
        Ok(Some(bytes.split_off(header)))
    }

    /// Written beside and renamed: a crash or a second replica leaves a whole file or none.
    pub(crate) fn put(&self, digest: &Digest, code: &[u8]) -> Result<(), Error> {
        static UNFINISHED: AtomicU64 = AtomicU64::new(0);
        let path = self.path(digest);
        let failed = |doing| {
            let path = path.clone();
            move |source| Error::Store { doing, path, source }
        };
        let Some(mac) = self.mac(digest, code) else {
            return Err(failed("sign compiled code")(io::Error::other("the key has no use")));
        };
        let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
        let unfinished = path.with_extension(format!("{}-{number}", process::id()));
        let bytes = [MAGIC.as_slice(), &mac.finalize().into_bytes(), code].concat();
        fs::write(&unfinished, bytes).map_err(failed("write compiled code"))?;
        fs::rename(&unfinished, &path).map_err(failed("name compiled code"))
    }

    /// Sets a file that is not ours aside, so that it is kept for who looks into it and stops nobody.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        let aside = path.with_extension("refused");
        fs::rename(&path, aside).map_err(|source| Error::Store { doing: "set aside compiled code", path, source })
    }
}
