//! From what was found of each part to the status: conditions, state and the one sentence that says why.

use super::{Decision, Finding, Walk};
use crate::reason::{Part, Reason, Tone};
use crate::world::World;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message of a condition, in characters.
const MESSAGE_CHARS_MAX: usize = 1_000;

impl Walk<'_> {
    /// Sums up.
    pub(super) fn end(mut self) -> Decision {
        let paused = self.findings.get(&Part::Paused).is_some_and(|finding| finding.reason == Reason::PausedBySpec);
        let deleting = self.world.tenant.metadata.deletion_timestamp.is_some();
        if !paused && !deleting {
            self.fill();
        }
        let worst = self.worst(Tone::Bad);
        let underway = self.worst(Tone::Underway);
        let state = match (paused, deleting, &worst, &underway) {
            (true, ..) => "Paused",
            (_, true, ..) => "Deleting",
            (_, _, Some(_), _) => "Degraded",
            (_, _, None, Some(_)) => "Progressing",
            (_, _, None, None) if self.steps.is_empty() => "Ready",
            _ => "Progressing",
        };
        let first = worst.clone().or_else(|| underway.clone());
        self.status.why =
            first.as_ref().map(|finding| finding.message.clone()).or_else(|| (state == "Progressing").then(|| "being written".to_owned()));
        self.status.state = Some(state.to_owned());
        let sums = [
            (Part::Ready, state == "Ready", first.clone(), Reason::AsWished),
            (Part::Progressing, underway.is_some() || state == "Progressing", underway, Reason::NothingToDo),
            (Part::Degraded, worst.is_some(), worst, Reason::NothingWrong),
        ];
        let generation = self.world.tenant.metadata.generation;
        let mut conditions = Vec::new();
        for (part, holds, finding, otherwise) in sums {
            let finding = finding.unwrap_or_else(|| Finding { reason: otherwise, message: otherwise.explained().cause.to_owned() });
            conditions.push(condition(self.world, part, holds, &finding));
        }
        if !paused {
            let words = Reason::NotPaused.explained().cause.to_owned();
            self.findings.insert(Part::Paused, Finding { reason: Reason::NotPaused, message: words });
        }
        for (part, finding) in &self.findings {
            let holds = match part {
                Part::Paused => paused,
                Part::Deleting => true,
                _ => finding.reason.is_well(),
            };
            conditions.push(condition(self.world, *part, holds, finding));
        }
        if paused || deleting {
            // What was known of the parts stays, for nothing is changed.
            let known: Vec<String> = conditions.iter().map(|one| one.type_.clone()).collect();
            let before = self.world.tenant.status.iter().flat_map(|status| &status.conditions);
            conditions.extend(before.filter(|one| !known.contains(&one.type_)).cloned());
        }
        conditions.sort_by_key(|one| Part::ALL.iter().position(|part| part.to_string() == one.type_));
        self.status.conditions = conditions;
        self.status.observed_generation = generation;
        Decision { steps: self.steps, status: self.status, again_in: self.again_in }
    }

    /// Parts that the walk did not come to wait for those before them.
    fn fill(&mut self) {
        for part in Part::ALL {
            let summary = matches!(part, Part::Ready | Part::Progressing | Part::Degraded | Part::Paused | Part::Deleting);
            if !summary && !self.findings.contains_key(&part) {
                self.find(part, Reason::WaitingForEarlier, "an earlier part is not ready yet");
            }
        }
    }

    /// The first part, in the order of the walk, of which something is to be said in this tone. A part that only waits says least.
    fn worst(&self, tone: Tone) -> Option<Finding> {
        let of_tone = || self.findings.values().filter(|finding| finding.reason.tone() == tone && finding.reason != Reason::PausedBySpec);
        of_tone().find(|finding| finding.reason != Reason::WaitingForEarlier).or_else(|| of_tone().next()).cloned()
    }
}

/// A condition, whose time of transition is kept while its status does not change.
fn condition(world: &World, part: Part, holds: bool, finding: &Finding) -> Condition {
    let status = if holds { "True" } else { "False" };
    let type_ = part.to_string();
    let before = world.tenant.status.iter().flat_map(|status| &status.conditions).find(|one| one.type_ == type_);
    let since =
        before.filter(|one| one.status == status).map_or_else(|| Time(whole_seconds(world)), |one| one.last_transition_time.clone());
    Condition {
        type_,
        status: status.to_owned(),
        reason: finding.reason.to_string(),
        message: finding.message.chars().take(MESSAGE_CHARS_MAX).collect(),
        observed_generation: world.tenant.metadata.generation,
        last_transition_time: since,
    }
}

/// Kubernetes keeps times to the second; anything finer would be a change that never settles.
fn whole_seconds(world: &World) -> jiff::Timestamp {
    jiff::Timestamp::from_second(world.now.as_second()).unwrap_or(world.now)
}
