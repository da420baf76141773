//! What was last read of the secrets in tenants' namespaces. They are never watched, so that looking costs a read; a tenant that is as it
//! should be is worth one such read in the time of a resync, and a process that has just begun takes the last one's word for it.

use crate::world::SecretSeen;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long it holds while something is underway: one walk reads it once, the next walk sees what others have done meanwhile.
const UNDERWAY: Duration = Duration::from_secs(1);

/// What a look is about: the namespace as it was made, and what the tenant's author has asked for. What was seen of another is void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The namespace's name.
    pub(crate) namespace: String,
    /// Its uid; with another, its secrets are others.
    pub(crate) uid: String,
    /// A digest of the tenant's generation and annotations: who changes one of them wants to be looked at.
    pub(crate) asked: String,
    /// Whether the tenant was as its spec wishes when its status was written.
    pub(crate) settled: bool,
}

struct Glance {
    uid: String,
    asked: String,
    seen: SecretSeen,
    /// When it was read; for one that never was, when this process first came across it.
    at: Instant,
}

/// By namespace and name of the secret.
pub(crate) struct Glances {
    glances: Mutex<HashMap<(String, String), Glance>>,
    /// How long what was read of a settled tenant holds: until it is looked at again although nothing has changed.
    settled: Duration,
}

impl Glances {
    /// Nothing has been read yet.
    pub(crate) fn new(settled: Duration) -> Glances {
        Glances { glances: Mutex::default(), settled }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Glance>> {
        self.glances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which of these secrets are to be read now, in the order in which they should be: all that are due, or one of a settled tenant's.
    pub(crate) fn due<'a>(&self, subject: &Subject, secrets: &[&'a str], now: Instant) -> Vec<&'a str> {
        let mut glances = self.lock();
        let mut due: Vec<(Option<Instant>, &str)> = Vec::new();
        for secret in secrets {
            let key = (subject.namespace.clone(), (*secret).to_owned());
            match glances.get(&key) {
                None if subject.settled => {
                    let (uid, asked) = (subject.uid.clone(), subject.asked.clone());
                    glances.insert(key, Glance { uid, asked, seen: SecretSeen::NotRead, at: now });
                }
                Some(glance) if glance.uid == subject.uid && glance.asked == subject.asked => {
                    let holds = if subject.settled { self.settled } else { UNDERWAY };
                    let never = glance.seen == SecretSeen::NotRead && !subject.settled;
                    if never || now.saturating_duration_since(glance.at) >= holds {
                        due.push((Some(glance.at), secret));
                    }
                }
                _ => due.push((None, secret)),
            }
        }
        due.sort_by_key(|(at, _)| *at);
        if subject.settled {
            due.truncate(1);
        }
        due.into_iter().map(|(_, secret)| secret).collect()
    }

    /// Remembers what was read or written.
    pub(crate) fn keep(&self, subject: &Subject, secret: &str, seen: SecretSeen, now: Instant) {
        let (uid, asked) = (subject.uid.clone(), subject.asked.clone());
        self.lock().insert((subject.namespace.clone(), secret.to_owned()), Glance { uid, asked, seen, at: now });
    }

    /// What is known of a secret in this namespace.
    pub(crate) fn seen(&self, subject: &Subject, secret: &str) -> SecretSeen {
        let glances = self.lock();
        let glance = glances.get(&(subject.namespace.clone(), secret.to_owned())).filter(|glance| glance.uid == subject.uid);
        glance.map_or(SecretSeen::NotRead, |glance| glance.seen.clone())
    }

    /// Forgets a namespace.
    pub(crate) fn forget(&self, namespace: &str) {
        self.lock().retain(|(one, _), _| one != namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED: Duration = Duration::from_secs(600);

    fn subject(uid: &str, asked: &str, settled: bool) -> Subject {
        Subject { namespace: "tenant-jade".into(), uid: uid.into(), asked: asked.into(), settled }
    }

    fn holds() -> SecretSeen {
        SecretSeen::Holds { mark: "m".into(), has_url: true }
    }

    #[test]
    fn a_settled_tenant_costs_one_read_a_resync_and_none_at_the_first_look() {
        let (glances, start) = (Glances::new(SETTLED), Instant::now());
        let settled = subject("1", "a", true);
        let both = ["heyuan", "database"];
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(glances.due(&settled, &both, start).is_empty(), "the last process's word is taken");
        assert!(glances.due(&settled, &both, at(599)).is_empty());
        assert_eq!(glances.due(&settled, &both, at(600)), ["heyuan"]);
        glances.keep(&settled, "heyuan", holds(), at(600));
        assert_eq!(glances.due(&settled, &both, at(1_200)), ["database"], "the one that was read longest ago");
        glances.keep(&settled, "database", holds(), at(1_200));
        assert_eq!(glances.due(&settled, &both, at(1_200)), ["heyuan"]);
    }

    #[test]
    fn what_was_seen_is_void_where_something_was_asked_or_is_underway() {
        for (before, now, after_seconds, due) in [
            (subject("1", "a", true), subject("1", "a", true), 30, false),
            (subject("1", "a", true), subject("1", "b", true), 0, true),
            (subject("1", "a", true), subject("2", "a", true), 0, true),
            (subject("1", "a", true), subject("1", "a", false), 30, true),
            (subject("1", "a", false), subject("1", "a", false), 0, false),
            (subject("1", "a", false), subject("1", "a", false), 1, true),
        ] {
            let (glances, start) = (Glances::new(SETTLED), Instant::now());
            glances.keep(&before, "heyuan", holds(), start);
            let found = glances.due(&now, &["heyuan"], start + Duration::from_secs(after_seconds));
            assert_eq!(!found.is_empty(), due, "{before:?} then {now:?} after {after_seconds} s");
        }
        let glances = Glances::new(SETTLED);
        assert_eq!(glances.due(&subject("1", "a", false), &["heyuan"], Instant::now()), ["heyuan"], "a new tenant is looked at");
        let glances = Glances::new(SETTLED);
        assert!(glances.due(&subject("1", "a", true), &["heyuan"], Instant::now()).is_empty());
        assert_eq!(glances.due(&subject("1", "a", false), &["heyuan"], Instant::now()), ["heyuan"], "and one that is no longer well");
    }
}
