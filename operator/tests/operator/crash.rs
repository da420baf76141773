//! The operator is killed before and after every call of a tenant's whole life; it ends the same wherever that was.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heyuan_harness::{ApiProxy, Call, Pods, StatementProxy, Trouble};

use super::ground::Ground;
use super::kept::{Kept, soaks};
use super::whole::Life;

/// A life in which the operator starts some hundred times.
const LIMIT: Duration = Duration::from_secs(600);
/// Fewest different calls of a life; fewer would mean that the proxies no longer see them.
const CALLS_MIN: usize = 100;

/// Who dies at which calls.
struct Deaths {
    /// Whether two objects of a kind are two calls.
    by_object: bool,
    process: AtomicU32,
    /// The process is about to be gone: nothing more comes from it.
    dying: AtomicBool,
    phase: Mutex<&'static str>,
    seen: Mutex<BTreeSet<String>>,
    /// The one death of a life, where only one is to be died.
    only: Mutex<Option<String>>,
}

impl Deaths {
    fn new(by_object: bool) -> Arc<Self> {
        Arc::new(Self {
            by_object,
            process: AtomicU32::new(0),
            dying: AtomicBool::new(false),
            phase: Mutex::new(""),
            seen: Mutex::default(),
            only: Mutex::default(),
        })
    }

    fn enter(&self, phase: &'static str) {
        *self.phase.lock().expect("nothing panics while it is held") = phase;
    }

    fn started(&self, process: u32) {
        self.process.store(process, Ordering::SeqCst);
        self.dying.store(false, Ordering::SeqCst);
    }

    /// Each call kills before it is taken when it is seen for the first time, and after it was at the second.
    fn judge(&self, call: &Call) -> Option<Trouble> {
        if self.dying.load(Ordering::SeqCst) {
            return Some(Trouble::DropBefore);
        }
        let process = self.process.load(Ordering::SeqCst);
        let key = self.key(call);
        let mut seen = self.seen.lock().expect("nothing panics while it is held");
        let only = self.only.lock().expect("nothing panics while it is held");
        // What was only read leaves nothing behind: to die after it is to die before the next call.
        let deaths = if self.by_object || changes(call) { 2 } else { 1 };
        for (when, trouble) in [("before", Trouble::KillBefore(process)), ("after", Trouble::KillAfter(process))].into_iter().take(deaths) {
            let death = format!("{when} {key}");
            if seen.insert(death.clone()) && only.as_ref().is_none_or(|only| *only == death) {
                self.dying.store(true, Ordering::SeqCst);
                return Some(trouble);
            }
        }
        None
    }

    /// What makes a call another one: its verb, its kind and its phase, or its object. How a process begins belongs to no phase.
    fn key(&self, call: &Call) -> String {
        let begins = matches!(call.verb, "list" | "watch") && call.resource != "pods" || call.resource.starts_with("leases.");
        let phase = if begins { "start" } else { *self.phase.lock().expect("nothing panics while it is held") };
        let key = format!("{phase} {} {}", call.verb, call.resource);
        let name = call.name.as_deref().filter(|_| self.by_object && !call.resource.starts_with("events.")).map(nameless);
        name.map_or(key.clone(), |name| format!("{key} {name}"))
    }
}

fn changes(call: &Call) -> bool {
    call.writes() || call.verb == "sql" && !call.resource.starts_with("SELECT") && call.resource != "connect"
}

/// A name without the digests in it, which differ from life to life.
fn nameless(name: &str) -> String {
    let pieces = name.split('-').map(|piece| {
        let is_digest = piece.len() >= 8 && piece.chars().all(|c| c.is_ascii_hexdigit());
        if is_digest || piece.starts_with("life") { "X" } else { piece }
    });
    pieces.collect::<Vec<_>>().join("-")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_it_ends_the_same() {
    let ground = Ground::apart().await;
    let _pods = Pods::play(&ground.admin);
    let (api, database) = (ApiProxy::to(&ground.plane).await, StatementProxy::to(ground.server.port()).await);
    ground.server_at(database.port()).await;
    let deaths = Deaths::new(soaks());
    let (of_api, of_database) = (deaths.clone(), deaths.clone());
    api.judge(move |call| of_api.judge(call));
    database.judge(move |call| of_database.judge(call));
    let access = ground.operator().await.through(&api);
    let hears = deaths.clone();
    let kept = Kept::run(&ground.admin, access, &[], move |process| hears.started(process));
    Life::live(&ground, "life", LIMIT, |phase| deaths.enter(phase)).await;
    let all = std::mem::take(&mut *deaths.seen.lock().expect("nothing panics while it is held"));
    assert!(all.len() > CALLS_MIN && kept.starts() as usize > CALLS_MIN, "{} starts for {all:#?}", kept.starts());
    if !soaks() {
        return;
    }
    // Then each death alone, in a life of its own.
    for (number, death) in all.iter().enumerate() {
        eprintln!("{} of {}: {death}", number + 1, all.len());
        *deaths.only.lock().expect("nothing panics while it is held") = Some(death.clone());
        deaths.seen.lock().expect("nothing panics while it is held").clear();
        Life::live(&ground, &format!("life{number}"), LIMIT, |phase| deaths.enter(phase)).await;
    }
}
