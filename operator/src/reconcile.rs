//! One reconciliation of a tenant: look, decide, do, until there is nothing left to do; then say how it is.

use crate::context::Context;
use crate::crd::{Tenant, TenantStatus};
use crate::decide::{Decision, Step, decide, reason_named};
use crate::observe::observe;
use crate::perform::{Done, perform};
use crate::reason::{Part, Tone};
use kube::api::{Api, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// Rounds of one reconciliation; a walk from nothing to a serving tenant takes a dozen.
const ROUNDS_MAX: u32 = 60;
/// Up to how much longer it takes until a tenant is looked at again, as a share.
const RESYNC_SPREAD: f64 = 0.1;
/// How soon it is tried again while the first lists are on their way.
const UNTIL_LISTED: Duration = Duration::from_millis(100);
/// Longest note of an event, in characters.
const NOTE_CHARS_MAX: usize = 1_000;

/// Why a reconciliation is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused or did not answer.
    #[error("{0}")]
    Kubernetes(#[from] kube::Error),
    /// A step failed; the tenant's condition says how.
    #[error("{part}: {message}")]
    Step {
        /// The part that it belongs to.
        part: Part,
        /// What happened.
        message: String,
        /// Whether another step was done before.
        progressed: bool,
    },
}

impl Error {
    /// Whether the next try begins further on than this one.
    pub(crate) fn progressed(&self) -> bool {
        matches!(self, Error::Step { progressed: true, .. })
    }
}

/// Reconciles a tenant.
///
/// # Errors
/// What is to be tried again.
pub(crate) async fn reconcile(tenant: Arc<Tenant>, context: Arc<Context>) -> Result<Action, Error> {
    let span = tracing::info_span!("reconcile", tenant.name = tenant.name_any());
    let metrics = context.kubernetes.metrics.clone();
    let began = Instant::now();
    metrics.reconciling.inc();
    let result = walk(&tenant, &context).instrument(span).await;
    metrics.reconciling.dec();
    metrics.reconcile_seconds.observe(began.elapsed().as_secs_f64());
    if result.is_err() {
        metrics.reconcile_errors.inc();
    }
    result
}

async fn walk(tenant: &Arc<Tenant>, context: &Context) -> Result<Action, Error> {
    if !context.kubernetes.live.is_ready() || !context.classes_are_known() {
        // Deciding on half of what is there would be deciding wrongly.
        return Ok(Action::requeue(UNTIL_LISTED));
    }
    let mut tenant = context.newest(tenant.clone());
    let mut world = observe(context, &tenant).await?;
    let (mut wrote, mut gave_up, mut progressed) = (false, false, false);
    for _ in 0..ROUNDS_MAX {
        let mut decision = decide(&world, &context.config);
        // What failed waits for the next reconciliation, and with it all that belongs to its part; but what is to be done because it failed
        // is done now, once.
        decision.steps.retain(|(part, step)| !world.failures.contains_key(part) || (gives_up(step) && !gave_up));
        gave_up |= decision.steps.iter().any(|(_, step)| gives_up(step));
        // What is decided is written before it is acted on where a restart must not forget it, as a release that was stopped.
        if must_be_known(&tenant, &decision.status) || (decision.steps.is_empty() && differs(&tenant, &decision.status)) {
            tenant = write_status(context, &tenant, &decision.status).await?;
            world.tenant = tenant.clone();
            wrote = true;
            continue;
        }
        if decision.steps.is_empty() {
            if !wrote {
                context.kubernetes.metrics.unchanged.inc();
            }
            return settle(&world.failures, &decision, progressed, context.config.resync);
        }
        wrote = true;
        match do_steps(context, &mut world, decision).await {
            Done::Gone => return Ok(Action::await_change()),
            Done::Seen => {}
            Done::LookAgain => {
                progressed = true;
                tenant = context.newest(tenant);
                let failures = std::mem::take(&mut world.failures);
                world = observe(context, &tenant).await?;
                world.failures.extend(failures);
            }
        }
    }
    tracing::warn!("{ROUNDS_MAX} rounds did not settle the tenant; it is looked at again");
    Ok(Action::requeue(Duration::from_secs(5)))
}

/// Does what was decided; a step that fails ends its part for this reconciliation, and the condition says why.
async fn do_steps(context: &Context, world: &mut crate::world::World, decision: Decision) -> Done {
    let mut done = Done::Seen;
    for (part, step) in decision.steps {
        let gives_up = gives_up(&step);
        if world.failures.contains_key(&part) && !gives_up {
            continue;
        }
        tracing::debug!(part = %part, "step: {}", step.words());
        match perform(context, world, step).await {
            Ok(Done::Gone) => return Done::Gone,
            Ok(Done::LookAgain) => {
                if gives_up {
                    world.failures.remove(&part);
                }
                done = Done::LookAgain;
            }
            Ok(Done::Seen) => {}
            Err(failure) => {
                tracing::warn!(part = %part, reason = %failure.reason, "{}", failure.message);
                world.failures.insert(part, failure);
            }
        }
    }
    done
}

/// Whether a step answers a failure of its own part, instead of waiting for it to pass.
fn gives_up(step: &Step) -> bool {
    matches!(step, Step::RecordLeftover(_))
}

fn settle(
    failures: &std::collections::BTreeMap<Part, crate::world::Failure>,
    decision: &Decision,
    progressed: bool,
    resync: Duration,
) -> Result<Action, Error> {
    if let Some((part, failure)) = failures.iter().next() {
        return Err(Error::Step { part: *part, message: failure.message.clone(), progressed });
    }
    // Tenants that were looked at together, as at a start, are spread by and by.
    let resync = resync + resync.mul_f64(rand::random::<f64>() * RESYNC_SPREAD);
    Ok(Action::requeue(decision.again_in.map_or(resync, |again| again.min(resync))))
}

/// Whether a status holds something that the next steps stand on.
fn must_be_known(tenant: &Tenant, status: &TenantStatus) -> bool {
    let before = tenant.status.clone().unwrap_or_default();
    before.stopped != status.stopped
        || before.release != status.release
        || before.image != status.image
        || before.delete_seen_at != status.delete_seen_at
}

fn differs(tenant: &Tenant, status: &TenantStatus) -> bool {
    tenant.status.as_ref() != Some(status)
}

async fn write_status(context: &Context, tenant: &Arc<Tenant>, status: &TenantStatus) -> Result<Arc<Tenant>, kube::Error> {
    let api: Api<Tenant> = Api::all(context.kubernetes.client.clone());
    let mut object = Tenant::clone(tenant);
    object.status = Some(status.clone());
    let how = PostParams { field_manager: Some(crate::name::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let written = context.kubernetes.other("update", "Tenant/status", api.replace_status(&tenant.name_any(), &how, &object)).await?;
    tell(context, tenant, status).await;
    Ok(context.remember(written))
}

/// Publishes what has changed, once: what was said before is not said again.
async fn tell(context: &Context, tenant: &Tenant, status: &TenantStatus) {
    let before = |type_: &str| tenant.status.iter().flat_map(|status| &status.conditions).find(|one| one.type_ == type_);
    for condition in &status.conditions {
        let was = before(&condition.type_);
        if was.is_some_and(|was| was.reason == condition.reason) {
            continue;
        }
        let Some(reason) = reason_named(&condition.reason) else { continue };
        let summary = [Part::Progressing, Part::Degraded, Part::Paused].iter().any(|part| part.to_string() == condition.type_);
        let became_ready = condition.type_ == Part::Ready.to_string() && condition.status == "True";
        let worth = match reason.tone() {
            Tone::Bad | Tone::Warned => !summary && condition.type_ != Part::Ready.to_string(),
            Tone::Good => became_ready,
            Tone::Underway => false,
        };
        if !worth {
            continue;
        }
        let event = Event {
            type_: if matches!(reason.tone(), Tone::Bad | Tone::Warned) { EventType::Warning } else { EventType::Normal },
            reason: if became_ready { "Ready".to_owned() } else { condition.reason.clone() },
            note: Some(condition.message.chars().take(NOTE_CHARS_MAX).collect()),
            action: condition.type_.clone(),
            secondary: None,
        };
        if let Err(error) = context.recorder.publish(&event, &tenant.object_ref(&())).await {
            tracing::warn!(%error, "an event could not be published");
        }
    }
}
