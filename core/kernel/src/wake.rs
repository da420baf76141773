//! Wake-ups: a unit names what it wrote, and once it is committed the tasks that wait for that look again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What a unit wrote, as tasks wait for it. Each room names its own.
pub type Topic = &'static str;

/// Domain events that have no position yet.
pub const OUTBOX: Topic = "outbox";
/// Domain events that consumers may read.
pub const NUMBERED: Topic = "numbered events";

/// Counts commits by topic; cheap to clone.
#[derive(Clone, Default)]
pub struct Wakes {
    counts: Arc<Mutex<HashMap<Topic, watch::Sender<u64>>>>,
}

impl Wakes {
    /// Changes whenever something of this topic has been committed by this process.
    pub fn follow(&self, topic: Topic) -> watch::Receiver<u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry(topic).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    pub(crate) fn raise(&self, topics: &[Topic]) {
        if topics.is_empty() {
            return;
        }
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in topics {
            // Nobody follows a topic that is not there.
            if let Some(count) = counts.get(topic) {
                count.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }
}

/// How the other processes of the tenant hear of a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Notice {
    /// As of any other: all stay awake for a while.
    #[default]
    Usual,
    /// Not at all: it changes nothing that anybody waits for.
    Still,
    /// At once, whenever they were told last.
    AtOnce,
}

/// What one unit has said of itself so far.
#[derive(Default)]
pub(crate) struct Told {
    /// What it wrote, as tasks wait for it.
    pub(crate) topics: Vec<Topic>,
    /// Who is to hear of it.
    pub(crate) notice: Notice,
}

/// The same while the unit runs.
#[derive(Default)]
pub(crate) struct Telling(Mutex<Told>);

impl Telling {
    pub(crate) fn add(&self, topic: Topic) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.topics.contains(&topic) {
            told.topics.push(topic);
        }
    }

    pub(crate) fn notice(&self, notice: Notice) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).notice = notice;
    }

    pub(crate) fn take(&self) -> Told {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
