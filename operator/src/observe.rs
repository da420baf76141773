//! Looking: everything that a decision about one tenant needs, from what is held in memory, with at most one read of a secret where the
//! tenant is as it should be.

use crate::context::Context;
use crate::crd::Tenant;
use crate::glances::Subject;
use crate::kind::Kind;
use crate::kubernetes::failure;
use crate::master::Master;
use crate::name;
use crate::reason::Part;
use crate::world::{Claim, Failure, MasterSeen, SecretSeen, World};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

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
        secret: SecretSeen::NotRead,
        external: SecretSeen::NotRead,
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
    glance_at_secrets(context, &mut world).await;
    Ok(world)
}

/// Reads the secrets that are due, and takes what is known of the others.
async fn glance_at_secrets(context: &Context, world: &mut World) {
    let ours = world.master().is_some_and(|master| {
        world.namespace().is_some_and(|live| crate::decide::is_ours(live, master))
            && world.live(Kind::RoleBinding, "heyuan-operator").is_some()
    });
    if !ours || world.tenant.metadata.deletion_timestamp.is_some() || world.tenant.spec.paused {
        return;
    }
    let (subject, tenant) = (subject(world), world.tenant.clone());
    let external = tenant.spec.database.external.as_ref().map(|external| external.secret_name.as_str());
    let secrets: Vec<&str> = [name::APP].into_iter().chain(external).collect();
    for secret in context.glances.due(&subject, &secrets, Instant::now()) {
        if let Err(failure) = read_secret(context, world, secret).await {
            world.failures.insert(Part::DatabaseReady, failure);
        }
    }
    world.secret = context.glances.seen(&subject, name::APP);
    world.external = external.map_or(SecretSeen::NotRead, |secret| context.glances.seen(&subject, secret));
}

/// Reads the tenant's secrets, whenever they were read last.
///
/// # Errors
/// What went wrong, in words.
pub(crate) async fn look_at_secrets(context: &Context, world: &mut World) -> Result<(), Failure> {
    world.secret = read_secret(context, world, name::APP).await?;
    if let Some(external) = world.tenant.spec.database.external.clone() {
        world.external = read_secret(context, world, &external.secret_name).await?;
    }
    Ok(())
}

async fn read_secret(context: &Context, world: &World, secret: &str) -> Result<SecretSeen, Failure> {
    let read = context.kubernetes.secret(&name::namespace(&world.name()), secret).await;
    let read = read.map_err(|error| failure(&format!("read the secret {secret} of the tenant's namespace"), &error))?;
    let seen = read.map_or(SecretSeen::Missing, |secret| seen(world, &secret));
    context.glances.keep(&subject(world), secret, seen.clone(), Instant::now());
    Ok(seen)
}

/// Remembers the copy of the secret as the API server answered to a write.
pub(crate) fn keep_secret(context: &Context, world: &World, written: &Value) {
    context.glances.keep(&subject(world), name::APP, seen(world, written), Instant::now());
}

fn seen(world: &World, secret: &Value) -> SecretSeen {
    SecretSeen::Holds { mark: world.mark(&secret["data"]), has_url: secret["data"]["url"].is_string() }
}

fn subject(world: &World) -> Subject {
    let tenant = &world.tenant;
    let uid = world.namespace().and_then(|namespace| namespace["metadata"]["uid"].as_str()).unwrap_or_default().to_owned();
    let asked = name::digest(format!("{:?} {:?}", tenant.metadata.generation, tenant.annotations()).as_bytes());
    Subject { namespace: name::namespace(&world.name()), uid, asked, settled: world.was_ready() }
}

/// The master secret; read once, then known.
pub(crate) async fn master(context: &Context, data_id: &str) -> Result<MasterSeen, kube::Error> {
    if let Some(master) = context.known_master(data_id) {
        return Ok(MasterSeen::There(Box::new(master)));
    }
    let _alone = context.alone_with(data_id).await;
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
