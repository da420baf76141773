//! Adding up: channels by number while paths are credited, rows by key at the end.

use crate::credit::{MILLION, Model, Step, credit, within};
use crate::report::{Counts, GroupBy, ReportRow};
use heyuan_contract::{Fen, LeadStage, Touch};
use std::collections::{BTreeMap, HashMap};

/// The key of what nothing brought.
pub(crate) const DIRECT: &str = "direct";

/// Rows while they are added up.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    numbers: HashMap<String, u32>,
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Row {
    key: String,
    label: Option<String>,
    spend: i64,
    counts: Counts,
}

impl Tally {
    /// The number of a key.
    pub(crate) fn number(&mut self, key: &str) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(Row { key: key.to_owned(), ..Row::default() });
        self.numbers.insert(key.to_owned(), number);
        number
    }

    pub(crate) fn spend(&mut self, key: &str, label: Option<String>, fen: i64) {
        let number = self.number(key);
        if let Some(row) = self.rows.get_mut(number as usize) {
            row.spend += fen;
            row.label = label.filter(|label| !label.is_empty()).or_else(|| row.label.take());
        }
    }

    /// A part of a result for a row.
    pub(crate) fn give(&mut self, number: u32, result: Outcome, part: i64) {
        let Some(Row { counts, .. }) = self.rows.get_mut(number as usize) else { return };
        match result.stage {
            LeadStage::Lead => counts.leads += part,
            LeadStage::Invited => counts.invited += part,
            LeadStage::Visited => counts.visited += part,
            LeadStage::Subscribed => counts.subscribed += part,
            LeadStage::Contracted => {
                counts.contracted += part;
                counts.net_contracts += part;
            }
            LeadStage::Cancelled => {
                counts.cancelled += part;
                if result.takes_contract {
                    counts.net_contracts -= part;
                }
            }
        }
    }

    /// Rows that hold anything, by key, and their sum.
    pub(crate) fn finish(self) -> (Vec<ReportRow>, ReportRow) {
        let mut rows: Vec<ReportRow> = self
            .rows
            .into_iter()
            .filter(|row| row.spend != 0 || row.counts != Counts::default())
            .map(|row| ReportRow { key: row.key, label: row.label, spend: Fen(row.spend), counts: row.counts })
            .collect();
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        let mut totals = ReportRow { key: "total".into(), label: None, spend: Fen(0), counts: Counts::default() };
        for row in &rows {
            totals.spend = Fen(totals.spend.0 + row.spend.0);
            totals.counts.add(&row.counts);
        }
        (rows, totals)
    }
}

/// A result of a lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) stage: LeadStage,
    /// A cancellation that takes a contract back, and not a subscription.
    pub(crate) takes_contract: bool,
}

/// Every touch of every customer that has a lead: one sorted list, and where each customer's part of it lies.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    steps: Vec<Step>,
    parts: HashMap<u32, (usize, usize)>,
}

impl Paths {
    /// Sorts touches that come by time and message id; the order within a customer stays.
    pub(crate) fn new(mut touches: Vec<(u32, Step)>) -> Paths {
        touches.sort_by_key(|(customer, _)| *customer);
        let mut paths = Paths { steps: Vec::with_capacity(touches.len()), parts: HashMap::new() };
        for (index, (customer, step)) in touches.into_iter().enumerate() {
            paths.parts.entry(customer).or_insert((index, index)).1 = index + 1;
            paths.steps.push(step);
        }
        paths
    }

    /// The touches of a customer within the window before an instant, oldest first.
    pub(crate) fn before(&self, customer: Option<u32>, until: i64, window_ms: i64) -> &[Step] {
        let part = customer.and_then(|customer| self.parts.get(&customer)).copied().unwrap_or((0, 0));
        within(self.steps.get(part.0..part.1).unwrap_or_default(), until, window_ms)
    }
}

/// Credits the results of one lead along its path.
pub(crate) fn credit_lead(tally: &mut Tally, model: Model, path: &[Step], tied: Option<Step>, untouched: u32, results: &[Outcome]) {
    credit(model, path, tied, untouched, |channel, part| {
        for result in results {
            tally.give(channel, *result, part);
        }
    });
}

/// Gives results whole to one row.
pub(crate) fn give_whole(tally: &mut Tally, key: &str, result: Outcome) {
    let number = tally.number(key);
    tally.give(number, result, MILLION);
}

/// The row that a touch belongs to, and whether it is direct. Sources under which platforms' own traffic is tagged name the
/// platform, so that a touch without a click id falls in with the spend.
pub(crate) fn channel(group_by: GroupBy, touch: &Touch) -> (String, bool) {
    let source = touch.source.as_deref().unwrap_or_default().to_lowercase();
    let paid = touch.medium.as_deref().is_some_and(|medium| ["cpc", "cpm", "ppc", "paid"].contains(&medium.to_lowercase().as_str()));
    let platform = match (touch.platform.as_deref(), source.as_str()) {
        (Some(platform), _) if !platform.is_empty() => platform.to_owned(),
        (_, "oceanengine" | "ocean_engine" | "toutiao" | "douyin") => "ocean_engine".to_owned(),
        (_, "tencent" | "tencent_ads" | "gdt") if paid => "tencent_ads".to_owned(),
        (_, "baidu") if !paid => "baidu_organic".to_owned(),
        (_, "" | "direct" | "(direct)") => return (DIRECT.to_owned(), true),
        (_, source) => source.to_owned(),
    };
    match (group_by, touch.campaign.as_deref()) {
        (GroupBy::Plan, Some(plan)) if !plan.is_empty() => (format!("{platform}/{plan}"), false),
        (GroupBy::Plan, _) => (format!("{platform}/-"), false),
        _ => (platform, false),
    }
}

/// Numbers for texts, so that paths hold no text.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    known: BTreeMap<String, u32>,
}

impl Numbers {
    pub(crate) fn of(&mut self, text: &str) -> u32 {
        if let Some(number) = self.known.get(text) {
            return *number;
        }
        let number = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        self.known.insert(text.to_owned(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_fall_into_the_rows_of_the_spend() {
        let touch = |platform: &str, source: &str, medium: &str, campaign: &str| Touch {
            platform: (!platform.is_empty()).then(|| platform.to_owned()),
            source: (!source.is_empty()).then(|| source.to_owned()),
            medium: (!medium.is_empty()).then(|| medium.to_owned()),
            campaign: (!campaign.is_empty()).then(|| campaign.to_owned()),
            ..Touch::default()
        };
        for (touch, platform, plan) in [
            (touch("baidu", "x", "cpc", "901"), "baidu", "baidu/901"),
            (touch("", "oceanengine", "cpc", "17"), "ocean_engine", "ocean_engine/17"),
            (touch("", "tencent", "cpc", ""), "tencent_ads", "tencent_ads/-"),
            (touch("", "baidu", "cpc", "901"), "baidu", "baidu/901"),
            (touch("", "baidu", "organic", ""), "baidu_organic", "baidu_organic/-"),
            (touch("", "wechat_oa", "post", "spring"), "wechat_oa", "wechat_oa/spring"),
            (touch("", "", "", ""), "direct", "direct"),
        ] {
            assert_eq!(channel(GroupBy::Platform, &touch).0, platform);
            assert_eq!(channel(GroupBy::Plan, &touch).0, plan);
        }
    }

    /// The bar asks for a million raw paths in half a second; debug builds and busy machines get ten times that.
    #[test]
    fn a_million_paths_are_credited_in_linear_time() {
        let mut tally = Tally::default();
        let channels: Vec<u32> = (0..12).map(|index| tally.number(&format!("channel-{index}"))).collect();
        let step = |index: u32| Step { at: i64::from(index % 5), touch: index, channel: channels[index as usize % 12], direct: false };
        let paths = Paths::new((0..4_000_000u32).map(|index| (index / 4, step(index))).collect());
        let lead = [Outcome { stage: LeadStage::Lead, takes_contract: false }];
        let started = std::time::Instant::now();
        for customer in 0..1_000_000 {
            credit_lead(&mut tally, Model::Linear, paths.before(Some(customer), 10, 100), None, 0, &lead);
        }
        let took = started.elapsed();
        let (_, totals) = tally.finish();
        assert_eq!(totals.counts.leads, 1_000_000 * MILLION);
        assert!(took.as_millis() < 5_000, "{took:?}");
    }
}
