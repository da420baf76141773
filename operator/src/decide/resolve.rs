//! What a tenant gets of its class: the release, the size, the server, the volume, within the class's limits.

use super::Walk;
use crate::agree::quantity;
use crate::crd::{DatabaseServer, Release, Size, Tenant, TenantClass};
use crate::master::Home;
use crate::name;
use crate::reason::{Part, Reason};
use crate::render::{Replicas, Shape};
use crate::world::{Config, World};
use kube::ResourceExt;
use std::sync::Arc;

/// What a tenant gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    /// Its class.
    pub(crate) class: Arc<TenantClass>,
    /// The release that it should run.
    pub(crate) release: Release,
    /// Resources of a process.
    pub(crate) size: Size,
    /// The database server, for a managed database.
    pub(crate) server: Option<DatabaseServer>,
    /// Processes.
    pub(crate) replicas: Replicas,
    /// Size of the volume.
    pub(crate) volume_size: String,
}

/// Finds in the class what the tenant asks for.
///
/// # Errors
/// The reason and the words for what does not fit.
pub(crate) fn resolve(tenant: &Tenant, class: &Arc<TenantClass>) -> Result<Resolved, (Reason, String)> {
    let (spec, offer, class_name) = (&tenant.spec, &class.spec, class.name_any());
    let release_name = spec.release.as_ref().unwrap_or(&offer.release);
    let release = offer.releases.iter().find(|one| one.name == *release_name).ok_or_else(|| {
        let known: Vec<&str> = offer.releases.iter().map(|one| one.name.as_str()).collect();
        (Reason::ReleaseUnknown, format!("class {class_name} lists no release {release_name}; it has {}", known.join(", ")))
    })?;
    let size_name = spec.size.as_ref().unwrap_or(&offer.defaults.size);
    let size = offer.sizes.iter().find(|one| one.name == *size_name).ok_or_else(|| {
        let known: Vec<&str> = offer.sizes.iter().map(|one| one.name.as_str()).collect();
        (Reason::SizeUnknown, format!("class {class_name} lists no size {size_name}; it has {}", known.join(", ")))
    })?;
    let embedded = spec.database.embedded.is_some();
    let replicas = match (&spec.autoscaling, spec.replicas) {
        (Some(scaling), _) => Replicas::Scaled { min: scaling.min_replicas, max: scaling.max_replicas, cpu_percent: scaling.cpu_percent },
        (None, Some(count)) => Replicas::Fixed(count),
        (None, None) => Replicas::Fixed(if embedded { 1 } else { offer.defaults.replicas }),
    };
    if replicas.most() > offer.limits.replicas_max {
        let words =
            format!("{} processes are more than limits.replicasMax of class {class_name}, {}", replicas.most(), offer.limits.replicas_max);
        return Err((Reason::BeyondLimits, words));
    }
    if replicas.most() > 1 && offer.storage.shared_class_name.is_none() {
        let words = format!("{} processes share a volume, and class {class_name} names no storage.sharedClassName", replicas.most());
        return Err((Reason::SharedStorageMissing, words));
    }
    let volume_size = spec.storage.volume_size.as_ref().unwrap_or(&offer.defaults.volume_size);
    if quantity(volume_size) > quantity(&offer.limits.volume_size_max) {
        let words = format!(
            "storage.volumeSize {volume_size} is more than limits.volumeSizeMax of class {class_name}, {}",
            offer.limits.volume_size_max
        );
        return Err((Reason::BeyondLimits, words));
    }
    if let Some(host) = spec.hosts.iter().find(|host| !allowed(host, &offer.limits.host_suffixes)) {
        let words =
            format!("host {host} ends in none of limits.hostSuffixes of class {class_name}: {}", offer.limits.host_suffixes.join(", "));
        return Err((Reason::BeyondLimits, words));
    }
    Ok(Resolved {
        class: class.clone(),
        release: release.clone(),
        size: size.clone(),
        server: server(tenant, class)?,
        replicas,
        volume_size: volume_size.clone(),
    })
}

fn server(tenant: &Tenant, class: &TenantClass) -> Result<Option<DatabaseServer>, (Reason, String)> {
    let Some(managed) = &tenant.spec.database.managed else { return Ok(None) };
    let servers = &class.spec.database.servers;
    let found = match &managed.server {
        Some(wanted) => servers.iter().find(|one| one.name == *wanted),
        None => servers.first(),
    };
    found.cloned().map(Some).ok_or_else(|| {
        let wanted = managed.server.as_deref().unwrap_or("for tenants that name none");
        (Reason::ServerUnknown, format!("class {} lists no database server {wanted}", class.name_any()))
    })
}

/// Whether a host name is one of the ends, or lies below one.
fn allowed(host: &str, suffixes: &[String]) -> bool {
    suffixes.is_empty()
        || suffixes.iter().any(|suffix| {
            let suffix = suffix.trim_start_matches("*.").trim_start_matches('.');
            host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
        })
}

impl Resolved {
    /// Connections that a tenant may open: each process its pool, one process more during a rollout, and the migration.
    pub(crate) fn connections(&self) -> u32 {
        let processes = u32::try_from(self.replicas.most()).unwrap_or(1) + 1;
        processes * u32::try_from(self.size.connections).unwrap_or(1) + 2
    }

    /// Everything that objects are made from.
    pub(crate) fn shape(&self, world: &World, config: &Config, home: &Home) -> Shape {
        let (spec, offer) = (&world.tenant.spec, &self.class.spec);
        let shared = self.replicas.most() > 1;
        Shape {
            tenant: world.name(),
            namespace: name::namespace(&world.name()),
            data_id: name::data_id(&world.tenant),
            operator_namespace: config.namespace.clone(),
            home: home.clone(),
            server: self.server.clone(),
            external_secret: spec.database.external.as_ref().map(|external| external.secret_name.clone()),
            size: self.size.clone(),
            replicas: self.replicas,
            volume_size: self.volume_size.clone(),
            storage_class: if shared { offer.storage.shared_class_name.clone() } else { offer.storage.class_name.clone() },
            shared,
            time_zone: spec.time_zone.clone(),
            hosts: spec.hosts.clone(),
            ingress: offer.ingress.clone(),
            network: offer.network.clone(),
            gate_seconds: offer.rollout.gate_seconds,
            ready_seconds_max: offer.rollout.ready_seconds_max,
            migration_seconds_max: offer.rollout.migration_seconds_max,
        }
    }

    /// Where the data of a new tenant will lie.
    pub(super) fn home(&self, tenant: &Tenant) -> Home {
        match (&self.server, &tenant.spec.database.external) {
            (Some(server), _) => Home::Managed { server: server.name.clone() },
            (None, Some(_)) => Home::External,
            (None, None) => Home::Embedded,
        }
    }
}

impl Walk<'_> {
    /// Class, release, size and limits.
    pub(super) fn class(&mut self) -> Option<Resolved> {
        let wanted = &self.world.tenant.spec.class;
        let Some(class) = &self.world.class else {
            self.find(Part::ClassResolved, Reason::ClassMissing, format!("there is no TenantClass {wanted}"));
            return None;
        };
        match resolve(&self.world.tenant, class) {
            Ok(resolved) => {
                let words = format!("class {wanted}, release {}, size {}", resolved.release.name, resolved.size.name);
                self.find(Part::ClassResolved, Reason::ClassFits, words);
                Some(resolved)
            }
            Err((reason, words)) => {
                self.find(Part::ClassResolved, reason, words);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_end_where_the_class_says() {
        let ends = ["example.com".to_owned(), "*.mall.cn".to_owned()];
        for (host, fits) in [
            ("example.com", true),
            ("a.example.com", true),
            ("badexample.com", false),
            ("x.mall.cn", true),
            ("example.com.evil.org", false),
        ] {
            assert_eq!(allowed(host, &ends), fits, "{host}");
        }
        assert!(allowed("anything.org", &[]));
    }
}
