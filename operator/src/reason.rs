//! Every reason that a condition may give, with its cause, what to do next, and where the runbook is.

use std::fmt;

/// A part of a tenant, or a summary of all, that has a condition of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The tenant serves as its spec wishes.
    Ready,
    /// Something is being done.
    Progressing,
    /// Something needs a person.
    Degraded,
    /// The tenant is left as it is.
    Paused,
    /// Class, release, size and limits fit.
    ClassResolved,
    /// The data id and its keys are known.
    DataHeld,
    /// The host names are this tenant's.
    HostsClaimed,
    /// The namespace is there and ours.
    NamespaceReady,
    /// The database is there, and ours where we made it.
    DatabaseReady,
    /// The schema fits the release.
    SchemaReady,
    /// Pods serve.
    Serving,
    /// Units and administrator's key have reached the tenant.
    Configured,
    /// The database password is as old as it may be.
    CredentialsCurrent,
    /// What becomes of a tenant that is deleted.
    Deleting,
}

impl Part {
    /// Every part, in the order of the walk; the summaries first.
    pub const ALL: [Part; 14] = [
        Part::Ready,
        Part::Progressing,
        Part::Degraded,
        Part::Paused,
        Part::ClassResolved,
        Part::DataHeld,
        Part::HostsClaimed,
        Part::NamespaceReady,
        Part::DatabaseReady,
        Part::SchemaReady,
        Part::Serving,
        Part::Configured,
        Part::CredentialsCurrent,
        Part::Deleting,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a reason says about its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// It serves, and somebody should do something all the same.
    Warned,
    /// On its way; nobody has to do anything.
    Underway,
    /// Somebody has to do something.
    Bad,
}

/// What there is to say of a reason beyond its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// What it says about its part.
    pub tone: Tone,
    /// What it comes from.
    pub cause: &'static str,
    /// What to do next; empty where there is nothing to do.
    pub next: &'static str,
}

macro_rules! reasons {
    ($($name:ident $tone:ident $cause:literal $next:literal)*) => {
        /// Why a condition is as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each is explained in words by `explained`")]
        pub enum Reason {
            $($name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// Its cause and what to do next.
            pub const fn explained(self) -> Explained {
                match self {
                    $(Reason::$name => Explained { tone: Tone::$tone, cause: $cause, next: $next },)*
                }
            }
        }
    };
}

reasons! {
    AsWished Good "Everything is as the spec wishes." ""
    NothingToDo Good "Nothing is being changed." ""
    NothingWrong Good "No part needs a person." ""
    NotPaused Good "`spec.paused` is false." ""
    PausedBySpec Underway "`spec.paused` is true: nothing of the tenant is changed, corrected or deleted." "Set `spec.paused` to false to go on."
    WaitingForEarlier Underway "A part that this one stands on is not ready yet." "Look at the first condition that is False."

    ClassFits Good "The class exists, and what the tenant asks for fits it." ""
    ClassMissing Bad "There is no `TenantClass` with the name in `spec.class`. A tenant that serves goes on serving as it is." "Create the class, or name another: `kubectl get tenantclasses`."
    ReleaseUnknown Bad "The class lists no release with the name in `spec.release`." "Add it to the class's `releases`, or name one that is there; leave `spec.release` out to follow the class."
    SizeUnknown Bad "The class lists no size with the name in `spec.size`." "Add it to the class's `sizes`, or name one that is there."
    ServerUnknown Bad "The class lists no database server with the name in `spec.database.managed.server`, or none at all." "Add it to the class's `database.servers`, or name one that is there."
    BeyondLimits Bad "The tenant asks for more than the class's `limits` allow." "Ask for less, or raise the class's limit that the message names."
    SharedStorageMissing Bad "The tenant wants more than one process, and the class names no `storage.sharedClassName` for a volume that several can mount." "Name one in the class, or ask for one process."

    DataKnown Good "The data id, the encryption key and the master copies of all secrets are in the operator's namespace." ""
    AdoptUnknown Bad "No retained data has the id in `spec.adopt`." "Look at `kubectl get configmaps -n OPERATOR-NAMESPACE -l heyuan.dev/record=retained`."
    AdoptHeld Bad "The data in `spec.adopt` belongs to a tenant that still exists, or what an earlier tenant left of it is being dealt with." "Delete that tenant with `deletion.policy: Retain` first; what was left is dealt with by itself."
    AdoptKindDiffers Bad "The data in `spec.adopt` lies in another kind of database, or on another server, than the spec asks for." "Write `spec.database` as the message says."
    MasterDamaged Bad "The secret with the master copies of the tenant's keys is gone or can't be read. It is never made anew for a tenant that had one, and never overwritten." "Restore the secret that the message names from your backup."

    HostsClaimed Good "The host names belong to this tenant alone." ""
    HostTaken Bad "Another tenant has claimed a host name first." "Use another name, or take it from the tenant that the message names."

    NamespaceMade Good "The namespace is there and was made for this tenant." ""
    NamespaceTaken Bad "There is a namespace with the tenant's name that was not made for this tenant. It is left alone." "Rename the tenant, or remove that namespace."
    NamespaceTerminating Underway "The namespace is being deleted; it is made again when it is gone." "If it stays so, look at `kubectl get namespace NAME -o yaml` for what holds it."
    QuotaExceeded Bad "A resource quota keeps objects from being made." "Raise the quota that the message names, or choose a smaller size."
    KubernetesRefused Bad "The API server refused a request of the operator." "Read the message; where it says `forbidden`, install the chart's roles of this version."

    KubernetesUnreachable Underway "The API server did not answer in time, or not at all; it is asked again." "If it stays so, look at the API server and at the operator's network."

    DatabaseMade Good "The database and its roles are there and were made for this tenant." ""
    ServerOld Warned "The database is there, on a server of PostgreSQL 15, where the operator's role is nearly a superuser." "Move to PostgreSQL 16 or newer before production."
    DatabaseEmbedded Good "The data lies in SQLite on the tenant's volume." ""
    DatabaseExternal Good "The secret with the database's URL is there." ""
    DatabaseTaken Bad "There is a database or role with the tenant's name that was not made for this tenant. It is left alone." "Remove or rename it; the message names it."
    DatabaseLost Bad "The database that held the tenant's data is not on its server any more. No empty one is put in its place." "Restore it from your backup under the same name, then `kubectl annotate tenant NAME heyuan.dev/retry=1 --overwrite`."
    DatabaseUnreachable Bad "The database server can't be reached." "Look at the server, at the class's `host` and `port`, and at what lies between."
    DatabaseRefused Bad "The database server refused the operator: a wrong password, or a right that is missing." "Compare the admin secret with the server, and run docs/operator.sql there."
    DatabaseFull Bad "The database server has no room: disk or connections." "Make room on the server that the message names."
    ServerBudgetSpent Bad "With this tenant, tenants could open more connections than the class's `connectionsMax` for the server." "Raise it with the server's own limit, or use another server."
    AdminSecretMissing Bad "The secret with the server's admin user is not in the operator's namespace, or lacks `username` or `password`." "Create it; the message names it."
    ExternalSecretMissing Bad "The secret with the database's URL is not in the tenant's namespace, or lacks the key `url`." "Create it; the message names it."

    SchemaCurrent Good "The schema fits the release." ""
    MigrationRunning Underway "A job brings the schema to the level of the release." "It may take as long as the class's `rollout.migrationSecondsMax`."
    MigrationFailed Bad "The migration job failed. The old release, if there is one, goes on serving." "Read the message and the job's log, mend it, then `kubectl annotate tenant NAME heyuan.dev/retry=1 --overwrite`."
    RollbackRefused Bad "The schema is newer than this release can serve." "Go back to a release from the message's on, or restore a backup."

    RolledOut Good "The pods run the release and answer." ""
    RollingOut Underway "Pods of the release are being started." "It may take as long as the class's `rollout.readySecondsMax`."
    GateFailed Bad "The new release's pods were ready but answered errors, so it was stopped; the old release serves." "Look at the new release's logs; another release in spec or class, or a new value of `heyuan.dev/retry`, tries again."
    RolloutTimedOut Bad "The new release's pods did not become ready in time, so it was stopped; the old release, if there is one, serves." "Look at the message and at `kubectl describe pods -n NAMESPACE`."
    PodsFailing Bad "Fewer pods are ready than wished." "Look at the message and at `kubectl describe pods -n NAMESPACE`."

    ConfigurationDelivered Good "Units and the administrator's key have reached the tenant." ""
    TenantSilent Underway "The tenant's process does not answer the operator yet." "If it stays so, look at its logs and at NetworkPolicies between the operator and port 8081."
    TenantRefused Bad "The tenant's process refused what the operator sent." "Read the message."

    CredentialsFresh Good "The database password is younger than `spec.rotation.periodDays`." ""
    CredentialsElsewhere Good "The database's password is not the operator's to change." ""
    RotationRunning Underway "A new password is in the secret; the processes go over to it." "It ends when no session of the old role is left."
    RotationStuck Bad "The processes have not gone over to the new password in time. The old one still works." "Look at the message: a pod that does not answer, or sessions of the old role."

    NotDeleting Good "The tenant is not being deleted." ""
    DeletionWaits Underway "`deletion.policy: Delete` has not stood for `deletion.graceSeconds` yet; workloads are stopped, data is still there." "Set `deletion.policy: Retain` to keep the data."
    DeletionRunning Underway "What belongs to the tenant is being retained or removed." "If it stays so, the message says what holds it."
}

impl Reason {
    /// The anchor of its runbook in docs/operator.md.
    pub fn anchor(self) -> String {
        self.to_string().to_lowercase()
    }

    /// What it says about its part.
    pub const fn tone(self) -> Tone {
        self.explained().tone
    }

    /// Whether its part serves.
    pub const fn is_well(self) -> bool {
        matches!(self.tone(), Tone::Good | Tone::Warned)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_that_is_not_good_says_what_to_do() {
        for reason in Reason::ALL {
            let explained = reason.explained();
            assert!(explained.cause.ends_with('.'), "{reason}");
            assert_eq!(explained.next.is_empty(), explained.tone == Tone::Good, "{reason}: next step");
        }
    }
}
