//! A tenant's pods: which are there, what troubles them, and what their processes say.

use crate::context::Context;
use crate::kubernetes::Kubernetes;
use crate::master::Hidden;
use crate::name::{COMPONENT, TENANT};
use crate::world::{Answers, PodSeen, World};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What a process that can't even tell the operator about itself counts for, in answers that are errors.
const BROKEN: u64 = 10;
/// Phases of pods in which nothing runs any more.
const ENDED: [&str; 2] = ["Succeeded", "Failed"];
/// What a container may wait for without being in trouble.
const PATIENCE: [&str; 2] = ["ContainerCreating", "PodInitializing"];

async fn serving(kubernetes: &Kubernetes, namespace: &str, tenant: &str) -> Result<Vec<Pod>, kube::Error> {
    let mut pods = kubernetes.pods(namespace, &format!("{TENANT}={tenant},{COMPONENT}=server")).await?;
    pods.retain(|pod| !has_ended(pod));
    Ok(pods)
}

/// One that was evicted, say: its object stays for a while, and nothing runs in it any more.
fn has_ended(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| ENDED.contains(&phase))
}

/// Addresses of the processes that are ready, by pod.
pub(crate) async fn addresses(context: &Context, namespace: &str, tenant: &str) -> Result<Vec<(String, IpAddr)>, kube::Error> {
    let pods = serving(&context.kubernetes, namespace, tenant).await?;
    Ok(pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| Some((pod.name_any(), address(pod)?))).collect())
}

/// The address of a ready process of each tenant, by namespace, in a few lists for all tenants together.
pub(crate) async fn of_all(kubernetes: &Kubernetes) -> Result<HashMap<String, IpAddr>, kube::Error> {
    let selector = format!("{TENANT},{COMPONENT}=server");
    let (mut addresses, mut begin) = (HashMap::new(), None);
    loop {
        let (pods, next) = kubernetes.pods_page(&selector, begin).await?;
        let ready = pods.iter().filter(|pod| !has_ended(pod) && is_ready(pod));
        addresses.extend(ready.filter_map(|pod| Some((pod.namespace()?, address(pod)?))));
        match next {
            Some(next) => begin = Some(next),
            None => return Ok(addresses),
        }
    }
}

/// Pods that do not use the given content of the credentials file yet, or still have connections of an older one.
pub(crate) async fn behind(
    context: &Context,
    namespace: &str,
    tenant: &str,
    key: &Hidden,
    generation: &str,
) -> Result<Vec<String>, kube::Error> {
    let pods = serving(&context.kubernetes, namespace, tenant).await?;
    let asked = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| async move {
        let status = match address(pod) {
            Some(address) => context.tenant_api.status(address, key).await.ok(),
            None => None,
        };
        let over = status.is_some_and(|status| status.database.generation == generation && status.database.connections_draining == 0);
        (!over).then(|| pod.name_any())
    });
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

/// Looks at every serving pod, and asks those of an image how they have answered.
pub(crate) async fn look(context: &Context, world: &World, image: &str) -> Result<Vec<PodSeen>, kube::Error> {
    let pods = serving(&context.kubernetes, &crate::name::namespace(&world.name()), &world.name()).await?;
    let key = world.master().map(|master| master.operator_key.clone());
    let gate_seconds = world.class.as_ref().map_or(0, |class| class.spec.rollout.gate_seconds);
    let gate = Duration::from_secs(u64::try_from(gate_seconds).unwrap_or_default());
    let looks = pods.iter().map(|pod| {
        let key = key.clone();
        async move {
            let pod_image =
                pod.spec.iter().flat_map(|spec| &spec.containers).find(|one| one.name == "heyuan").and_then(|one| one.image.clone());
            let pod_image = pod_image.unwrap_or_default();
            let answers = match (address(pod), key) {
                (Some(address), Some(key)) if pod_image == image => answers(context, address, &key).await,
                _ => None,
            };
            let uid = pod.uid().unwrap_or_default();
            let answers = answers.map(|counted| context.lately.within(&uid, counted, gate, Instant::now()));
            let ready_seconds = ready_since(pod).map(|since| world.now.duration_since(since).as_secs());
            PodSeen { name: pod.name_any(), ready_seconds, trouble: trouble(pod), image: pod_image, answers }
        }
    });
    Ok(join_all(looks).await)
}

/// How a process has answered; one that fails to tell is asked for its status, and a failure there is its own.
async fn answers(context: &Context, address: IpAddr, key: &Hidden) -> Option<Answers> {
    let mut answers = context.tenant_api.answers(address).await.ok()?;
    if let Err(error) = context.tenant_api.status(address, key).await
        && error.status().is_some_and(|status| status >= 500)
    {
        answers.all += BROKEN;
        answers.errors += BROKEN;
    }
    Some(answers)
}

fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Since when a pod is ready, if it is.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|one| one.type_ == "Ready" && one.status == "True")?;
    let here = pod.metadata.deletion_timestamp.is_none();
    here.then(|| ready.last_transition_time.as_ref().map_or_else(Timestamp::now, |time| time.0))
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// What keeps a pod from serving, in Kubernetes' words.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let of_container = containers.filter_map(container_trouble).next();
    of_container.or_else(|| {
        let unscheduled = status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
        Some(format!(
            "{}: {}",
            unscheduled.reason.as_deref().unwrap_or("not scheduled"),
            unscheduled.message.as_deref().unwrap_or_default()
        ))
    })
}

fn container_trouble(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    if PATIENCE.contains(&reason) {
        return None;
    }
    let mut words = format!("container {} waits: {reason}", container.name);
    if let Some(message) = &waiting.message {
        words = format!("{words}: {message}");
    }
    if let Some(ended) = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()) {
        words = format!("{words}; it ended with code {} ({})", ended.exit_code, ended.reason.as_deref().unwrap_or("no reason"));
    }
    Some(words)
}
