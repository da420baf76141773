//! Looking: everything that a decision about one tenant needs, from what is held in memory, with one read of a secret.

use crate::context::Context;
use crate::crd::Tenant;
use crate::kind::Kind;
use crate::kubernetes::failure;
use crate::master::Master;
use crate::name;
use crate::reason::Part;
use crate::world::{Claim, ExternalUrl, MasterSeen, World};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Looks at a tenant.
///
/// # Errors
/// Where the API server does not answer.
pub(crate) async fn observe(context: &Context, tenant: &Arc<Tenant>) -> Result<World, kube::Error> {
    let tenant_name = tenant.name_any();
    let namespace = name::namespace(&tenant_name);
    let live = &context.kubernetes.live;
    let mut world = World {
        tenant: tenant.clone(),
        class: context.class(&tenant.spec.class),
        now: Timestamp::now(),
        master: master(context, &name::data_id(tenant)).await?,
        claims: claims(context, tenant),
        live: live.of_namespace(&namespace),
        secret: None,
        external: ExternalUrl::NotAsked,
        report: None,
        pods: None,
        turn: None,
        failures: BTreeMap::new(),
    };
    if world.namespace().is_none() {
        // A namespace without our label is not watched; it may be there all the same.
        if let Some(stranger) = context.kubernetes.read(Kind::Namespace, None, &namespace).await? {
            world.live.insert((Kind::Namespace, namespace), stranger);
        }
        return Ok(world);
    }
    look_at_secrets(context, &mut world, &namespace).await;
    Ok(world)
}

async fn look_at_secrets(context: &Context, world: &mut World, namespace: &str) {
    let ours = world.master().is_some_and(|master| {
        world.namespace().is_some_and(|live| crate::decide::is_ours(live, master))
            && world.live(Kind::RoleBinding, "heyuan-operator").is_some()
    });
    if !ours || world.tenant.metadata.deletion_timestamp.is_some() {
        return;
    }
    match context.kubernetes.secret(namespace, name::APP).await {
        Ok(secret) => world.secret = secret.map(|secret| name::digest(secret["data"].to_string().as_bytes())),
        Err(error) => {
            world.failures.insert(Part::DatabaseReady, failure("read the tenant's secret", &error));
        }
    }
    let Some(external) = world.tenant.spec.database.external.clone() else { return };
    world.external = match context.kubernetes.secret(namespace, &external.secret_name).await {
        Ok(None) => ExternalUrl::Missing,
        Ok(Some(secret)) if secret["data"]["url"].is_string() => ExternalUrl::There,
        Ok(Some(_)) => ExternalUrl::WithoutUrl,
        Err(error) => {
            world.failures.insert(Part::DatabaseReady, failure("read the secret of the external database", &error));
            ExternalUrl::Missing
        }
    };
}

/// The master secret; read once, then known.
pub(crate) async fn master(context: &Context, data_id: &str) -> Result<MasterSeen, kube::Error> {
    if let Some(master) = context.known_master(data_id) {
        return Ok(MasterSeen::There(Box::new(master)));
    }
    let secret = context.kubernetes.secret(&context.config.namespace, &name::master_secret(data_id)).await?;
    Ok(match secret.map(|secret| Master::read(&secret)) {
        None => MasterSeen::Missing,
        Some(Err(words)) => MasterSeen::Damaged(words),
        Some(Ok(master)) => {
            context.remember_master(master.clone());
            MasterSeen::There(Box::new(master))
        }
    })
}

/// Claims of the names that the tenant wants, and of those that it holds. Every other tenant's lie beside them and are not read.
fn claims(context: &Context, tenant: &Tenant) -> BTreeMap<String, Claim> {
    let (live, namespace, uid) = (&context.kubernetes.live, &context.config.namespace, tenant.uid().unwrap_or_default());
    let wanted = tenant.spec.hosts.iter().filter_map(|host| live.get(namespace, Kind::ConfigMap, &name::host_claim(host)));
    let held = live.mentioning(namespace, Kind::ConfigMap, &uid);
    let claim = |record: &Value| {
        let text = |field: &str| record["data"][field].as_str().map(str::to_owned);
        Some((text("host")?, Claim { tenant: text("tenant")?, holder: text("holder")? }))
    };
    wanted
        .chain(held)
        .filter(|record| record["metadata"]["labels"][name::RECORD] == "claim")
        .filter_map(|record| claim(&record))
        .filter(|(host, claim)| tenant.spec.hosts.contains(host) || claim.holder == uid)
        .collect()
}
