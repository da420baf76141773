//! What one wing asks of another, answered: the implementations of the traits that consumers own.

use crate::patience::Patience;
use crate::sandbox::{Sandbox, call_problem, unapproved_problem};
use crate::usage::Usage;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use heyuan_cdp::know::{self, ActiveTagger, ColumnValues, EventPages, History, Know, TagColumn, TaggerFeature, Taggers, Value};
use heyuan_cdp::{Cdp, Known};
use heyuan_contract::{AnchorId, CustomerId, MemberId, OrgUnitId, ProductId, Timestamp};
use heyuan_kernel::error::codes;
use heyuan_kernel::guard::outside_unit;
use heyuan_kernel::plugin::{Active, PluginKind, Plugins};
use heyuan_kernel::{Actor, Database, Problem, Reach, Scope, Zone};
use heyuan_lake::{EventRow, Lake, Scan, ScanOrder};
use heyuan_mall::PointsWanted;
use heyuan_membership::{BenefitRules, Change, FeatureValue, Features, HoldPoints, Membership, RuleAnswer, RuleError, RuleInput};
use heyuan_plugin_host::{self as host, BenefitRuleDescription, CallError, Description, Digest, TagValue, TaggerDescription};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Pages of a customer's history read at most: past that, a value as of long ago is refused rather than wrong.
const HISTORY_PAGES_MAX: usize = 200;
/// Events of one such page.
const HISTORY_PAGE_EVENTS: usize = 1000;

/// Plugins as the wings' hooks call them.
pub(crate) struct Hooks {
    plugins: Plugins,
    sandbox: Arc<Sandbox>,
    zone: Zone,
    patience: Patience,
    usage: Arc<Usage>,
}

impl Hooks {
    /// Hooks over the register and the sandbox.
    pub(crate) fn new(plugins: Plugins, sandbox: Arc<Sandbox>, zone: Zone, usage: Arc<Usage>) -> Hooks {
        Hooks { plugins, sandbox, zone, patience: Patience::new(), usage }
    }

    /// The version, made ready in this process first where another one activated it.
    async fn ready(&self, digest: &str) -> Result<Digest, Problem> {
        let parsed: Digest = digest.parse().map_err(|_| Problem::not_found("plugin version", digest))?;
        if !self.sandbox.host().is_installed(&parsed) {
            self.plugins.ready(digest).await?;
        }
        Ok(parsed)
    }
}

impl Taggers for Hooks {
    fn active(&self) -> BoxFuture<'_, Result<Vec<ActiveTagger>, Problem>> {
        async move {
            let active = self.plugins.active(PluginKind::Tagger).await?;
            active
                .into_iter()
                .map(|plugin| {
                    let description = tagger_description(&plugin.description)?;
                    let refresh = u64::from(description.refresh_seconds);
                    Ok(ActiveTagger {
                        name: plugin.name,
                        digest: plugin.digest,
                        generation: plugin.generation,
                        features: description.reads.iter().map(tagger_feature).collect(),
                        tags: description.writes.into_iter().map(|tag| tag.name).collect(),
                        refresh_s: (refresh > 0).then_some(refresh),
                    })
                })
                .collect()
        }
        .boxed()
    }

    fn evaluate<'a>(&'a self, asked: &'a ActiveTagger, batch: know::TaggerBatch) -> BoxFuture<'a, Result<know::TaggerAnswer, Problem>> {
        async move {
            outside_unit("a tagger");
            // Looked up for every call: what a plugin is shown depends on what is approved now.
            refuse_unapproved(&asked.name, &asked.digest, &self.plugins.unapproved(&asked.name, &asked.digest).await?)?;
            let digest = self.ready(&asked.digest).await?;
            let tagger = self.sandbox.host().tagger(&digest).map_err(|e| Problem::new(codes::UNAVAILABLE, e.to_string()))?;
            let rows = batch.rows;
            let batch = tagger_batch(batch, &self.zone);
            let names: Vec<String> = tagger.description().writes.iter().map(|tag| tag.name.clone()).collect();
            let began = Instant::now();
            let patience = self.patience.left(&digest, began);
            let answer = tokio::task::spawn_blocking(move || tagger.evaluate_isolating(&batch, patience));
            let answer = answer.await.map_err(|e| Problem::new(codes::UNAVAILABLE, e.to_string()))?;
            let answer = answer.inspect_err(|_| self.usage.failed(&digest)).map_err(|error| call_problem(&asked.name, &error))?;
            self.usage.answered(&digest, answer.fuel_used, answer.failed.len());
            self.patience.record(&asked.name, &digest, &answer.failed, rows, began.elapsed());
            let columns = names.into_iter().enumerate().map(|(place, tag)| TagColumn {
                tag,
                values: (0..rows).map(|row| answer.columns.get(place).and_then(|column| column.value(row)).map(tag_text)).collect(),
            });
            Ok(know::TaggerAnswer { columns: columns.collect(), failed: answer.failed.iter().map(|failed| failed.row).collect() })
        }
        .boxed()
    }
}

/// Nothing is shown to a plugin of which anything that it reads is unapproved. Activation sees to it; this is the second lock.
fn refuse_unapproved(plugin: &str, digest: &str, unapproved: &[String]) -> Result<(), Problem> {
    if unapproved.is_empty() {
        return Ok(());
    }
    let unapproved = unapproved.join(", ");
    tracing::error!(plugin, digest, unapproved, "an active plugin reads what is not approved; it is not called");
    Err(unapproved_problem(plugin, &unapproved))
}

/// A tagger reads only what is declared, and writes no tag that something else writes.
pub(crate) async fn check_activation(plugins: &Plugins, know: &Know, name: &str, digest: &str) -> Result<(), Problem> {
    let installed = plugins.ready(digest).await?;
    if installed.kind != PluginKind::Tagger {
        return Ok(());
    }
    let description = tagger_description(&installed.description)?;
    let reads: Vec<String> = description.reads.into_iter().map(|feature| feature.name).collect();
    let writes: Vec<String> = description.writes.into_iter().map(|tag| tag.name).collect();
    know.check_tagger(name, &reads, &writes).await
}

fn tagger_description(stored: &serde_json::Value) -> Result<TaggerDescription, Problem> {
    match serde_json::from_value(stored.clone()) {
        Ok(Description::Tagger(description)) => Ok(description),
        _ => Err(Problem::new(codes::INTERNAL, "a stored tagger has no description that this release can read")),
    }
}

fn tagger_feature(feature: &host::Feature) -> TaggerFeature {
    let kind = if feature.kind == host::FeatureKind::Text { know::FeatureKind::Text } else { know::FeatureKind::Number };
    TaggerFeature { name: feature.name.clone(), kind }
}

fn tagger_batch(batch: know::TaggerBatch, zone: &Zone) -> host::TaggerBatch {
    let mut asked = host::TaggerBatch {
        now_ms: batch.now_ms,
        utc_offset_seconds: zone.offset_seconds(Timestamp::clamped(batch.now_ms)),
        rows: batch.rows,
        ..host::TaggerBatch::default()
    };
    for column in batch.columns {
        match column.values {
            ColumnValues::Numbers(values, present) => {
                let mut bits = host::Bits::none(values.len());
                present.iter().enumerate().filter(|(_, there)| **there).for_each(|(row, _)| bits.set(row));
                asked.numbers.push(host::NumberColumn { values, present: bits });
            }
            ColumnValues::Texts(codes, dictionary) => asked.texts.push(host::TextColumn { codes, dictionary }),
        }
    }
    asked
}

/// A tag's value as text: whole numbers without a point, flags as words.
fn tag_text(value: TagValue<'_>) -> String {
    match value {
        TagValue::Flag(flag) => flag.to_string(),
        TagValue::Number(number) => number.to_string(),
        TagValue::Text(text) => text.to_owned(),
    }
}

impl BenefitRules for Hooks {
    fn canonical(&self, rule: &Active, input: &RuleInput) -> Result<Vec<u8>, Problem> {
        refuse_unapproved(&rule.name, &rule.digest, &rule.unapproved)?;
        let description: BenefitRuleDescription = match serde_json::from_value(rule.description.clone()) {
            Ok(Description::BenefitRule(description)) => description,
            _ => return Err(Problem::new(codes::INTERNAL, "a stored benefit rule has no description that this release can read")),
        };
        Ok(benefit_input(&description, input).canonical_bytes())
    }

    fn decide<'a>(&'a self, digest: &'a str, input: &'a [u8]) -> BoxFuture<'a, Result<RuleAnswer, RuleError>> {
        async move {
            outside_unit("a benefit rule");
            let stopped = |why: String| RuleError::Stopped(why);
            let digest = self.ready(digest).await.map_err(|problem| stopped(problem.to_string()))?;
            let rule = self.sandbox.host().benefit_rule(&digest).map_err(|e| stopped(e.to_string()))?;
            let input = input.to_vec();
            let decision = tokio::task::spawn_blocking(move || rule.decide(&input)).await.map_err(|e| stopped(e.to_string()))?;
            let decision = decision.inspect_err(|_| self.usage.failed(&digest)).map_err(|error| match error {
                CallError::Stopped { .. } | CallError::Engine(_) => stopped(error.to_string()),
                other => RuleError::Failed(other.to_string()),
            })?;
            self.usage.answered(&digest, decision.fuel_used, 0);
            let effects = decision
                .effects
                .into_iter()
                .map(|effect| heyuan_membership::Effect { change: change(effect.change), reason: effect.reason });
            Ok(RuleAnswer { effects: effects.collect(), output: decision.output_bytes, fuel: decision.fuel_used })
        }
        .boxed()
    }
}

fn change(change: host::Change) -> Change {
    match change {
        host::Change::Growth(value) => Change::Growth(value),
        host::Change::Points(value) => Change::Points(value),
        host::Change::Benefit(code) => Change::Benefit(code),
        host::Change::Voucher(code) => Change::Voucher(code),
        host::Change::Discount(fen) => Change::Discount(fen),
    }
}

/// What the rule declared, and nothing else of what membership knows.
fn benefit_input(description: &BenefitRuleDescription, input: &RuleInput) -> host::BenefitInput {
    let reads = |part: host::InputPart| description.parts.contains(&part);
    let told = &input.transaction;
    let mut order_lines = host::OrderLines::default();
    if reads(host::InputPart::OrderLines) {
        let order = &told.order;
        for place in 0..order.skus.len().min(order.categories.len()).min(order.quantities.len()).min(order.amounts_fen.len()) {
            let (sku, category) = (order.skus[place].as_str(), order.categories[place].as_str());
            order_lines.push(Some(sku), Some(category), None, order.quantities[place], order.amounts_fen[place]);
        }
    }
    let time = told.local_time;
    host::BenefitInput {
        now_ms: input.now_ms,
        transaction: host::Transaction {
            line: told.line.clone(),
            unit: told.unit.clone(),
            kind: told.kind.clone(),
            amount_fen: told.amount_fen,
            currency: told.currency.clone(),
            occurred_at_ms: told.occurred_at_ms,
            local_time: host::LocalTime {
                year: time.year,
                month: time.month,
                day: time.day,
                weekday: time.weekday,
                minute_of_day: time.minute_of_day,
            },
            base_growth: told.base_growth,
            base_points: told.base_points,
            order_lines,
        },
        member: reads(host::InputPart::Member).then(|| host::Member {
            tier: input.member.tier.clone(),
            joined_at_ms: input.member.joined_at_ms,
            growth: input.member.growth,
            points: input.member.points,
        }),
        features: description.reads.iter().map(|feature| feature_value(feature, input)).collect(),
    }
}

fn feature_value(feature: &host::Feature, input: &RuleInput) -> host::FeatureValue {
    let value = input.features.iter().find(|(name, _)| *name == feature.name).map(|(_, value)| value);
    match (value, feature.kind) {
        (Some(FeatureValue::Integer(number)), host::FeatureKind::Integer) => host::FeatureValue::Integer(*number),
        (Some(FeatureValue::Ratio(numerator, denominator)), host::FeatureKind::Ratio) if *denominator > 0 => {
            host::FeatureValue::Ratio(host::Ratio { numerator: *numerator, denominator: *denominator })
        }
        (Some(FeatureValue::Text(text)), host::FeatureKind::Text) => host::FeatureValue::Text(text.clone()),
        _ => host::FeatureValue::Absent,
    }
}

/// The past of customers, from files and tail.
pub(crate) struct Past {
    pub(crate) cdp: Cdp,
    pub(crate) lake: Lake,
}

impl History for Past {
    fn events<'a>(&'a self, names: &'a [String], after: i64, until: i64) -> BoxFuture<'a, Result<EventPages, Problem>> {
        async move {
            let scan = Scan {
                position_max: until,
                occurred_from: i64::MIN,
                occurred_until: i64::MAX,
                names: names.to_vec(),
                order: ScanOrder::Position,
            };
            let cdp = self.cdp.clone();
            let pages = self.lake.scan(scan).await?.map_err(Problem::from).then(move |page| {
                let cdp = cdp.clone();
                async move {
                    let rows: Vec<EventRow> = page?.into_iter().filter(|row| row.position > after).collect();
                    Ok(cdp.open_events(&rows).await?)
                }
            });
            Ok(pages.boxed())
        }
        .boxed()
    }

    fn events_of<'a>(&'a self, anchors: &'a [AnchorId], until: i64) -> BoxFuture<'a, Result<Vec<Known>, Problem>> {
        async move {
            let names: Vec<String> = anchors.iter().map(ToString::to_string).collect();
            let mut events = Vec::new();
            let mut before = Some(until.saturating_add(1));
            for _ in 0..HISTORY_PAGES_MAX {
                let rows = self.lake.events_of(&names, before, HISTORY_PAGE_EVENTS).await?;
                let full = rows.len() == HISTORY_PAGE_EVENTS;
                before = rows.last().map(|row| row.position);
                events.extend(self.cdp.open_events(&rows).await?);
                if !full {
                    return Ok(events);
                }
            }
            Err(Problem::new(codes::LIMITED, "the customer's history is too long to be read back as of that moment"))
        }
        .boxed()
    }
}

/// Who is who, for the wings that are told identifiers; what is known, once that part is open.
pub(crate) struct Identities {
    pub(crate) cdp: Cdp,
    pub(crate) know: Know,
}

impl Identities {
    async fn observe(&self, actor: &Actor, unit: &OrgUnitId, list: &[(String, String)]) -> Result<AnchorId, Problem> {
        let list: Vec<(&str, &str)> = list.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
        self.cdp.observe(actor, Some(unit), &list).await
    }
}

impl heyuan_membership::Customers for Identities {
    fn anchor_for<'a>(
        &'a self,
        actor: &'a Actor,
        unit: &'a OrgUnitId,
        identifiers: &'a [heyuan_membership::Identifier],
    ) -> BoxFuture<'a, Result<AnchorId, Problem>> {
        async move { self.observe(actor, unit, &spelled(identifiers)).await }.boxed()
    }

    fn find_anchors<'a>(&'a self, identifiers: &'a [heyuan_membership::Identifier]) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>> {
        async move {
            let list = spelled(identifiers);
            let list: Vec<(&str, &str)> = list.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
            self.cdp.find_anchors(&list).await
        }
        .boxed()
    }

    fn customer_of<'a>(&'a self, anchor: &'a AnchorId) -> BoxFuture<'a, Result<CustomerId, Problem>> {
        async move { self.cdp.customer_of(anchor).await?.ok_or_else(|| Problem::new(codes::ERASED, "the person was erased")) }.boxed()
    }

    fn anchors_of<'a>(&'a self, customer: &'a CustomerId) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>> {
        async move { Ok(self.cdp.anchors_of(customer).await?) }.boxed()
    }

    fn erase<'a>(&'a self, actor: &'a Actor, proven: &'a [AnchorId], unclaimed: &'a [AnchorId]) -> BoxFuture<'a, Result<(), Problem>> {
        async move {
            // The person's own right, whoever brings it: its name in the audit record, the reach of the whole group.
            let person = Actor::key(actor.name().to_owned(), vec![Scope::Admin], None, Reach::Everything);
            self.cdp.erase_proven(&person, proven, unclaimed).await
        }
        .boxed()
    }

    fn features<'a>(&'a self, anchor: &'a AnchorId, names: &'a [String]) -> BoxFuture<'a, Result<Features, Problem>> {
        async move {
            let customer = heyuan_membership::Customers::customer_of(self, anchor).await?;
            let read = self.know.features_at(&customer, names, None, None).await?;
            Ok(Features { values: read.values.into_iter().map(exact).collect(), position: read.position })
        }
        .boxed()
    }
}

/// Membership's identifiers as cdp spells them: type and value, an openid with its app.
fn spelled(identifiers: &[heyuan_membership::Identifier]) -> Vec<(String, String)> {
    let spell = |identifier: &heyuan_membership::Identifier| {
        let kind = match &identifier.app {
            Some(app) => format!("{}@{app}", identifier.kind),
            None => identifier.kind.clone(),
        };
        (kind, identifier.value.clone())
    };
    identifiers.iter().map(spell).collect()
}

/// A feature as a money rule may read it: whole numbers, exact ratios and text.
fn exact(value: Option<Value>) -> FeatureValue {
    match value {
        None => FeatureValue::Absent,
        Some(Value::Text(text)) => FeatureValue::Text(text.into()),
        Some(Value::Flag(flag)) => FeatureValue::Integer(flag.into()),
        Some(Value::Moment(ms)) => FeatureValue::Integer(ms),
        Some(Value::Number(number)) => number.as_whole().map_or_else(|| ratio(&number.to_string()), FeatureValue::Integer),
    }
}

/// A plain decimal as hundredths, thousandths, …; absent when it does not fit 64 bits.
fn ratio(decimal: &str) -> FeatureValue {
    let Some((_, fraction)) = decimal.split_once('.') else { return FeatureValue::Absent };
    let denominator = u32::try_from(fraction.len()).ok().and_then(|places| 10i64.checked_pow(places));
    match (decimal.replace('.', "").parse(), denominator) {
        (Ok(numerator), Some(denominator)) => FeatureValue::Ratio(numerator, denominator),
        _ => FeatureValue::Absent,
    }
}

impl heyuan_attribution::Customers for Identities {
    fn anchor_for<'a>(
        &'a self,
        actor: &'a Actor,
        unit: &'a OrgUnitId,
        identifiers: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<AnchorId, Problem>> {
        self.observe(actor, unit, identifiers).boxed()
    }

    fn customers_of<'a>(&'a self, anchors: &'a [AnchorId]) -> BoxFuture<'a, Result<HashMap<AnchorId, CustomerId>, Problem>> {
        async move { Ok(self.cdp.customers_of(anchors).await?) }.boxed()
    }
}

/// Members, for the mall; membership is opened after it is named here.
#[derive(Default)]
pub(crate) struct MallMembers(pub(crate) OnceLock<Membership>);

impl MallMembers {
    fn membership(&self) -> Result<&Membership, Problem> {
        self.0.get().ok_or_else(|| Problem::new(codes::UNAVAILABLE, "membership is not open yet"))
    }
}

impl heyuan_mall::Members for MallMembers {
    fn exists<'a>(&'a self, member: &'a MemberId) -> BoxFuture<'a, Result<bool, Problem>> {
        async move { Ok(self.membership()?.exists(member).await?) }.boxed()
    }

    fn set_aside<'a>(&'a self, actor: &'a Actor, wanted: &'a PointsWanted) -> BoxFuture<'a, Result<String, Problem>> {
        let points = HoldPoints {
            amount: wanted.points,
            unit: wanted.unit.clone(),
            reference: format!("cart {}", wanted.name),
            expires_at: None,
            minutes: Some(wanted.minutes),
        };
        async move { Ok(self.membership()?.set_aside(actor, &wanted.member, &points, &wanted.name, &wanted.order).await?) }.boxed()
    }

    fn set_free<'a>(&'a self, member: &'a MemberId, hold: &'a str) -> BoxFuture<'a, Result<(), Problem>> {
        async move { Ok(self.membership()?.set_free(member, hold).await?) }.boxed()
    }
}

/// The mall's vouchers, for membership. The mall itself stands on membership; its tables alone are asked.
pub(crate) struct MallVouchers(pub(crate) Database);

impl heyuan_membership::Vouchers for MallVouchers {
    fn unit_of<'a>(&'a self, product: &'a ProductId) -> BoxFuture<'a, Result<Option<OrgUnitId>, Problem>> {
        async move {
            outside_unit("a question to the mall");
            Ok(heyuan_mall::voucher_unit(&self.0, product).await?)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heyuan_cdp::know::Number;

    #[test]
    fn features_of_money_rules_are_exact() {
        for (text, expected) in
            [("12", FeatureValue::Integer(12)), ("0.5", FeatureValue::Ratio(5, 10)), ("-1.25", FeatureValue::Ratio(-125, 100))]
        {
            assert_eq!(exact(Number::parse(text).map(Value::Number)), expected, "{text}");
        }
    }
}
