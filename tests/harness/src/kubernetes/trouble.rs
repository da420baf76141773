//! What goes wrong with a call, and with which.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::kubernetes::Call;

/// What happens to one call on its way to the API server or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This process is killed (SIGKILL) before the call reaches the API server.
    KillBefore(u32),
    /// This process is killed once the API server has done what was asked, before the answer reaches anybody.
    KillAfter(u32),
    /// The connection breaks before the call reaches the API server.
    DropBefore,
    /// The connection breaks once the API server has done what was asked: the caller can't know.
    DropAfter,
    /// The API server is not asked; this status is the answer, in the form that it gives its own (409, 410, 429, 500, …).
    Answer(u16),
    /// The call waits this long, then passes.
    Delay(Duration),
    /// The API server has done what was asked at once; its answer waits this long.
    DelayAfter(Duration),
}

/// Says what is to go wrong with a call, if it has its turn.
type Judge = Box<dyn FnMut(&Call) -> Option<Trouble> + Send>;

/// Troubles that wait for their call, and every call so far.
#[derive(Default)]
pub(crate) struct Plan(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    rules: VecDeque<Rule>,
    calls: Vec<Call>,
}

struct Rule {
    judge: Judge,
    /// `Some(n)`: only the n-th matching call from now on; `None`: every one.
    remaining: Option<u64>,
}

impl Plan {
    pub(crate) fn add(&self, nth: Option<u64>, when: impl Fn(&Call) -> bool + Send + 'static, trouble: Trouble) {
        assert_ne!(nth, Some(0), "the first call has number 1");
        let judge = Box::new(move |call: &Call| when(call).then_some(trouble));
        self.inner().rules.push_back(Rule { judge, remaining: nth });
    }

    /// A rule that says of each call what goes wrong with it.
    pub(crate) fn judge(&self, judge: impl FnMut(&Call) -> Option<Trouble> + Send + 'static) {
        self.inner().rules.push_back(Rule { judge: Box::new(judge), remaining: None });
    }

    pub(crate) fn clear(&self) {
        self.inner().rules.clear();
    }

    /// Rules for one call that have not met it.
    pub(super) fn waiting(&self) -> usize {
        self.inner().rules.iter().filter(|rule| rule.remaining.is_some()).count()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.inner().calls.clone()
    }

    /// Writes the call down and says what goes wrong with it: the earliest rule that has its turn. All rules count all calls.
    pub(crate) fn meet(&self, call: &Call) -> Option<Trouble> {
        let mut inner = self.inner();
        inner.calls.push(call.clone());
        let mut met = None;
        inner.rules.retain_mut(|rule| {
            let Some(trouble) = (rule.judge)(call) else { return true };
            let remaining = rule.remaining.as_mut().map(|remaining| {
                *remaining -= 1;
                *remaining
            });
            if remaining.is_none_or(|remaining| remaining == 0) {
                met = met.or(Some(trouble));
            }
            remaining != Some(0)
        });
        met
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no condition of a rule panics")
    }
}

impl Debug for Plan {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        write!(formatter, "{} rules after {} calls", inner.rules.len(), inner.calls.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Trouble};
    use crate::kubernetes::Call;

    fn call(verb: &str) -> Call {
        let method = if verb == "get" { "GET" } else { "PUT" };
        Call::of(method, "/api/v1/namespaces/a/secrets/s", "", b"")
    }

    #[test]
    fn a_rule_meets_its_call_once_and_a_lasting_one_every() {
        let plan = Plan::default();
        plan.add(Some(2), Call::writes, Trouble::DropAfter);
        plan.add(None, |call| call.verb == "get", Trouble::Answer(429));
        let met: Vec<_> = ["update", "get", "update", "update", "get"].iter().map(|verb| plan.meet(&call(verb))).collect();
        assert_eq!(met, [None, Some(Trouble::Answer(429)), Some(Trouble::DropAfter), None, Some(Trouble::Answer(429))]);
        assert_eq!(plan.waiting(), 0);
        assert_eq!(plan.calls().len(), 5);
    }
}
