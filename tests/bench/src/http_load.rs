//! Closed-loop load over HTTP: each connection sends its next request when the last is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heyuan_harness::Tenant;
use tokio::task::JoinSet;
use tokio::time::{Instant as Deadline, sleep_until};

use crate::connection::Connection;
use crate::report::percentile;
use crate::run::processor_time;

/// How long a sender waits after 429.
const PAUSE: Duration = Duration::from_millis(100);

/// What a run saw.
pub(crate) struct Seen {
    pub(crate) rate: f64,
    pub(crate) durations: Vec<Duration>,
    /// Answers that are no success.
    pub(crate) others: u64,
    /// Of two cores' time: server, generator.
    pub(crate) cores: (f64, f64),
}

impl Seen {
    pub(crate) fn milliseconds(&mut self, share: f64) -> f64 {
        if self.durations.is_empty() { f64::NAN } else { percentile(&mut self.durations, share).as_secs_f64() * 1e3 }
    }

    /// For the method column.
    pub(crate) fn words(&self) -> String {
        format!("server used {:.2} cores, generator {:.2}, {} other answers", self.cores.0, self.cores.1, self.others)
    }
}

/// Sends what `request` writes for each number, from `width` connections, for `time`.
pub(crate) async fn closed_loop<F>(tenant: &Tenant, width: usize, time: Duration, request: F) -> Seen
where
    F: Fn(u64, &mut Vec<u8>) + Clone + Send + 'static,
{
    let address = tenant.url().trim_start_matches("http://").to_owned();
    let next = Arc::new(AtomicU64::new(0));
    let used = || (processor_time(tenant.process_id()), processor_time(std::process::id()));
    let (before, start) = (used(), Instant::now());
    let mut senders = JoinSet::new();
    for _ in 0..width {
        let (address, next, request) = (address.clone(), next.clone(), request.clone());
        senders.spawn(async move {
            let mut connection = Connection::open(&address).await.expect("the server accepts connections");
            let (mut bytes, mut durations, mut others) = (Vec::new(), Vec::new(), 0);
            while start.elapsed() < time {
                bytes.clear();
                request(next.fetch_add(1, Ordering::Relaxed), &mut bytes);
                let sent = Instant::now();
                let status = connection.send(&bytes).await.expect("the server answers");
                if (200..300).contains(&status) {
                    durations.push(sent.elapsed());
                } else {
                    others += 1;
                    if status == 429 {
                        // A sender that is told to wait leaves the cores to the server; shorter than Retry-After, to see room soon.
                        sleep_until(Deadline::now() + PAUSE).await;
                    }
                }
            }
            (durations, others)
        });
    }
    let (mut durations, mut others) = (Vec::new(), 0);
    for (some, other) in senders.join_all().await {
        durations.extend(some);
        others += other;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let after = used();
    let cores = ((after.0 - before.0).as_secs_f64() / elapsed, (after.1 - before.1).as_secs_f64() / elapsed);
    Seen { rate: durations.len() as f64 / elapsed, durations, others, cores }
}
