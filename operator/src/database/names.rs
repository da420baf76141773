//! How the roles and the database of a tenant's data are called, and how it is proved that they are ours.

use super::Error;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// What everything of ours on a server begins with.
pub(super) const PREFIX: &str = "heyuan_";
/// Characters of a data id. With prefix and suffix a name stays far below the 63 bytes at which PostgreSQL cuts names in silence.
const DATA_ID_CHARS: usize = 16;
/// Fewest characters of the nonce behind a proof: the proof itself can be read by every role of the server.
const NONCE_CHARS_MIN: usize = 16;

/// A checked name of a role or database: it can stand in a statement.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// The name as the catalogs have it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    /// Quoted, as a statement wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A checked text: it can stand between the quotes of a statement.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Literal(String);

impl Literal {
    /// Accepts letters, digits and the marks of our own names, numbers, proofs and verifiers; nothing that could end a literal.
    pub(super) fn checked(text: impl Into<String>) -> Option<Literal> {
        let text = text.into();
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-$+/=".contains(&byte)).then_some(Literal(text))
    }

    /// The text itself.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Literal {
    /// Quoted, as a statement wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

/// One of the two roles as which a tenant logs in; they take turns at rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// `heyuan_<id>_a`.
    A,
    /// `heyuan_<id>_b`.
    B,
}

impl Login {
    /// Both.
    pub const BOTH: [Login; 2] = [Login::A, Login::B];

    /// The one that takes over.
    pub const fn other(self) -> Login {
        match self {
            Login::A => Login::B,
            Login::B => Login::A,
        }
    }
}

/// The names of what a tenant's data has on a server.
#[derive(Clone, PartialEq, Eq)]
pub struct DataNames {
    pub(super) data_id: String,
    pub(super) database: Name,
    pub(super) owner: Name,
    a: Name,
    b: Name,
}

impl DataNames {
    /// The names for a data id of 16 small letters and digits.
    pub fn of(data_id: &str) -> Result<DataNames, Error> {
        let fits = data_id.len() == DATA_ID_CHARS && data_id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !fits {
            return Err(Error::Invalid("a data id has 16 small letters and digits"));
        }
        let name = |suffix: &str| Name(format!("{PREFIX}{data_id}{suffix}"));
        Ok(DataNames { data_id: data_id.to_owned(), database: name(""), owner: name(""), a: name("_a"), b: name("_b") })
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        self.database.as_str()
    }

    /// The name of the role that owns the database and everything in it, and never logs in.
    pub fn owner(&self) -> &str {
        self.owner.as_str()
    }

    /// The name under which a tenant logs in.
    pub fn login(&self, login: Login) -> &str {
        self.role(login).as_str()
    }

    pub(super) fn role(&self, login: Login) -> &Name {
        match login {
            Login::A => &self.a,
            Login::B => &self.b,
        }
    }

    /// What stands as the comment of everything that is ours: `heyuan:<id>:<SHA-256 of the nonce>`.
    pub(super) fn mark(&self, proof: &str) -> Result<Literal, Error> {
        if proof.len() < NONCE_CHARS_MIN {
            return Err(Error::Invalid("the nonce of a proof has at least 16 characters"));
        }
        let hash = hex::encode(Sha256::digest(proof.as_bytes()));
        Ok(Literal::checked(format!("heyuan:{}:{hash}", self.data_id)).expect("a data id and hex digits have no quotes"))
    }

    /// The key of the advisory lock under which all SQL of this data runs.
    pub(super) fn lock_key(&self) -> i64 {
        let hash = Sha256::digest(format!("heyuan:{}", self.data_id).as_bytes());
        i64::from_be_bytes(hash[..8].try_into().expect("a hash has more than 8 bytes"))
    }
}

impl fmt::Debug for DataNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.database())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_ids_become_names() {
        for (data_id, fits) in [
            ("0123456789abcdef", true),
            ("zzzzzzzzzzzzzzzz", true),
            ("0123456789abcde", false),
            ("0123456789abcdefg", false),
            ("0123456789ABCDEF", false),
            ("0123456789abcde\"", false),
            ("0123456789abcd;-", false),
            ("", false),
        ] {
            assert_eq!(DataNames::of(data_id).is_ok(), fits, "{data_id}");
        }
    }

    #[test]
    fn literals_hold_nothing_that_ends_them() {
        for text in ["a'b", "a\\b", "a b", "a;b", "é", "a\0b"] {
            assert!(Literal::checked(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_proof_is_the_hash_of_its_nonce() {
        let names = DataNames::of("0123456789abcdef").expect("the id fits");
        let mark = names.mark("a-nonce-of-a-kind").expect("the nonce is long enough");
        assert_eq!(mark.as_str().len(), "heyuan:".len() + 16 + 1 + 64);
        assert!(!mark.as_str().contains("nonce"));
        assert_ne!(mark.as_str(), names.mark("a-nonce-of-two-kinds").expect("the nonce is long enough").as_str());
        assert!(names.mark("short").is_err());
    }
}
