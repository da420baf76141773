//! The operator as a Deployment would keep it: started again whenever it has ended.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heyuan_harness::{Access, OPERATOR_NAMESPACE, Operator};
use reqwest::Method;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Whether this is `make soak`, which takes all the time that it needs.
pub(super) fn soaks() -> bool {
    std::env::var_os("HEYUAN_SOAK").is_some()
}

/// An operator that is started again; dropped, it is killed and stays so.
pub(super) struct Kept {
    current: Arc<Mutex<Option<Operator>>>,
    starts: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
        *self.current.lock().expect("nothing panics while it is held") = None;
    }
}

impl Kept {
    /// Keeps an operator running as `access`; `started` hears the number of every process. The lease of one that has ended is taken away:
    /// it would only be waited for.
    pub(super) fn run(admin: &Access, access: Access, arguments: &[&str], started: impl Fn(u32) + Send + 'static) -> Self {
        let (current, starts) = (Arc::new(Mutex::new(None::<Operator>)), Arc::new(AtomicU32::new(0)));
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (kept, count, admin) = (current.clone(), starts.clone(), admin.clone());
        let task = tokio::spawn(async move {
            let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/heyuan-operator");
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                if kept.lock().expect("nothing panics while it is held").as_ref().is_some_and(|operator| !operator.has_ended()) {
                    continue;
                }
                // Where the API server is away, the lease runs out by itself.
                let _ = admin.request(Method::DELETE, &lease).send().await;
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let operator = Operator::start(&access, &arguments);
                started(operator.id());
                count.fetch_add(1, Ordering::Relaxed);
                *kept.lock().expect("nothing panics while it is held") = Some(operator);
            }
        });
        Self { current, starts, task }
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// What the process that runs now has logged.
    pub(super) fn log(&self) -> String {
        self.current.lock().expect("nothing panics while it is held").as_ref().map(Operator::log).unwrap_or_default()
    }
}
