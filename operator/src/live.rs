//! The objects of all tenants as the API server last told them: kept small, read by tenant, and followed by watches.

use crate::kind::Kind;
use crate::name;
use futures::{Stream, StreamExt};
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Changes that wait to be looked at; beyond, the watch waits.
const CHANGES_MAX: usize = 4_096;

/// An object as compact JSON.
struct Held {
    json: Box<str>,
    version: u64,
    /// The round of listing in which it was last seen.
    round: u64,
}

/// Where an object is filed: a namespace under its own name, beside what it holds.
fn shelf(kind: Kind, object: &Value) -> Option<String> {
    let field = if kind == Kind::Namespace { "name" } else { "namespace" };
    object["metadata"][field].as_str().map(str::to_owned)
}

/// Objects by namespace, then by kind and name.
type Shelves = HashMap<String, BTreeMap<(Kind, String), Held>>;

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct Live {
    shelves: Mutex<Shelves>,
    ready: Mutex<HashSet<Kind>>,
    /// The newest version that the watch of a kind has told.
    told: Mutex<HashMap<Kind, u64>>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every object of a namespace, with the namespace.
    pub(crate) fn of_namespace(&self, namespace: &str) -> BTreeMap<(Kind, String), Value> {
        let shelves = self.lock();
        let Some(shelf) = shelves.get(namespace) else { return BTreeMap::new() };
        shelf.iter().filter_map(|(key, held)| Some((key.clone(), serde_json::from_str(&held.json).ok()?))).collect()
    }

    /// One object, if it is held.
    pub(crate) fn get(&self, namespace: &str, kind: Kind, object_name: &str) -> Option<Value> {
        let shelves = self.lock();
        serde_json::from_str(&shelves.get(namespace)?.get(&(kind, object_name.to_owned()))?.json).ok()
    }

    /// The objects of a kind in which a text stands somewhere: the others are not even read.
    pub(crate) fn mentioning(&self, namespace: &str, kind: Kind, text: &str) -> Vec<Value> {
        let shelves = self.lock();
        let objects = shelves.get(namespace).into_iter().flatten().filter(|((one, _), held)| *one == kind && held.json.contains(text));
        objects.filter_map(|(_, held)| serde_json::from_str(&held.json).ok()).collect()
    }

    /// Keeps an object that the API server has answered. Says whether anything but its version is new.
    pub(crate) fn keep(&self, kind: Kind, object: &Value) -> bool {
        self.keep_in_round(kind, object.clone(), None)
    }

    /// Keeps what was just written, so that it is not written again. Where the answer came later than the news of the object's end, it is
    /// not brought back.
    pub(crate) fn keep_written(&self, kind: Kind, object: &Value) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).copied().unwrap_or_default();
        let object_name = object["metadata"]["name"].as_str().unwrap_or_default();
        let is_held = shelf(kind, object).is_some_and(|shelf| self.get(&shelf, kind, object_name).is_some());
        if is_held || version_of(object) > told {
            self.keep(kind, object);
        }
    }

    fn tell(&self, kind: Kind, object: &Value) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = told.entry(kind).or_default();
        *newest = version_of(object).max(*newest);
    }

    fn keep_in_round(&self, kind: Kind, object: Value, round: Option<u64>) -> bool {
        let Some(shelf) = shelf(kind, &object) else { return false };
        let Some(object_name) = object["metadata"]["name"].as_str().map(str::to_owned) else { return false };
        let version = version_of(&object);
        let json = trimmed(kind, object).to_string().into_boxed_str();
        let mut shelves = self.lock();
        let place = shelves.entry(shelf).or_default().entry((kind, object_name));
        let held = place.or_insert_with(|| Held { json: Box::default(), version: 0, round: 0 });
        held.round = round.unwrap_or(held.round);
        if version < held.version {
            return false;
        }
        let new = held.json != json;
        (held.json, held.version) = (json, version);
        new
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&self, kind: Kind, object: &Value) {
        let (Some(shelf), Some(object_name)) = (shelf(kind, object), object["metadata"]["name"].as_str()) else { return };
        let mut shelves = self.lock();
        if let Some(objects) = shelves.get_mut(&shelf) {
            objects.remove(&(kind, object_name.to_owned()));
            if objects.is_empty() {
                shelves.remove(&shelf);
            }
        }
    }

    /// Forgets what a whole listing did not show; answers the tenants that lost something.
    fn forget_unlisted(&self, kind: Kind, round: u64) -> Vec<String> {
        let mut lost = Vec::new();
        self.lock().retain(|_, objects| {
            objects.retain(|(one, _), held| {
                let keep = *one != kind || held.round >= round;
                if !keep {
                    lost.extend(tenant_of(&serde_json::from_str(&held.json).unwrap_or_default()));
                }
                keep
            });
            !objects.is_empty()
        });
        lost
    }

    /// Whether every kind has been listed once.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).len() == Kind::ALL.len()
    }

    /// Objects that are held, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let shelves = self.lock();
        let held = shelves.values().flat_map(BTreeMap::values);
        held.fold((0, 0), |(count, bytes), held| (count + 1, bytes + held.json.len()))
    }
}

/// What the decision needs: without bookkeeping, and with the status only where it is looked at.
fn trimmed(kind: Kind, mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["selfLink", "creationTimestamp", "resourceVersion"] {
            metadata.remove(field);
        }
    }
    if !matches!(kind, Kind::Deployment | Kind::Job)
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    object
}

fn version_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The tenant whose object it is.
fn tenant_of(object: &Value) -> Option<String> {
    object["metadata"]["labels"][name::TENANT].as_str().map(str::to_owned)
}

/// Follows every kind for ever; the stream names the tenants of which something has changed.
pub(crate) fn follow(
    client: &Client,
    live: &Arc<Live>,
    operator_namespace: &str,
    watched: &watcher::Config,
) -> impl Stream<Item = String> + use<> {
    let (changes, changed) = mpsc::channel(CHANGES_MAX);
    for kind in Kind::ALL {
        let api: Api<DynamicObject> = match kind {
            Kind::ConfigMap => Api::namespaced_with(client.clone(), operator_namespace, &kind.resource()),
            _ => Api::all_with(client.clone(), &kind.resource()),
        };
        tokio::spawn(follow_kind(*kind, api, watched.clone(), live.clone(), changes.clone()));
    }
    futures::stream::unfold(changed, |mut changed| async move { changed.recv().await.map(|tenant| (tenant, changed)) })
}

async fn follow_kind(kind: Kind, api: Api<DynamicObject>, watched: watcher::Config, live: Arc<Live>, changes: mpsc::Sender<String>) {
    let config = watched.labels(name::TENANT);
    let mut events = std::pin::pin!(kube::runtime::WatchStreamExt::default_backoff(watcher(api, config)));
    let mut round = 1;
    while let Some(event) = events.next().await {
        let tenants = match event {
            Ok(event) => take_in(kind, event, &live, &mut round),
            Err(error) => {
                tracing::warn!(%error, kind = kind.as_str(), "the watch of {}s broke off and is begun again", kind.as_str());
                Vec::new()
            }
        };
        for tenant in tenants {
            if changes.send(tenant).await.is_err() {
                return;
            }
        }
    }
}

fn take_in(kind: Kind, event: Event<DynamicObject>, live: &Live, round: &mut u64) -> Vec<String> {
    let tenant = |object: &DynamicObject| object.labels().get(name::TENANT).cloned();
    match event {
        Event::Init => {
            *round += 1;
            Vec::new()
        }
        Event::InitApply(object) | Event::Apply(object) => {
            let (tenant, value) = (tenant(&object), kind.value_of(object));
            live.tell(kind, &value);
            let new = live.keep_in_round(kind, value, Some(*round));
            tenant.filter(|_| new).into_iter().collect()
        }
        Event::Delete(object) => {
            let (tenant, value) = (tenant(&object), kind.value_of(object));
            live.tell(kind, &value);
            live.forget(kind, &value);
            tenant.into_iter().collect()
        }
        Event::InitDone => {
            let lost = live.forget_unlisted(kind, *round);
            live.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(kind);
            lost
        }
    }
}
