//! Tier policies, previews and grants as JSON.

use crate::tier::{TierDowngrade, TierGrant, TierLook, TierMeasure, TierMove, TierMover, TierPolicy, TierPreview, TierStanding, TierStep};
use heyuan_contract::Timestamp;
use heyuan_kernel::Rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which growth counts: that of a window of days, of the calendar year (what a year came to holds through the next as well), of all times.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TierMeasureBody {
    Rolling,
    CalendarYear,
    Lifetime,
}

/// When it is looked for tiers whose growth is no longer there: at once, or at the start of each day, month or year.
#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TierLookBody {
    #[default]
    Always,
    Day,
    Month,
    Year,
}

/// What such a tier becomes: the one that the growth reaches, or the one below it.
#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TierDowngradeBody {
    #[default]
    ToBalance,
    OneStep,
}

/// A step of the ladder.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TierStepBody {
    /// The tier's code.
    #[schema(examples("gold"))]
    tier: String,
    /// Growth by the policy's measure that it takes; 0 for the lowest.
    #[schema(examples(5000))]
    growth_min: i64,
    /// Growth of all times with which it is never lost to time. A later version may ask for less, not for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lifetime_min: Option<i64>,
}

/// A version of the tier policy.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutTierPolicyBody {
    /// From when on it is in force for everybody: at least ten minutes ahead.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Rfc3339,
    /// Which growth counts.
    measure: TierMeasureBody,
    /// Of a rolling window its days.
    #[schema(examples(365))]
    window_days: Option<i64>,
    /// When it looks.
    #[serde(default)]
    look: TierLookBody,
    /// What a tier whose growth is no longer there becomes.
    #[serde(default)]
    downgrade: TierDowngradeBody,
    /// Full days that such a tier holds after the look that found it.
    #[serde(default)]
    grace_days: i32,
    /// From the lowest up.
    steps: Vec<TierStepBody>,
}

/// A version to be looked at.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewTierPolicyBody {
    /// What would be put.
    pub(super) policy: PutTierPolicyBody,
    /// The instant that it is shown for, at most three years after its start; its start when left out. Later ones show what looks and
    /// graces take if nothing more is earned.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) at: Option<Rfc3339>,
}

/// A version as it is kept.
#[derive(Serialize, ToSchema)]
pub(super) struct TierPolicyBody {
    /// Counted from 1; of those that have started the highest counts.
    version: i64,
    /// From when on it is in force; absent for the first one.
    starts_at: Option<Rfc3339>,
    /// Which growth counts.
    measure: TierMeasureBody,
    /// Of a rolling window its days.
    window_days: Option<i64>,
    /// When it looks.
    look: TierLookBody,
    /// What a tier whose growth is no longer there becomes.
    downgrade: TierDowngradeBody,
    /// Full days that such a tier holds after the look that found it.
    grace_days: i32,
    /// From the lowest up.
    steps: Vec<TierStepBody>,
}

/// Every version.
#[derive(Serialize, ToSchema)]
pub(super) struct TierPolicyListBody {
    /// The newest first.
    pub(super) items: Vec<TierPolicyBody>,
}

/// Members that go from one tier to another, or stay.
#[derive(Serialize, ToSchema)]
struct TierMoveBody {
    /// Without the version.
    from: String,
    /// With it.
    to: String,
    /// How many.
    members: i64,
}

/// A member that moves.
#[derive(Serialize, ToSchema)]
struct TierMoverBody {
    /// Who.
    member: String,
    /// Without the version.
    from: String,
    /// With it.
    to: String,
    /// Growth that counts under it.
    growth: i64,
}

/// Who would move.
#[derive(Serialize, ToSchema)]
pub(super) struct TierPreviewBody {
    /// The number that the version would get.
    version: i64,
    /// The instant that it is shown for.
    at: Rfc3339,
    /// How many members have which tier without it and with it; on the first page alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    moves: Option<Vec<TierMoveBody>>,
    /// Who moves, by id.
    items: Vec<TierMoverBody>,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A tier to be granted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantTierBody {
    /// One of the ladder in force.
    #[schema(examples("platinum"))]
    pub(super) tier: String,
    /// When it ends by itself: at most ten years from now.
    #[schema(value_type = String, format = DateTime)]
    pub(super) until: Rfc3339,
    /// Why; no personal data.
    #[schema(examples("status match"))]
    pub(super) reason: String,
}

/// Why a grant is revoked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeTierBody {
    /// It goes into the audit record; no personal data.
    #[schema(examples("granted by mistake"))]
    pub(super) reason: String,
}

/// A tier that was granted.
#[derive(Serialize, ToSchema)]
pub(super) struct TierGrantBody {
    /// Its id.
    pub(super) id: String,
    /// Whose.
    member: String,
    /// The tier.
    tier: String,
    /// Why.
    reason: String,
    /// Since when.
    granted_at: Rfc3339,
    /// When it was to end.
    until: Rfc3339,
    /// When it ends or ended: earlier than it was to when it was revoked, or when the membership ended.
    ends_at: Rfc3339,
    /// When it was revoked, if it was.
    revoked_at: Option<Rfc3339>,
}

/// Why a member has its tier, and what changes it.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct TierStandingBody {
    /// The version of the tier policy in force.
    policy: i64,
    /// The tier that growth gives, with what the policy lets it keep.
    earned: String,
    /// The grant by hand that gives the higher tier, if one does.
    granted_by: Option<String>,
    /// Growth that counts now.
    growth: i64,
    /// Whether the earned tier is kept for good.
    for_good: bool,
    /// The tier above.
    next: Option<String>,
    /// Growth that it takes more than what counts now.
    next_missing: Option<i64>,
    /// Until when the tier holds if nothing more is earned.
    holds_until: Option<Rfc3339>,
    /// The tier from then on.
    then: Option<String>,
}

impl PutTierPolicyBody {
    pub(super) fn parsed(self, version: i64) -> TierPolicy {
        let step = |step: TierStepBody| TierStep { tier: step.tier, growth_min: step.growth_min, lifetime_min: step.lifetime_min };
        TierPolicy {
            version,
            starts_at_ms: self.starts_at.0.ms(),
            measure: match self.measure {
                TierMeasureBody::Rolling => TierMeasure::Rolling,
                TierMeasureBody::CalendarYear => TierMeasure::CalendarYear,
                TierMeasureBody::Lifetime => TierMeasure::Lifetime,
            },
            window_days: self.window_days.unwrap_or(0),
            look: match self.look {
                TierLookBody::Always => TierLook::Always,
                TierLookBody::Day => TierLook::Day,
                TierLookBody::Month => TierLook::Month,
                TierLookBody::Year => TierLook::Year,
            },
            downgrade: match self.downgrade {
                TierDowngradeBody::ToBalance => TierDowngrade::ToBalance,
                TierDowngradeBody::OneStep => TierDowngrade::OneStep,
            },
            grace_days: self.grace_days,
            steps: self.steps.into_iter().map(step).collect(),
        }
    }
}

impl From<TierPolicy> for TierPolicyBody {
    fn from(policy: TierPolicy) -> TierPolicyBody {
        let step = |step: TierStep| TierStepBody { tier: step.tier, growth_min: step.growth_min, lifetime_min: step.lifetime_min };
        let always = Timestamp::MIN.ms();
        TierPolicyBody {
            version: policy.version,
            starts_at: (policy.starts_at_ms != always).then(|| Rfc3339(Timestamp::clamped(policy.starts_at_ms))),
            measure: match policy.measure {
                TierMeasure::Rolling => TierMeasureBody::Rolling,
                TierMeasure::CalendarYear => TierMeasureBody::CalendarYear,
                TierMeasure::Lifetime => TierMeasureBody::Lifetime,
            },
            window_days: (policy.measure == TierMeasure::Rolling).then_some(policy.window_days),
            look: match policy.look {
                TierLook::Always => TierLookBody::Always,
                TierLook::Day => TierLookBody::Day,
                TierLook::Month => TierLookBody::Month,
                TierLook::Year => TierLookBody::Year,
            },
            downgrade: match policy.downgrade {
                TierDowngrade::ToBalance => TierDowngradeBody::ToBalance,
                TierDowngrade::OneStep => TierDowngradeBody::OneStep,
            },
            grace_days: policy.grace_days,
            steps: policy.steps.into_iter().map(step).collect(),
        }
    }
}

impl TierPreviewBody {
    pub(super) fn of(preview: TierPreview, movers: Vec<TierMover>, next: Option<String>) -> TierPreviewBody {
        let moved = |of: TierMove| TierMoveBody { from: of.from, to: of.to, members: of.members };
        let mover = |of: TierMover| TierMoverBody { member: of.member.to_string(), from: of.from, to: of.to, growth: of.growth };
        TierPreviewBody {
            version: preview.version,
            at: Rfc3339(preview.at),
            moves: preview.moves.map(|moves| moves.into_iter().map(moved).collect()),
            items: movers.into_iter().map(mover).collect(),
            next,
        }
    }
}

impl From<TierGrant> for TierGrantBody {
    fn from(grant: TierGrant) -> TierGrantBody {
        TierGrantBody {
            id: grant.id,
            member: grant.member.to_string(),
            tier: grant.tier,
            reason: grant.reason,
            granted_at: Rfc3339(grant.granted_at),
            until: Rfc3339(grant.until),
            ends_at: Rfc3339(grant.ends_at),
            revoked_at: grant.revoked_at.map(Rfc3339),
        }
    }
}

impl From<TierStanding> for TierStandingBody {
    fn from(standing: TierStanding) -> TierStandingBody {
        TierStandingBody {
            policy: standing.policy,
            earned: standing.earned,
            granted_by: standing.granted_by,
            growth: standing.growth,
            for_good: standing.for_good,
            next: standing.next,
            next_missing: standing.next_missing,
            holds_until: standing.holds_until.map(Rfc3339),
            then: standing.then,
        }
    }
}
