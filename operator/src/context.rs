//! What a reconciliation works with.

use crate::crd::{Tenant, TenantClass};
use crate::glances::Glances;
use crate::kubernetes::Kubernetes;
use crate::lately::Lately;
use crate::master::Master;
use crate::name;
use crate::tenant_api::TenantApi;
use crate::world::Config;
use kube::ResourceExt;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Everything shared between reconciliations.
pub(crate) struct Context {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) tenant_api: TenantApi,
    pub(crate) config: Config,
    pub(crate) classes: Store<TenantClass>,
    pub(crate) recorder: Recorder,
    /// What was written last, for caches lag behind one's own writes.
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    masters: Mutex<HashMap<String, Master>>,
    /// Held while a master is read, so that two who want the same one read it once.
    reading: Vec<tokio::sync::Mutex<()>>,
    /// What was last read of secrets in tenants' namespaces.
    pub(crate) glances: Glances,
    /// How pods that are being let in have answered.
    pub(crate) lately: Lately,
}

/// Masters that may be read at once.
const READING: usize = 64;

impl Context {
    pub(crate) fn new(
        kubernetes: Kubernetes,
        tenant_api: TenantApi,
        config: Config,
        classes: Store<TenantClass>,
        recorder: Recorder,
    ) -> Context {
        let reading = std::iter::repeat_with(tokio::sync::Mutex::default).take(READING).collect();
        let (tenants, masters) = (Mutex::default(), Mutex::default());
        let (glances, lately) = (Glances::new(config.resync), Lately::default());
        Context { kubernetes, tenant_api, config, classes, recorder, tenants, masters, reading, glances, lately }
    }

    /// A class by its name.
    pub(crate) fn class(&self, name: &str) -> Option<Arc<TenantClass>> {
        self.classes.get(&ObjectRef::new(name))
    }

    /// Whether the classes have been listed once.
    pub(crate) fn classes_are_known(&self) -> bool {
        futures::FutureExt::now_or_never(self.classes.wait_until_ready()).is_some()
    }

    /// The newer of what a watch told and what the API server answered to our own last write.
    pub(crate) fn newest(&self, tenant: Arc<Tenant>) -> Arc<Tenant> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        match tenants.get(&tenant.name_any()) {
            Some(known) if known.uid() == tenant.uid() && version(known) > version(&tenant) => known.clone(),
            _ => {
                tenants.remove(&tenant.name_any());
                tenant
            }
        }
    }

    /// Remembers what the API server answered to a write.
    pub(crate) fn remember(&self, mut tenant: Tenant) -> Arc<Tenant> {
        tenant.metadata.managed_fields = None;
        let tenant = Arc::new(tenant);
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.name_any(), tenant.clone());
        tenant
    }

    /// Forgets a tenant that is gone.
    pub(crate) fn forget(&self, tenant: &Tenant, data_id: &str) {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant.name_any());
        self.forget_master(data_id);
        self.glances.forget(&name::namespace(&tenant.name_any()));
    }

    /// Waits until nobody else reads this master, and keeps others from it meanwhile.
    pub(crate) async fn alone_with(&self, data_id: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let place = data_id.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.reading[place % READING].lock().await
    }

    /// The master as it was read or written last. Only the leader writes it, and a write on an old version is refused.
    pub(crate) fn known_master(&self, data_id: &str) -> Option<Master> {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner).get(data_id).cloned()
    }

    /// Remembers the master.
    pub(crate) fn remember_master(&self, master: Master) {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner).insert(master.record.data_id.clone(), master);
    }

    /// Forgets the master, so that it is read again.
    pub(crate) fn forget_master(&self, data_id: &str) {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner).remove(data_id);
    }
}

fn version(tenant: &Tenant) -> u64 {
    tenant.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default()
}
