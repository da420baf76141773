//! Changing the database password without a failed request: the idle login gets a new one, the processes go over, the old login ends.

use super::{Resolved, Step, Walk};
use crate::master::{Home, Master, Turning, random_text};
use crate::name;
use crate::reason::{Part, Reason};
use jiff::SignedDuration;
use kube::ResourceExt;
use std::time::Duration;

/// Longest sleep until a rotation that is due.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3600);

impl Walk<'_> {
    /// Begins a rotation that is due, and carries one on that has begun.
    pub(super) fn rotation(&mut self, resolved: &Resolved, master: &Master) {
        if !matches!(master.record.home, Home::Managed { .. }) {
            return self.find(Part::CredentialsCurrent, Reason::CredentialsElsewhere, "the database is not managed by the operator");
        }
        match &master.record.turning {
            None => self.begin_turn(master),
            Some(turning) if !turning.opened => {
                self.find(Part::CredentialsCurrent, Reason::RotationRunning, "the new login is being opened");
                self.want(Part::CredentialsCurrent, Step::OpenLogin(Box::new(resolved.clone())));
            }
            Some(turning) => self.turn(resolved, turning),
        }
    }

    fn begin_turn(&mut self, master: &Master) {
        let (tenant, now) = (&self.world.tenant, self.world.now);
        let asked = tenant.annotations().get(name::ROTATE).filter(|value| Some(*value) != master.record.rotate_seen.as_ref());
        let period = SignedDuration::from_hours(24 * i64::from(tenant.spec.rotation.period_days));
        let age = now.duration_since(master.record.password_at);
        let due = tenant.spec.rotation.period_days > 0 && age >= period;
        if !due && asked.is_none() {
            if tenant.spec.rotation.period_days > 0 {
                self.again(Duration::try_from(period - age).unwrap_or_default().min(SLEEP_MAX));
            }
            return self.find(
                Part::CredentialsCurrent,
                Reason::CredentialsFresh,
                format!("the password is from {}", master.record.password_at),
            );
        }
        let mut changed = master.clone();
        let to = master.record.active.other();
        changed.passwords.insert(to, random_text(""));
        changed.record.turning = Some(Turning { to, since: now, opened: false });
        changed.record.rotate_seen = tenant.annotations().get(name::ROTATE).cloned();
        self.find(Part::CredentialsCurrent, Reason::RotationRunning, "a new password is being made");
        self.want(Part::CredentialsCurrent, Step::WriteMaster(Box::new(changed)));
    }

    fn turn(&mut self, resolved: &Resolved, turning: &Turning) {
        let Some(seen) = &self.world.turn else {
            self.find(Part::CredentialsCurrent, Reason::RotationRunning, "the processes are going over to the new password");
            self.want(Part::CredentialsCurrent, Step::LookAtTurn(Box::new(resolved.clone())));
            return;
        };
        if seen.old_sessions == 0 && seen.behind.is_empty() {
            self.find(Part::CredentialsCurrent, Reason::RotationRunning, "the old login is being closed");
            self.want(Part::CredentialsCurrent, Step::CloseLogin(Box::new(resolved.clone())));
            return;
        }
        let mut words = format!("{} sessions of the old login are open", seen.old_sessions);
        if !seen.behind.is_empty() {
            words = format!("{words}; not yet on the new password: {}", seen.behind.join(", "));
        }
        let late = self.world.now.duration_since(turning.since).as_secs() > self.config.rotation_seconds_max;
        self.find(Part::CredentialsCurrent, if late { Reason::RotationStuck } else { Reason::RotationRunning }, words);
        self.poll();
    }
}
