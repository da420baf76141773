//! How everything of a tenant is called, and the labels by which it is found again.

use crate::crd::Tenant;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

/// The tenant's name, on everything of it. Carried instead of an owner reference: nothing goes because a Tenant object goes.
pub(crate) const TENANT: &str = "heyuan.dev/tenant";
/// The data id, on everything of it.
pub(crate) const DATA: &str = "heyuan.dev/data";
/// What a pod is, in the words that tools know.
pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";
/// The proof, on a namespace, that the operator made it for this data.
pub(crate) const PROOF: &str = "heyuan.dev/proof";
/// A digest of what the operator wrote, on each child.
pub(crate) const INTENT: &str = "heyuan.dev/intent";
/// Keeps a Tenant until what belongs to it is retained or gone.
pub(crate) const FINALIZER: &str = "heyuan.dev/tenant";
/// Asks, with a new value, for another try of a release that was stopped.
pub(crate) const RETRY: &str = "heyuan.dev/retry";
/// Asks, with a new value, for a rotation now.
pub(crate) const ROTATE: &str = "heyuan.dev/rotate";
/// Who writes the children's fields.
pub(crate) const FIELD_MANAGER: &str = "heyuan-operator";
/// What ConfigMaps in the operator's namespace are about: `claim`, `retained`, `leftover`.
pub(crate) const RECORD: &str = "heyuan.dev/record";

/// Port that end apps reach.
pub(crate) const PORT: u16 = 8080;
/// Port that only the operator and Prometheus reach.
pub(crate) const OPERATOR_PORT: u16 = 8081;
/// Everything of a tenant in its namespace that there is one of is called so.
pub(crate) const APP: &str = "heyuan";
/// The secret with the first administrator's key.
pub(crate) const ADMIN_SECRET: &str = "heyuan-admin";
/// Characters of a data id.
const DATA_ID_CHARS: usize = 16;

/// The namespace of a tenant.
pub(crate) fn namespace(tenant: &str) -> String {
    format!("tenant-{tenant}")
}

/// The name of a tenant's data: random, since a uid is, and the same whenever it is asked for; or the data that it adopts.
pub(crate) fn data_id(tenant: &Tenant) -> String {
    match &tenant.spec.adopt {
        Some(id) => id.clone(),
        None => digest(tenant.uid().unwrap_or_default().as_bytes())[..DATA_ID_CHARS].to_owned(),
    }
}

/// The secret in the operator's namespace that holds the master copies of a tenant's keys.
pub(crate) fn master_secret(data_id: &str) -> String {
    format!("tenant-data-{data_id}")
}

/// The ConfigMap in the operator's namespace by which a host name belongs to one tenant.
pub(crate) fn host_claim(host: &str) -> String {
    format!("claim-host-{}", &digest(host.as_bytes())[..32])
}

/// SHA-256 in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
