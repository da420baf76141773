//! What was seen of a tenant at one moment: all that the decision may look at.

use crate::crd::{Tenant, TenantClass};
use crate::kind::Kind;
use crate::master::Master;
use crate::name;
use crate::reason::{Part, Reason};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the operator itself is told.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where the operator runs; the master copies of all keys are there.
    pub(crate) namespace: String,
    /// The account that it runs under.
    pub(crate) service_account: String,
    /// How often something that is underway is looked at.
    pub(crate) poll_ms: u64,
    /// How often a tenant that is as it should be is looked at; what was read of its secrets holds as long.
    pub(crate) resync: Duration,
    /// How long a rotation may take until it is called stuck.
    pub(crate) rotation_seconds_max: i64,
    /// How long a deletion may be held up by a database until what is left is written down and the tenant goes.
    pub(crate) leftover_seconds: i64,
}

/// The master secret, as far as it is there.
#[derive(Debug, Clone)]
pub(crate) enum MasterSeen {
    /// There is none.
    Missing,
    /// It can't be read; the words say why.
    Damaged(String),
    /// It is there.
    There(Box<Master>),
}

/// Who has claimed a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The tenant's name.
    pub(crate) tenant: String,
    /// Uid of its object.
    pub(crate) holder: String,
}

/// What is known of a secret in the tenant's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSeen {
    /// It was not read.
    NotRead,
    /// There is none.
    Missing,
    /// It is there.
    Holds {
        /// Of its content; see [`World::mark`].
        mark: String,
        /// Whether it has a key `url`, as that of an external database must.
        has_url: bool,
    },
}

/// A serving pod of the release that is being let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodSeen {
    /// Its name.
    pub(crate) name: String,
    /// Its image.
    pub(crate) image: String,
    /// For how long it has been ready; `None` while it is not.
    pub(crate) ready_seconds: Option<i64>,
    /// What a container waits for or died of, in Kubernetes' words.
    pub(crate) trouble: Option<String>,
    /// Its answers within the gate's time, or since its start where that is shorter; `None` where it did not say.
    pub(crate) answers: Option<Answers>,
}

/// Answers of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Answers {
    /// All of them.
    pub(crate) all: u64,
    /// Those with a status of 500 and more.
    pub(crate) errors: u64,
}

/// How far a tenant's processes have gone over to a new password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TurnSeen {
    /// Sessions of the old login on the server.
    pub(crate) old_sessions: i64,
    /// Pods that still use the old password, or don't answer.
    pub(crate) behind: Vec<String>,
}

/// Something that an effect ran into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its reason.
    pub(crate) reason: Reason,
    /// What happened, in words.
    pub(crate) message: String,
}

/// Everything that was seen.
#[derive(Debug)]
pub(crate) struct World {
    /// The tenant's object.
    pub(crate) tenant: Arc<Tenant>,
    /// Its class, if there is one.
    pub(crate) class: Option<Arc<TenantClass>>,
    /// The moment.
    pub(crate) now: Timestamp,
    /// The master secret.
    pub(crate) master: MasterSeen,
    /// Claims of the wanted host names that exist, and of others that this tenant holds.
    pub(crate) claims: BTreeMap<String, Claim>,
    /// The objects of the tenant's namespace and the namespace itself.
    pub(crate) live: BTreeMap<(Kind, String), Value>,
    /// The copy of the secret.
    pub(crate) secret: SecretSeen,
    /// The secret of an external database.
    pub(crate) external: SecretSeen,
    /// The report of the migration job of the wanted release, where it ended well.
    pub(crate) report: Option<Result<SchemaReport, String>>,
    /// What was found where the decision asked to look.
    pub(crate) pods: Option<Vec<PodSeen>>,
    /// The same for a rotation.
    pub(crate) turn: Option<TurnSeen>,
    /// What effects ran into during this reconciliation.
    pub(crate) failures: BTreeMap<Part, Failure>,
}

/// What `heyuan migrate` said at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SchemaReport {
    /// Migrations that are applied.
    pub(crate) level: i64,
    /// Whether this release may serve on the schema.
    pub(crate) may_serve: bool,
    /// Why, in words.
    pub(crate) words: String,
}

impl World {
    /// The tenant's name.
    pub(crate) fn name(&self) -> String {
        self.tenant.name_any()
    }

    /// Uid of the tenant's object.
    pub(crate) fn uid(&self) -> String {
        self.tenant.uid().unwrap_or_default()
    }

    /// The tenant's namespace, if it is there.
    pub(crate) fn namespace(&self) -> Option<&Value> {
        self.live(Kind::Namespace, &name::namespace(&self.name()))
    }

    /// An object of the tenant's.
    pub(crate) fn live(&self, kind: Kind, object: &str) -> Option<&Value> {
        self.live.get(&(kind, object.to_owned()))
    }

    /// A digest of what stands in the copy of the secret, in this very namespace; what others keep beside is theirs.
    pub(crate) fn mark(&self, data: &Value) -> String {
        let uid = self.namespace().and_then(|namespace| namespace["metadata"]["uid"].as_str()).unwrap_or_default();
        let mut text = uid.to_owned();
        for key in crate::render::COPIED {
            text = format!("{text}\n{key}={}", data[key].as_str().unwrap_or_default());
        }
        name::digest(text.as_bytes())
    }

    /// Whether the tenant was as its spec wishes when its status was written.
    pub(crate) fn was_ready(&self) -> bool {
        self.tenant
            .status
            .as_ref()
            .is_some_and(|status| status.state.as_deref() == Some("Ready") && status.observed_generation == self.tenant.metadata.generation)
    }

    /// The master, if it is there.
    pub(crate) fn master(&self) -> Option<&Master> {
        match &self.master {
            MasterSeen::There(master) => Some(master),
            MasterSeen::Missing | MasterSeen::Damaged(_) => None,
        }
    }
}
