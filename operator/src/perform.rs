//! Doing: each step of a decision, so that it may be done twice and broken off anywhere.

use crate::context::Context;
use crate::crd::{DatabaseServer, Tenant};
use crate::database::{self, DataNames, Limits, Login, Server};
use crate::decide::{Resolved, Step};
use crate::kind::Kind;
use crate::kubernetes::{failure, is_status};
use crate::master::{Hidden, Home, Master, random_text};
use crate::name::{self, RECORD};
use crate::reason::Reason;
use crate::render;
use crate::tenant_api::TenantError;
use crate::world::{Failure, SchemaReport, World};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::time::Duration;

/// How often, and after which pause, a right that was just given is waited for.
const RIGHTS: (u32, Duration) = (20, Duration::from_millis(50));
/// Where PostgreSQL keeps what belongs to no tenant.
const MAINTENANCE_DATABASE: &str = "postgres";

/// What a step did to what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// Look again, and decide again.
    LookAgain,
    /// What was seen was completed in place; only decide again.
    Seen,
    /// The tenant is gone.
    Gone,
}

/// Performs a step.
///
/// # Errors
/// What went wrong, in words for the part's condition.
pub(crate) async fn perform(context: &Context, world: &mut World, step: Step) -> Result<Done, Failure> {
    let kubernetes = &context.kubernetes;
    let tenant = world.tenant.clone();
    if matches!(step, Step::RemoveMaster | Step::RemoveDatabase | Step::Remove(Kind::Namespace, _))
        && let Some(done) = see_anew(context, &tenant).await?
    {
        return Ok(done);
    }
    match step {
        Step::AddFinalizer => finalizers(context, &tenant, true).await.map(|()| Done::LookAgain),
        Step::RemoveFinalizer => {
            finalizers(context, &tenant, false).await?;
            context.forget(&tenant, &name::data_id(&tenant));
            Ok(Done::Gone)
        }
        Step::MakeMaster { data_id, home } => make_master(context, world, &data_id, home).await,
        Step::WriteMaster(master) => write_master(context, *master).await,
        Step::TakeOver => take_over(context, world).await,
        Step::RemoveMaster => remove_master(context, world).await,
        Step::ClaimHost(host) => claim(context, world, &host).await,
        Step::ReleaseHost(host) => remove(context, Kind::ConfigMap, Some(&context.config.namespace), &name::host_claim(&host)).await,
        Step::Create(object) => create(context, &object).await,
        Step::Apply(object) => apply(context, &object).await,
        Step::CopySecret(shape) => {
            let Some(master) = world.master() else { return Ok(Done::LookAgain) };
            let secret = render::secret(&shape, master);
            let written = kubernetes.apply_secret(&secret).await.map_err(|error| failure("write the tenant's secret", &error))?;
            crate::observe::keep_secret(context, world, &written);
            Ok(Done::LookAgain)
        }
        Step::DeliverAdminSecret(shape) => {
            let Some(master) = world.master() else { return Ok(Done::LookAgain) };
            let secret = render::admin_secret(&shape, master);
            let there = kubernetes.secret(&shape.namespace, name::ADMIN_SECRET).await;
            let there = there.map_err(|error| failure("read the administrator's secret", &error))?;
            if there.is_none_or(|there| there["data"] != secret["data"]) {
                kubernetes.apply_secret(&secret).await.map_err(|error| failure("write the administrator's secret", &error))?;
            }
            Ok(Done::Seen)
        }
        Step::Remove(Kind::Namespace, object) => remove(context, Kind::Namespace, None, &object).await,
        Step::Remove(kind, object) => remove(context, kind, Some(&name::namespace(&world.name())), &object).await,
        Step::ProvisionDatabase(resolved) => provision(context, world, &resolved).await,
        Step::LimitConnections(resolved) => limit_connections(context, world, &resolved).await,
        Step::OpenLogin(resolved) => open_login(context, world, &resolved).await,
        Step::CloseLogin(resolved) => close_login(context, world, &resolved).await,
        Step::RetainDatabase => end_database(context, world, false).await,
        Step::RemoveDatabase => end_database(context, world, true).await,
        Step::DeliverUnits => deliver_units(context, world).await,
        Step::DeliverAdminKey => deliver_admin_key(context, world).await,
        Step::DropCopy => drop_copy(context, world).await,
        Step::LookAtPods(image) => {
            let pods = crate::pods::look(context, world, &image).await.map_err(|error| failure("look at the pods", &error))?;
            world.pods = Some(pods);
            Ok(Done::Seen)
        }
        Step::LookAtSecrets => crate::observe::look_at_secrets(context, world).await.map(|()| Done::Seen),
        Step::LookAtTurn(resolved) => look_at_turn(context, world, &resolved).await,
        Step::ReadReport(job) => {
            let report = read_report(context, &name::namespace(&world.name()), &job).await;
            world.report = Some(report.map_err(|error| failure("read the migration's report", &error))?);
            Ok(Done::Seen)
        }
        Step::RecordRetained => record_retained(context, world).await,
        Step::RecordLeftover(words) => record_leftover(context, world, &words).await,
    }
}

/// What is to be done first where a tenant is not as it was seen: watches tell late, and what takes data away must not be done for a wish
/// that is no longer one.
async fn see_anew(context: &Context, tenant: &Tenant) -> Result<Option<Done>, Failure> {
    let api: Api<Tenant> = Api::all(context.kubernetes.client.clone());
    let answer = context.kubernetes.other("get", "Tenant", api.get_opt(&tenant.name_any())).await;
    let now = answer.map_err(|error| failure("read the tenant before its data is removed", &error))?;
    Ok(match now {
        Some(now) if now.uid() == tenant.uid() && now.resource_version() == tenant.resource_version() => None,
        Some(now) if now.uid() == tenant.uid() => {
            context.remember(now);
            Some(Done::LookAgain)
        }
        _ => Some(Done::Gone),
    })
}

async fn finalizers(context: &Context, tenant: &Tenant, present: bool) -> Result<(), Failure> {
    let mut list: Vec<String> = tenant.finalizers().to_vec();
    list.retain(|one| one != name::FINALIZER);
    if present {
        list.push(name::FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": { "finalizers": list, "resourceVersion": tenant.resource_version() } });
    let api: Api<Tenant> = Api::all(context.kubernetes.client.clone());
    let how = PatchParams { field_manager: Some(name::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let answer = context.kubernetes.other("patch", "Tenant", api.patch(&tenant.name_any(), &how, &Patch::Merge(patch))).await;
    match answer {
        Ok(tenant) => {
            context.remember(tenant);
            Ok(())
        }
        Err(error) if !present && is_status(&error, 404) => Ok(()),
        Err(error) => Err(failure("change the tenant's finalizers", &error)),
    }
}

async fn make_master(context: &Context, world: &World, data_id: &str, home: Home) -> Result<Done, Failure> {
    let master = Master::make(data_id, &world.name(), &world.uid(), home, Timestamp::now());
    let secret = master.write(&context.config.namespace);
    let made = context.kubernetes.create_secret(&secret).await;
    // Where there is one already, another try of ours made it; it is read in the next look.
    if let Some(made) = made.map_err(|error| failure("make the secret with the tenant's keys", &error))? {
        context.remember_master(Master { version: version_of(&made), ..master });
    }
    Ok(Done::LookAgain)
}

async fn write_master(context: &Context, master: Master) -> Result<Done, Failure> {
    put_master(context, master).await.map(|_| Done::LookAgain)
}

/// Writes a tenant's keys over those that were read, unless somebody else did meanwhile; answers them as they stand now.
pub(crate) async fn put_master(context: &Context, master: Master) -> Result<Master, Failure> {
    let answer = context.kubernetes.replace_secret(&master.write(&context.config.namespace)).await;
    match answer {
        Ok(written) => {
            let master = Master { version: version_of(&written), ..master };
            context.remember_master(master.clone());
            Ok(master)
        }
        Err(error) => {
            context.forget_master(&master.record.data_id);
            Err(failure("write the secret with the tenant's keys", &error))
        }
    }
}

fn version_of(secret: &Value) -> Option<String> {
    secret["metadata"]["resourceVersion"].as_str().map(str::to_owned)
}

async fn take_over(context: &Context, world: &World) -> Result<Done, Failure> {
    let Some(mut master) = world.master().cloned() else { return Ok(Done::LookAgain) };
    let record = &mut master.record;
    (record.tenant, record.holder) = (world.name(), Some(world.uid()));
    (record.database_made, record.turning) = (false, None);
    (record.admin_delivered, record.units_delivered, record.leftover) = (false, None, false);
    let (active, data_id) = (record.active, record.data_id.clone());
    record.password_at = Timestamp::now();
    master.passwords.insert(active, random_text(""));
    write_master(context, master).await?;
    forget_retained(context, &data_id).await
}

/// Data that has a holder is no longer listed as retained.
async fn forget_retained(context: &Context, data_id: &str) -> Result<Done, Failure> {
    remove(context, Kind::ConfigMap, Some(&context.config.namespace), &retained_name(data_id)).await
}

async fn remove_master(context: &Context, world: &World) -> Result<Done, Failure> {
    let Some(master) = world.master() else { return Ok(Done::LookAgain) };
    let (data_id, version) = (master.record.data_id.clone(), master.version.clone());
    let removed = context.kubernetes.remove_secret(&context.config.namespace, &name::master_secret(&data_id), version).await;
    context.forget_master(&data_id);
    removed.map_err(|error| failure("remove the secret with the tenant's keys", &error))?;
    Ok(Done::LookAgain)
}

async fn claim(context: &Context, world: &World, host: &str) -> Result<Done, Failure> {
    let object = record(
        context,
        "claim",
        &name::host_claim(host),
        &world.name(),
        &name::data_id(&world.tenant),
        json!({
            "host": host, "tenant": world.name(), "holder": world.uid(),
        }),
    );
    match context.kubernetes.create(&object).await {
        Ok(()) => Ok(Done::LookAgain),
        Err(error) if is_status(&error, 409) => read_claim(context, host).await,
        Err(error) => Err(failure("claim a host name", &error)),
    }
}

/// Somebody was first; the watch may not have told yet.
async fn read_claim(context: &Context, host: &str) -> Result<Done, Failure> {
    let read = context.kubernetes.read(Kind::ConfigMap, Some(&context.config.namespace), &name::host_claim(host)).await;
    if let Some(object) = read.map_err(|error| failure("read the claim of a host name", &error))? {
        context.kubernetes.live.keep(Kind::ConfigMap, &object);
    }
    Ok(Done::LookAgain)
}

/// A record in the operator's namespace, without a secret.
fn record(context: &Context, what: &str, object_name: &str, tenant: &str, data_id: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": object_name,
            "namespace": context.config.namespace,
            "labels": { name::TENANT: tenant, name::DATA: data_id, RECORD: what, "app.kubernetes.io/managed-by": name::FIELD_MANAGER },
        },
        "data": data,
    })
}

fn retained_name(data_id: &str) -> String {
    format!("retained-{data_id}")
}

async fn create(context: &Context, object: &Value) -> Result<Done, Failure> {
    match patiently(|| context.kubernetes.create(object)).await {
        Ok(()) => Ok(Done::LookAgain),
        Err(error) if is_status(&error, 409) => {
            // It was made meanwhile, perhaps by ourselves before a stop: look at it as it is.
            let (Some(kind), Some(object_name)) = (Kind::of(object), object["metadata"]["name"].as_str()) else {
                return Ok(Done::LookAgain);
            };
            let read = context.kubernetes.read(kind, object["metadata"]["namespace"].as_str(), object_name).await;
            if let Some(there) = read.map_err(|error| failure(&what_of("read", object), &error))? {
                context.kubernetes.live.keep(kind, &there);
            }
            Ok(Done::LookAgain)
        }
        Err(error) => Err(failure(&what_of("make", object), &error)),
    }
}

async fn apply(context: &Context, object: &Value) -> Result<Done, Failure> {
    patiently(|| context.kubernetes.apply(object)).await.map_err(|error| failure(&what_of("write", object), &error))?;
    Ok(Done::LookAgain)
}

/// Calls again while a right that was given a moment ago is not known everywhere yet.
async fn patiently<F, T>(mut call: F) -> Result<(), kube::Error>
where
    F: FnMut() -> T,
    T: Future<Output = Result<(), kube::Error>>,
{
    let (times, pause) = RIGHTS;
    for _ in 1..times {
        match call().await {
            Err(error) if is_status(&error, 403) && !is_quota(&error) => tokio::time::sleep(pause).await,
            answer => return answer,
        }
    }
    call().await
}

fn is_quota(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.message.contains("exceeded quota"))
}

fn what_of(verb: &str, object: &Value) -> String {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    format!("{verb} {} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

async fn remove(context: &Context, kind: Kind, namespace: Option<&str>, object: &str) -> Result<Done, Failure> {
    let removed = context.kubernetes.remove(kind, namespace, object).await;
    removed.map_err(|error| failure(&format!("remove {} {object}", kind.as_str()), &error))?;
    if kind == Kind::ConfigMap {
        // Gone at once: it has no finalizer.
        let metadata = json!({ "metadata": { "name": object, "namespace": namespace } });
        context.kubernetes.live.forget(kind, &metadata);
    }
    Ok(Done::LookAgain)
}

/// The server with the operator's own log-in, from a secret in the operator's namespace.
pub(crate) async fn server_access(context: &Context, server: &DatabaseServer) -> Result<Server, Failure> {
    let missing = |why: &str| Failure {
        reason: Reason::AdminSecretMissing,
        message: format!("secret {} in namespace {} {why}", server.admin_secret_name, context.config.namespace),
    };
    let secret = context.kubernetes.secret(&context.config.namespace, &server.admin_secret_name).await;
    let secret = secret.map_err(|error| failure("read the server's admin secret", &error))?.ok_or_else(|| missing("does not exist"))?;
    let text = |key: &str| {
        use base64::Engine;
        let encoded = secret["data"][key].as_str()?;
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()
    };
    Ok(Server {
        host: server.host.clone(),
        port: u16::try_from(server.port).unwrap_or_default(),
        ssl_mode: server.ssl_mode,
        ca_bundle: server.ca_bundle.clone(),
        username: text("username").ok_or_else(|| missing("has no key `username`"))?,
        password: SecretString::from(text("password").ok_or_else(|| missing("has no key `password`"))?),
        maintenance_database: MAINTENANCE_DATABASE.to_owned(),
    })
}

fn names_of(master: &Master) -> Result<DataNames, Failure> {
    DataNames::of(&master.record.data_id).map_err(|error| database_failure(&error))
}

/// What the server said, with the reason that fits.
fn database_failure(error: &database::Error) -> Failure {
    use database::Error;
    let reason = match error {
        Error::Refused { .. } | Error::TooOld { .. } => Reason::DatabaseRefused,
        Error::Foreign { .. } | Error::HalfDropped { .. } => Reason::DatabaseTaken,
        Error::Full { .. } => Reason::DatabaseFull,
        _ => Reason::DatabaseUnreachable,
    };
    let mut words = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        words = format!("{words}: {cause}");
    }
    Failure { reason, message: words }
}

fn password(hidden: &Hidden) -> SecretString {
    SecretString::from(hidden.reveal().to_owned())
}

/// Sees to it that a server can keep what it is about to promise.
async fn must_fit_budget(
    context: &Context,
    resolved: &Resolved,
    server: &DatabaseServer,
    access: &Server,
    names: &DataNames,
) -> Result<(), Failure> {
    let wanted = resolved.connections();
    let budget = database::budget(access, u32::try_from(server.connections_max).unwrap_or_default())
        .await
        .map_err(|error| database_failure(&error))?;
    let labels = [resolved.class.name_any(), server.name.clone()];
    context.kubernetes.metrics.database_budgeted.with_label_values(&labels).set(budget.promised);
    context.kubernetes.metrics.database_connections_max.with_label_values(&labels).set(budget.server_max);
    if budget.fits(names, wanted) {
        return Ok(());
    }
    let words = format!(
        "server {} has promised {} connections; {wanted} for this tenant are beyond connectionsMax {} or the server's own {}",
        server.name, budget.promised, budget.connections_max, budget.server_max
    );
    Err(Failure { reason: Reason::ServerBudgetSpent, message: words })
}

async fn limit_connections(context: &Context, world: &World, resolved: &Resolved) -> Result<Done, Failure> {
    let (Some(master), Some(server)) = (world.master(), &resolved.server) else { return Ok(Done::LookAgain) };
    let access = server_access(context, server).await?;
    let (names, connections) = (names_of(master)?, resolved.connections());
    if connections > master.record.connections {
        must_fit_budget(context, resolved, server, &access, &names).await?;
    }
    database::limit(&access, &names, master.proof.reveal(), Limits { connections }).await.map_err(|error| database_failure(&error))?;
    let mut limited = master.clone();
    limited.record.connections = connections;
    write_master(context, limited).await
}

async fn provision(context: &Context, world: &World, resolved: &Resolved) -> Result<Done, Failure> {
    let (Some(master), Some(server)) = (world.master(), &resolved.server) else { return Ok(Done::LookAgain) };
    let access = server_access(context, server).await?;
    let names = names_of(master)?;
    must_fit_budget(context, resolved, server, &access, &names).await?;
    let active = master.record.active;
    let facts = database::provision(
        &access,
        &names,
        master.proof.reveal(),
        active,
        &password(master.password(active)),
        Limits { connections: resolved.connections() },
    )
    .await
    .map_err(|error| database_failure(&error))?;
    if facts.is_database_new && master.record.server.is_some() {
        // The tenant had a database, and it was not there: an empty one in its place would hide the loss.
        database::remove(&access, &names, master.proof.reveal()).await.map_err(|error| database_failure(&error))?;
        let words = format!("database {} is not on server {}, where it was", names.database(), server.name);
        return Err(Failure { reason: Reason::DatabaseLost, message: words });
    }
    let mut made = master.clone();
    (made.record.database_made, made.record.server) = (true, Some(server.clone()));
    (made.record.server_version, made.record.connections) = (facts.version_num, resolved.connections());
    write_master(context, made).await
}

async fn open_login(context: &Context, world: &World, resolved: &Resolved) -> Result<Done, Failure> {
    let (Some(master), Some(server)) = (world.master(), &resolved.server) else { return Ok(Done::LookAgain) };
    let Some(turning) = master.record.turning.clone() else { return Ok(Done::LookAgain) };
    let access = server_access(context, server).await?;
    let names = names_of(master)?;
    database::open_login(&access, &names, master.proof.reveal(), turning.to, &password(master.password(turning.to)))
        .await
        .map_err(|error| database_failure(&error))?;
    let mut opened = master.clone();
    opened.record.turning = Some(crate::master::Turning { opened: true, ..turning });
    write_master(context, opened).await
}

async fn close_login(context: &Context, world: &World, resolved: &Resolved) -> Result<Done, Failure> {
    let (Some(master), Some(server)) = (world.master(), &resolved.server) else { return Ok(Done::LookAgain) };
    let Some(turning) = master.record.turning.clone() else { return Ok(Done::LookAgain) };
    let access = server_access(context, server).await?;
    let old: Login = turning.to.other();
    database::close_login(&access, &names_of(master)?, master.proof.reveal(), old).await.map_err(|error| database_failure(&error))?;
    let mut turned = master.clone();
    turned.passwords.insert(old, Hidden::new(""));
    (turned.record.active, turned.record.turning, turned.record.password_at) = (turning.to, None, Timestamp::now());
    write_master(context, turned).await
}

async fn look_at_turn(context: &Context, world: &mut World, resolved: &Resolved) -> Result<Done, Failure> {
    let (Some(master), Some(server)) = (world.master(), &resolved.server) else { return Ok(Done::LookAgain) };
    let Some(turning) = master.record.turning.clone() else { return Ok(Done::LookAgain) };
    let access = server_access(context, server).await?;
    let old_sessions =
        database::sessions(&access, &names_of(master)?, turning.to.other()).await.map_err(|error| database_failure(&error))?;
    let shape = resolved.shape(world, &context.config, &master.record.home);
    let url = render::database_url(server, master).unwrap_or_default();
    let generation = name::digest(url.as_bytes())[..16].to_owned();
    let behind = crate::pods::behind(context, &shape.namespace, &shape.tenant, &master.operator_key, &generation)
        .await
        .map_err(|error| failure("look at the pods", &error))?;
    world.turn = Some(crate::world::TurnSeen { old_sessions, behind });
    Ok(Done::Seen)
}

/// Ends the database's service for a tenant that goes.
async fn end_database(context: &Context, world: &World, removing: bool) -> Result<Done, Failure> {
    let Some(master) = world.master() else { return Ok(Done::LookAgain) };
    if let Some(server) = last_server(world, master) {
        end_on_server(context, &server, master, removing).await?;
    }
    let mut ended = master.clone();
    ended.record.database_made = false;
    write_master(context, ended).await
}

/// The server as the class has it now, or as it was last reached.
fn last_server(world: &World, master: &Master) -> Option<DatabaseServer> {
    let Home::Managed { server } = &master.record.home else { return None };
    let of_class = world.class.as_ref().and_then(|class| class.spec.database.servers.iter().find(|one| one.name == *server).cloned());
    of_class.or_else(|| master.record.server.clone())
}

/// Retains or removes a database.
pub(crate) async fn end_on_server(context: &Context, server: &DatabaseServer, master: &Master, removing: bool) -> Result<(), Failure> {
    let access = server_access(context, server).await?;
    let (names, proof) = (names_of(master)?, master.proof.reveal());
    let ended = if removing { database::remove(&access, &names, proof).await } else { database::retain(&access, &names, proof).await };
    ended.map_err(|error| database_failure(&error))
}

fn tenant_failure(error: &TenantError) -> Failure {
    let reason = if error.status().is_some() { Reason::TenantRefused } else { Reason::TenantSilent };
    Failure { reason, message: error.to_string() }
}

/// A process that is asked for all: any that is ready.
async fn a_process(context: &Context, world: &World) -> Result<std::net::IpAddr, Failure> {
    let namespace = name::namespace(&world.name());
    let pods = crate::pods::addresses(context, &namespace, &world.name()).await.map_err(|error| failure("look at the pods", &error))?;
    pods.into_iter()
        .next()
        .map(|(_, address)| address)
        .ok_or_else(|| Failure { reason: Reason::TenantSilent, message: "no pod of the tenant is ready".to_owned() })
}

async fn deliver_units(context: &Context, world: &World) -> Result<Done, Failure> {
    let Some(master) = world.master() else { return Ok(Done::LookAgain) };
    let units = render::units(&world.tenant);
    let address = a_process(context, world).await?;
    let put = context.tenant_api.put(address, &master.operator_key, "/v1/operator/org", &units).await;
    put.map_err(|error| tenant_failure(&error))?;
    let mut delivered = master.clone();
    delivered.record.units_delivered = Some(name::digest(units.to_string().as_bytes()));
    write_master(context, delivered).await
}

async fn deliver_admin_key(context: &Context, world: &World) -> Result<Done, Failure> {
    let Some(master) = world.master() else { return Ok(Done::LookAgain) };
    let address = a_process(context, world).await?;
    if world.tenant.spec.adopt.is_some() {
        // Taking over may have broken off before this was done; it is done by the time when a key is delivered, which is remembered.
        forget_retained(context, &master.record.data_id).await?;
    }
    let body = json!({ "key": master.admin_key.reveal(), "name": "operator-delivered" });
    let mut delivered = master.clone();
    match context.tenant_api.put(address, &master.operator_key, "/v1/operator/admin-key", &body).await {
        Ok(_) => delivered.record.admin_delivered = true,
        // It was revoked in the life before; whoever takes the data over gets another.
        Err(TenantError::Refused { status: 409, .. }) => delivered.admin_key = random_text("hyk_"),
        Err(error) => return Err(tenant_failure(&error)),
    }
    write_master(context, delivered).await
}

async fn drop_copy(context: &Context, world: &World) -> Result<Done, Failure> {
    let Some(master) = world.master() else { return Ok(Done::LookAgain) };
    let address = a_process(context, world).await?;
    match context.tenant_api.delete(address, &master.operator_key, "/v1/operator/database-copy").await {
        // A release that knows of no copies has made none.
        Ok(_) | Err(TenantError::Refused { status: 404, .. }) => {}
        Err(error) => return Err(tenant_failure(&error)),
    }
    let mut dropped = master.clone();
    dropped.record.copy = None;
    write_master(context, dropped).await
}

async fn read_report(context: &Context, namespace: &str, job: &str) -> Result<Result<SchemaReport, String>, kube::Error> {
    let pods = context.kubernetes.pods(namespace, &format!("batch.kubernetes.io/job-name={job}")).await?;
    let mut ended = pods.iter().filter_map(|pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses.first()?.state.as_ref()?.terminated.as_ref()
    });
    let Some(ended) = ended.next_back() else { return Ok(Err("its pod is gone".to_owned())) };
    Ok(reported(&ended.message.clone().unwrap_or_default(), ended.exit_code))
}

/// What a migration that ended with this code reported. One that was refused since the schema is a later release's is no failure.
fn reported(text: &str, code: i32) -> Result<SchemaReport, String> {
    let report = serde_json::from_str::<Value>(text);
    if code == 0 {
        return schema_report(&report.map_err(|error| error.to_string())?);
    }
    let report = report.unwrap_or_default();
    schema_report(&report["refused"]).map_err(|_| match report["why"].as_str() {
        Some(why) => why.to_owned(),
        None if text.is_empty() => format!("it ended with code {code}"),
        None => text.to_owned(),
    })
}

/// Reads the plan that `heyuan migrate --report` wrote.
fn schema_report(plan: &Value) -> Result<SchemaReport, String> {
    let level = plan["schema"]["level"].as_i64().ok_or("it has no schema.level")?;
    let may_serve = plan["may_serve"].as_bool().ok_or("it has no may_serve")?;
    Ok(SchemaReport { level, may_serve, words: plan["words"].as_str().unwrap_or_default().to_owned() })
}

async fn record_retained(context: &Context, world: &World) -> Result<Done, Failure> {
    let Some(master) = world.master() else { return Ok(Done::LookAgain) };
    let data_id = &master.record.data_id;
    let object = record(
        context,
        "retained",
        &retained_name(data_id),
        &world.name(),
        data_id,
        json!({
            "dataId": data_id, "tenant": world.name(), "retainedAt": world.now.to_string(),
            "home": serde_json::to_string(&master.record.home).unwrap_or_default(),
        }),
    );
    write_record(context, &object).await.map(|()| Done::Seen)
}

/// Writes a record unless it stands already.
async fn write_record(context: &Context, object: &Value) -> Result<(), Failure> {
    let object_name = object["metadata"]["name"].as_str().unwrap_or_default();
    if context.kubernetes.live.get(&context.config.namespace, Kind::ConfigMap, object_name).is_some() {
        return Ok(());
    }
    apply(context, object).await.map(|_| ())
}

async fn record_leftover(context: &Context, world: &World, words: &str) -> Result<Done, Failure> {
    let Some(master) = world.master() else { return Ok(Done::LookAgain) };
    let removing = world.tenant.spec.deletion.policy == crate::crd::DeletionPolicy::Delete;
    let data_id = &master.record.data_id;
    let server = last_server(world, master).map(|server| serde_json::to_string(&server).unwrap_or_default());
    let object = record(
        context,
        "leftover",
        &format!("leftover-{data_id}"),
        &world.name(),
        data_id,
        json!({
            "dataId": data_id, "tenant": world.name(), "since": world.now.to_string(), "why": words,
            "remove": removing.to_string(), "server": server.unwrap_or_default(), "holder": world.uid(),
        }),
    );
    write_record(context, &object).await?;
    let mut ended = master.clone();
    (ended.record.database_made, ended.record.leftover) = (false, true);
    write_master(context, ended).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_migration_is_told_from_a_failed_one() {
        let plan = |level: i64, may_serve: bool| json!({ "schema": { "level": level }, "may_serve": may_serve, "words": "they say" });
        let report = |level, may_serve| Ok(SchemaReport { level, may_serve, words: "they say".into() });
        for (text, code, found) in [
            (plan(7, true).to_string(), 0, report(7, true)),
            (json!({ "made": [], "why": "later", "refused": plan(9, false) }).to_string(), 1, report(9, false)),
            (json!({ "made": [], "why": "the lock was not given" }).to_string(), 1, Err("the lock was not given".to_owned())),
            (plan(7, true).to_string(), 137, Err(plan(7, true).to_string())),
            ("no JSON".to_owned(), 1, Err("no JSON".to_owned())),
            (String::new(), 137, Err("it ended with code 137".to_owned())),
        ] {
            assert_eq!(reported(&text, code), found, "{text} {code}");
        }
    }
}
