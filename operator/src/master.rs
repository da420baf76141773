//! The master copies of a tenant's keys and what the operator must remember of its data: one secret in the operator's namespace.

use crate::crd::DatabaseServer;
use crate::database::Login;
use crate::name;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Key of the secret under which the record stands.
const RECORD: &str = "record";

/// A secret text; it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(String);

impl Hidden {
    /// Hides a text.
    pub(crate) fn new(text: impl Into<String>) -> Hidden {
        Hidden(text.into())
    }

    /// The text itself, for where it has to go.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// Where the data lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Home {
    /// On a server of a class.
    Managed {
        /// The server's name in the class.
        server: String,
    },
    /// In a database that somebody else keeps.
    External,
    /// On the tenant's volume.
    Embedded,
}

/// A rotation that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Turning {
    /// The login that takes over.
    pub(crate) to: Login,
    /// Since when.
    pub(crate) since: Timestamp,
    /// Whether the new login has been opened on the server, so that the tenant may be told.
    pub(crate) opened: bool,
}

/// The schema as a migration job left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SchemaDone {
    /// The image that ran the job.
    pub(crate) image: String,
    /// Migrations that are applied.
    pub(crate) level: i64,
}

/// What the operator must remember; no secret stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The data's name.
    pub(crate) data_id: String,
    /// The tenant that holds it, or held it last.
    pub(crate) tenant: String,
    /// Uid of the Tenant object that holds it; `None` once retained.
    pub(crate) holder: Option<String>,
    /// When it was made.
    pub(crate) made_at: Timestamp,
    /// Where it lies.
    pub(crate) home: Home,
    /// How the server was last reached, for when the class is gone.
    #[serde(default)]
    pub(crate) server: Option<DatabaseServer>,
    /// Whether the database stands with its roles.
    pub(crate) database_made: bool,
    /// Sessions that each of the logins may have; 0 where it is not known.
    #[serde(default)]
    pub(crate) connections: u32,
    /// Version of the server, as PostgreSQL numbers it (160003).
    #[serde(default)]
    pub(crate) server_version: u32,
    /// Whether the database could not be reached at the tenant's end; it is retained or removed when it can be.
    #[serde(default)]
    pub(crate) leftover: bool,
    /// The login that the tenant uses.
    pub(crate) active: Login,
    /// When the active login's password was made.
    pub(crate) password_at: Timestamp,
    /// A rotation that has begun.
    #[serde(default)]
    pub(crate) turning: Option<Turning>,
    /// The last value of the annotation that asks for a rotation.
    #[serde(default)]
    pub(crate) rotate_seen: Option<String>,
    /// The schema as a migration job left it.
    #[serde(default)]
    pub(crate) schema: Option<SchemaDone>,
    /// The release before which an embedded database's file was copied; `None` once the copy is gone.
    #[serde(default)]
    pub(crate) copy: Option<String>,
    /// Whether the administrator's key has reached tenant and secret; the secret is then the administrator's to keep or delete.
    #[serde(default)]
    pub(crate) admin_delivered: bool,
    /// Digest of the units that the tenant has taken.
    #[serde(default)]
    pub(crate) units_delivered: Option<String>,
}

/// Record and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Master {
    /// What is remembered.
    pub(crate) record: Record,
    /// The tenant's encryption key, 64 hex digits.
    pub(crate) tenant_key: Hidden,
    /// What the operator shows to the tenant's process.
    pub(crate) operator_key: Hidden,
    /// The first administrator's API key.
    pub(crate) admin_key: Hidden,
    /// Proves on namespace, database and roles that the operator made them.
    pub(crate) proof: Hidden,
    /// Passwords of the two logins; the idle one's is empty.
    pub(crate) passwords: BTreeMap<Login, Hidden>,
    /// The secret's version as it was read; `None` before it is written.
    pub(crate) version: Option<String>,
}

impl Master {
    /// Fresh keys for new data.
    pub(crate) fn make(data_id: &str, tenant: &str, holder: &str, home: Home, now: Timestamp) -> Master {
        let record = Record {
            data_id: data_id.to_owned(),
            tenant: tenant.to_owned(),
            holder: Some(holder.to_owned()),
            made_at: now,
            home,
            server: None,
            database_made: false,
            connections: 0,
            server_version: 0,
            leftover: false,
            active: Login::A,
            password_at: now,
            turning: None,
            rotate_seen: None,
            schema: None,
            copy: None,
            admin_delivered: false,
            units_delivered: None,
        };
        Master {
            record,
            tenant_key: Hidden::new(hex::encode(rand::random::<[u8; 32]>())),
            operator_key: random_text(""),
            admin_key: random_text("hyk_"),
            proof: random_text(""),
            passwords: BTreeMap::from([(Login::A, random_text("")), (Login::B, Hidden::new(""))]),
            version: None,
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// What is wrong with it, without a value.
    pub(crate) fn read(secret: &Value) -> Result<Master, String> {
        let text = |key: &str| -> Result<String, String> {
            let encoded =
                secret.pointer(&format!("/data/{key}")).and_then(Value::as_str).ok_or_else(|| format!("it has no key `{key}`"))?;
            let bytes = STANDARD.decode(encoded).map_err(|_| format!("`{key}` is not base64"))?;
            String::from_utf8(bytes).map_err(|_| format!("`{key}` is not text"))
        };
        let record = serde_json::from_str(&text(RECORD)?).map_err(|error| format!("`{RECORD}` can't be read: {error}"))?;
        Ok(Master {
            record,
            tenant_key: Hidden::new(text("tenant-key")?),
            operator_key: Hidden::new(text("operator-key")?),
            admin_key: Hidden::new(text("admin-key")?),
            proof: Hidden::new(text("proof")?),
            passwords: BTreeMap::from([(Login::A, Hidden::new(text("password-a")?)), (Login::B, Hidden::new(text("password-b")?))]),
            version: secret.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// The secret as it is written; with the version that was read, so that nobody's change is lost.
    pub(crate) fn write(&self, namespace: &str) -> Value {
        let record = serde_json::to_string(&self.record).unwrap_or_default();
        let fields = [
            (RECORD, record.as_str()),
            ("tenant-key", self.tenant_key.reveal()),
            ("operator-key", self.operator_key.reveal()),
            ("admin-key", self.admin_key.reveal()),
            ("proof", self.proof.reveal()),
            ("password-a", self.password(Login::A).reveal()),
            ("password-b", self.password(Login::B).reveal()),
        ];
        let data: BTreeMap<&str, String> = fields.into_iter().map(|(key, text)| (key, STANDARD.encode(text))).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "heyuan.dev/tenant-data",
            "metadata": {
                "name": name::master_secret(&self.record.data_id),
                "namespace": namespace,
                "resourceVersion": self.version,
                "labels": { name::TENANT: self.record.tenant, name::DATA: self.record.data_id, "app.kubernetes.io/managed-by": name::FIELD_MANAGER },
            },
            "data": data,
        })
    }

    /// The password of a login.
    pub(crate) fn password(&self, login: Login) -> &Hidden {
        static NONE: Hidden = Hidden(String::new());
        self.passwords.get(&login).unwrap_or(&NONE)
    }

    /// The login that the tenant's secret names: the new one as soon as it is open.
    pub(crate) fn login(&self) -> Login {
        match &self.record.turning {
            Some(turning) if turning.opened => turning.to,
            _ => self.record.active,
        }
    }
}

/// 192 random bits as text, safe in URLs.
pub(crate) fn random_text(prefix: &str) -> Hidden {
    Hidden(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>())))
}
