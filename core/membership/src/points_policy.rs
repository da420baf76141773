//! The policy of points in use: who may transfer them, how many, and how long before they expire members are told.

use crate::error::Error;
use crate::facade::{Membership, require_group};
use crate::member::corrupt;
use futures::FutureExt;
use heyuan_kernel::{Actor, Problem, Scope, audit, sql};
use serde::{Deserialize, Serialize};

/// The largest limit: what one transfer can hold at all.
const POINTS_MAX: i64 = 1_000_000_000;
/// Longest notice, in days.
const NOTICE_DAYS_MAX: i32 = 365;

/// Between whom points may be transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferAudience {
    /// Nobody.
    Nobody,
    /// Members of one customer, since customers with a member each became one.
    Linked,
    /// Any two members.
    Everybody,
}

impl TransferAudience {
    /// The spelling in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            TransferAudience::Nobody => "nobody",
            TransferAudience::Linked => "linked",
            TransferAudience::Everybody => "everybody",
        }
    }
}

/// The policy: one for the whole group, without versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointsPolicy {
    /// Between whom points may be transferred.
    pub transfers: TransferAudience,
    /// Most points of one transfer.
    pub transfer_points_max: i64,
    /// Most points that one member transfers in a day of the tenant's zone.
    pub day_points_max: i64,
    /// Most points that one member transfers in a calendar month.
    pub month_points_max: i64,
    /// Days before points expire on which their member is told; 0: it is not.
    pub notice_days: i32,
}

impl Default for PointsPolicy {
    fn default() -> PointsPolicy {
        PointsPolicy {
            transfers: TransferAudience::Nobody,
            transfer_points_max: 10_000,
            day_points_max: 10_000,
            month_points_max: 50_000,
            notice_days: 30,
        }
    }
}

impl PointsPolicy {
    fn check(&self) -> Result<(), Problem> {
        let limits = [
            ("transfer_points_max", self.transfer_points_max, 1),
            ("day_points_max", self.day_points_max, self.transfer_points_max),
            ("month_points_max", self.month_points_max, self.day_points_max),
        ];
        for (field, limit, least) in limits {
            if !(least..=POINTS_MAX).contains(&limit) {
                let words = format!("expected {least} to {POINTS_MAX} points: a transfer's at most a day's, a day's at most a month's");
                return Err(Problem::invalid(field, words));
            }
        }
        if !(0..=NOTICE_DAYS_MAX).contains(&self.notice_days) {
            return Err(Problem::invalid("notice_days", format!("expected 0 to {NOTICE_DAYS_MAX} days; 0 tells nobody")));
        }
        Ok(())
    }
}

impl Membership {
    /// The policy of points in use.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn points_policy(&self, actor: &Actor) -> Result<PointsPolicy, Error> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        read(self.kernel().db.near()).await
    }

    /// Writes the policy; it counts from the commit on.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit; `invalid_request` with the field.
    pub async fn put_points_policy(&self, actor: &Actor, policy: &PointsPolicy) -> Result<PointsPolicy, Error> {
        require_group(actor, "the policy of points is the whole group's and needs its key")?;
        policy.check()?;
        let body = serde_json::to_string(policy).map_err(|e| corrupt("points policy", e))?;
        let entry = audit::Entry::new(actor, "put points policy", "points")
            .detail("transfers", policy.transfers.as_str())
            .detail("transfer_points_max", policy.transfer_points_max)
            .detail("day_points_max", policy.day_points_max)
            .detail("month_points_max", policy.month_points_max)
            .detail("notice_days", policy.notice_days);
        let now = self.kernel().clock.now().ms();
        self.kernel()
            .db
            .write("put the points policy", move |tx| {
                let (body, entry) = (body.clone(), entry.clone());
                async move {
                    let text = "INSERT INTO membership_points_policy (name, body, written_at) VALUES ('points', $1, $2)
                                ON CONFLICT (name) DO UPDATE SET body = excluded.body, written_at = excluded.written_at";
                    sql::execute(tx.conn(), text, [body.into(), now.into()]).await?;
                    Ok::<(), Error>(audit::record(tx, &entry).await?)
                }
                .boxed()
            })
            .await?;
        Ok(policy.clone())
    }
}

/// The policy that counts now: the default until somebody writes one.
pub(crate) async fn read<C: sql::Connection>(conn: &C) -> Result<PointsPolicy, Error> {
    let Some(row) = sql::one(conn, "SELECT body FROM membership_points_policy WHERE name = 'points'", []).await? else {
        return Ok(PointsPolicy::default());
    };
    let body: String = sql::get(&row, "body")?;
    Ok(serde_json::from_str(&body).map_err(|e| corrupt("points policy", e))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_from_a_transfer_to_a_month() {
        for (limits, notice_days, wrong) in [
            ([1, 1, 1], 0, None),
            ([10, 20, POINTS_MAX], NOTICE_DAYS_MAX, None),
            ([0, 1, 1], 0, Some("transfer_points_max")),
            ([10, 9, 20], 0, Some("day_points_max")),
            ([10, 20, 19], 0, Some("month_points_max")),
            ([10, 20, POINTS_MAX + 1], 0, Some("month_points_max")),
            ([1, 1, 1], -1, Some("notice_days")),
            ([1, 1, 1], NOTICE_DAYS_MAX + 1, Some("notice_days")),
        ] {
            let [transfer_points_max, day_points_max, month_points_max] = limits;
            let policy = PointsPolicy { transfer_points_max, day_points_max, month_points_max, notice_days, ..PointsPolicy::default() };
            let field = policy.check().err().and_then(|problem| problem.body().field);
            assert_eq!(field.as_deref(), wrong, "{limits:?} {notice_days}");
        }
    }
}
