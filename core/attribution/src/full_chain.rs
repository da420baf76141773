//! Making the full-chain report: leads and their results, the customers behind them, their touches, credited and added up.

use crate::credit::Step;
use crate::error::{Error, corrupt};
use crate::leads::stage;
use crate::report::{Basis, FullChain, GroupBy, ReportQuery};
use crate::tally::{DIRECT, Numbers, Outcome, Paths, Tally, channel, credit_lead, give_whole};
use crate::tasks::TOUCH_DAYS;
use crate::wing::Attribution;
use heyuan_contract::{AnchorId, LeadStage, Timestamp, Touch};
use heyuan_kernel::filter::Filter;
use heyuan_kernel::{Actor, Problem, Scope, sql};
use sea_orm::Value;
use std::collections::{HashMap, HashSet};

/// Leads of one report.
const LEADS_MAX: usize = 500_000;
/// Touches that one report reads.
const TOUCHES_MAX: usize = 3_000_000;
/// Rows of one read.
const ROWS_A_READ: usize = 20_000;
/// Click ids, anchors of one statement or call.
const NAMES_A_READ: usize = 1_000;
/// Days of one report: three years.
const DAYS_MAX: i64 = 1_100;
/// Longest window; well below what is kept of touches.
const WINDOW_DAYS_MAX: i64 = 365;
const DAY_MS: i64 = 86_400_000;

const TOUCH: &str = "SELECT message_id, anchor, platform, source, medium, campaign, click_id, occurred_at FROM attribution_touch";

struct LeadFact {
    id: String,
    unit: String,
    anchor: Option<AnchorId>,
    submitted_at: i64,
    click_id: Option<String>,
    touch: Option<Touch>,
    results: Vec<(i64, Outcome)>,
}

struct TouchFact {
    message_id: String,
    anchor: Option<AnchorId>,
    touch: Touch,
    at: i64,
}

/// The days of a report as instants.
struct Span {
    from: i64,
    until: i64,
}

impl Span {
    fn holds(&self, at: i64) -> bool {
        (self.from..self.until).contains(&at)
    }
}

impl Attribution {
    /// Makes the report, cut to the actor's units.
    ///
    /// # Errors
    /// `invalid_request` for days or figures out of range, `too_many_rows`, `forbidden`.
    pub async fn full_chain(&self, actor: &Actor, query: ReportQuery) -> Result<FullChain, Error> {
        actor.require(Scope::Admin)?;
        let span = self.span(&query)?;
        let leads = self.lead_facts(actor, &query, &span).await?;
        let mut tally = Tally::default();
        self.add_spend(actor, &query, &mut tally).await?;
        match query.group_by {
            GroupBy::Platform | GroupBy::Plan => self.add_credit(&query, &leads, &mut tally).await?,
            GroupBy::Unit => {
                for lead in &leads {
                    lead.results.iter().for_each(|(_, result)| give_whole(&mut tally, &lead.unit, *result));
                }
            }
            GroupBy::Day => {
                for lead in &leads {
                    for (at, result) in &lead.results {
                        let at = if query.basis == Basis::Cohort { lead.submitted_at } else { *at };
                        give_whole(&mut tally, &self.kernel.zone.day(Timestamp::clamped(at)).to_string(), *result);
                    }
                }
            }
        }
        let (rows, totals) = tally.finish();
        Ok(FullChain { query, time_zone: self.kernel.zone.name().to_owned(), rows, totals })
    }

    fn span(&self, query: &ReportQuery) -> Result<Span, Problem> {
        let zone = &self.kernel.zone;
        let next = query.to.tomorrow().map_err(|_| Problem::invalid("to", "expected a day before 9999-12-31"))?;
        let span = Span { from: zone.day_start(query.from).ms(), until: zone.day_start(next).ms() };
        if query.from > query.to {
            return Err(Problem::invalid("to", "expected a day not before `from`"));
        }
        if (span.until - span.from) / DAY_MS > DAYS_MAX {
            return Err(Problem::invalid("to", format!("expected at most {DAYS_MAX} days")));
        }
        if !(1..=WINDOW_DAYS_MAX).contains(&query.window_days) {
            return Err(Problem::invalid("window_days", format!("expected 1 to {WINDOW_DAYS_MAX}")));
        }
        if !(1..=1_000).contains(&query.min_sample) {
            return Err(Problem::invalid("min_sample", "expected 1 to 1000"));
        }
        Ok(span)
    }

    /// Leads that have a result in the report, with these results.
    async fn lead_facts(&self, actor: &Actor, query: &ReportQuery, span: &Span) -> Result<Vec<LeadFact>, Error> {
        let select = "SELECT id, unit, anchor, submitted_at, click_id, touch FROM attribution_lead";
        let mut leads: Vec<LeadFact> = Vec::new();
        let mut after = String::new();
        loop {
            let filter =
                Filter::everything().and("id", ">", after.as_str()).within("unit", actor.reach()).and("submitted_at", "<", span.until);
            let filter = match query.basis {
                Basis::Cohort => filter.and("submitted_at", ">=", span.from),
                Basis::Event => filter.and_text(
                    |n| {
                        format!(
                            "submitted_at >= ${n} OR EXISTS (SELECT 1 FROM attribution_stage s
                             WHERE s.lead_id = attribution_lead.id AND s.occurred_at >= ${n} AND s.occurred_at < ${})",
                            n + 1
                        )
                    },
                    [span.from.into(), span.until.into()],
                ),
            };
            let (text, values) = filter.page(select, "id", ROWS_A_READ as u64);
            let rows = sql::all(self.kernel.db.reader(), &text, values).await?;
            let more = rows.len() > ROWS_A_READ;
            let mut batch = rows.iter().take(ROWS_A_READ).map(read_lead).collect::<Result<Vec<_>, _>>()?;
            after = batch.last().map(|lead| lead.id.clone()).unwrap_or_default();
            self.add_results(query.basis, span, &mut batch).await?;
            leads.extend(batch);
            if leads.len() > LEADS_MAX {
                return Err(Error::TooManyRows {
                    what: "a report",
                    most: LEADS_MAX,
                    instead: "ask for fewer days, or with a key of one unit",
                });
            }
            if !more {
                return Ok(leads);
            }
        }
    }

    /// Adds what counts of each lead: itself if it came in within the days, and its stages.
    async fn add_results(&self, basis: Basis, span: &Span, leads: &mut [LeadFact]) -> Result<(), Error> {
        let mut places: HashMap<String, usize> = HashMap::with_capacity(leads.len());
        for (place, lead) in leads.iter_mut().enumerate() {
            places.insert(lead.id.clone(), place);
            if span.holds(lead.submitted_at) {
                lead.results.push((lead.submitted_at, Outcome { stage: LeadStage::Lead, takes_contract: false }));
            }
        }
        let ids: Vec<String> = leads.iter().map(|lead| lead.id.clone()).collect();
        for chunk in ids.chunks(NAMES_A_READ) {
            let list = sql::placeholders(1, chunk.len());
            let text = format!("SELECT lead_id, stage, occurred_at, takes_back FROM attribution_stage WHERE lead_id IN ({list})");
            for row in sql::all(self.kernel.db.reader(), &text, chunk.iter().map(|id| Value::from(id.as_str())).collect::<Vec<_>>()).await?
            {
                let at: i64 = sql::get(&row, "occurred_at")?;
                if basis == Basis::Event && !span.holds(at) {
                    continue;
                }
                let takes_back: Option<String> = sql::get(&row, "takes_back")?;
                let result = Outcome { stage: stage(&row)?, takes_contract: takes_back.as_deref() == Some(LeadStage::Contracted.as_str()) };
                let place = places.get(&sql::get::<String>(&row, "lead_id")?).copied();
                if let Some(lead) = place.and_then(|place| leads.get_mut(place)) {
                    lead.results.push((at, result));
                }
            }
        }
        Ok(())
    }

    async fn add_spend(&self, actor: &Actor, query: &ReportQuery, tally: &mut Tally) -> Result<(), Error> {
        let (columns, group) = match query.group_by {
            GroupBy::Platform => ("platform AS row_key, '' AS label", "platform"),
            GroupBy::Plan => ("platform || '/' || plan AS row_key, MAX(plan_name) AS label", "platform, plan"),
            GroupBy::Unit => ("unit AS row_key, '' AS label", "unit"),
            GroupBy::Day => ("day AS row_key, '' AS label", "day"),
        };
        let filter = Filter::everything().and("day", ">=", query.from.to_string()).and("day", "<=", query.to.to_string());
        let (text, values) = filter.within("unit", actor.reach()).text();
        let text = format!("SELECT {columns}, CAST(SUM(amount) AS BIGINT) AS fen FROM attribution_spend {text} GROUP BY {group}");
        for row in sql::all(self.kernel.db.reader(), &text, values).await? {
            tally.spend(&sql::get::<String>(&row, "row_key")?, sql::get(&row, "label")?, sql::get(&row, "fen")?);
        }
        Ok(())
    }

    /// Credits every lead's results along its path: the touches of its customer, whatever anchors they hang on, in the window before it.
    async fn add_credit(&self, query: &ReportQuery, leads: &[LeadFact], tally: &mut Tally) -> Result<(), Error> {
        let mut customers = Numbers::default();
        let anchors = self.customers_of_leads(leads, &mut customers).await?;
        let wanted: HashSet<u32> = anchors.values().copied().collect();
        let mut touches = Touches { group_by: query.group_by, numbers: HashMap::new(), next: 0 };
        let window_ms = query.window_days.min(TOUCH_DAYS) * DAY_MS;
        let steps = self.touches_of(leads, window_ms, &wanted, &mut customers, &mut touches, tally).await?;
        let paths = Paths::new(steps);
        let clicks = self.touches_of_clicks(leads, &mut touches, tally).await?;
        let untouched = tally.number(DIRECT);
        let mut results = Vec::new();
        for lead in leads {
            let customer = lead.anchor.as_ref().and_then(|anchor| anchors.get(anchor)).copied();
            let path = paths.before(customer, lead.submitted_at, window_ms);
            let told = lead.click_id.as_ref().and_then(|click| clicks.get(click)).copied();
            // The touch that the sender told stands in where the visit itself was never seen.
            let unseen = lead.touch.as_ref().filter(|_| told.is_none() && (lead.click_id.is_some() || path.is_empty()));
            let tied = told.or_else(|| unseen.map(|touch| touches.step(tally, None, touch, lead.submitted_at)));
            results.clear();
            results.extend(lead.results.iter().map(|(_, result)| *result));
            credit_lead(tally, query.model, path, tied, untouched, &results);
        }
        Ok(())
    }

    async fn customers_of_leads(&self, leads: &[LeadFact], customers: &mut Numbers) -> Result<HashMap<AnchorId, u32>, Error> {
        let anchors: HashSet<&AnchorId> = leads.iter().filter_map(|lead| lead.anchor.as_ref()).collect();
        let anchors: Vec<AnchorId> = anchors.into_iter().cloned().collect();
        self.number_anchors(&anchors, customers).await
    }

    /// A number for the customer behind each anchor; an anchor without one is a customer of its own.
    async fn number_anchors(&self, anchors: &[AnchorId], customers: &mut Numbers) -> Result<HashMap<AnchorId, u32>, Error> {
        let mut numbered = HashMap::with_capacity(anchors.len());
        for chunk in anchors.chunks(NAMES_A_READ) {
            let known = self.customers.customers_of(chunk).await?;
            for anchor in chunk {
                let number = match known.get(anchor) {
                    Some(customer) => customers.of(&format!("c/{customer}")),
                    None => customers.of(&format!("a/{anchor}")),
                };
                numbered.insert(anchor.clone(), number);
            }
        }
        Ok(numbered)
    }

    /// The touches of the leads' customers, by time and message id.
    async fn touches_of(
        &self,
        leads: &[LeadFact],
        window_ms: i64,
        wanted: &HashSet<u32>,
        customers: &mut Numbers,
        touches: &mut Touches,
        tally: &mut Tally,
    ) -> Result<Vec<(u32, Step)>, Error> {
        let times = || leads.iter().map(|lead| lead.submitted_at);
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
        let (mut from, mut after) = (first.saturating_sub(window_ms), String::new());
        let (mut steps, mut read) = (Vec::new(), 0);
        loop {
            let text = format!(
                "{TOUCH} WHERE (occurred_at > $1 OR (occurred_at = $1 AND message_id > $2)) AND occurred_at <= $3 AND anchor IS NOT NULL
                 ORDER BY occurred_at, message_id LIMIT {ROWS_A_READ}"
            );
            let rows = sql::all(self.kernel.db.reader(), &text, [from.into(), after.clone().into(), last.into()]).await?;
            let facts = rows.iter().map(read_touch).collect::<Result<Vec<_>, _>>()?;
            let anchors: HashSet<&AnchorId> = facts.iter().filter_map(|fact| fact.anchor.as_ref()).collect();
            let anchors: Vec<AnchorId> = anchors.into_iter().cloned().collect();
            let numbered = self.number_anchors(&anchors, customers).await?;
            for fact in &facts {
                let customer = fact.anchor.as_ref().and_then(|anchor| numbered.get(anchor)).copied();
                if let Some(customer) = customer.filter(|customer| wanted.contains(customer)) {
                    steps.push((customer, touches.step(tally, Some(&fact.message_id), &fact.touch, fact.at)));
                }
            }
            read += facts.len();
            if read > TOUCHES_MAX {
                return Err(Error::TooManyRows { what: "a report", most: TOUCHES_MAX, instead: "ask for fewer days or a shorter window" });
            }
            match facts.last() {
                Some(fact) if facts.len() == ROWS_A_READ => (from, after) = (fact.at, fact.message_id.clone()),
                _ => return Ok(steps),
            }
        }
    }

    /// The touches whose click the leads themselves name; of several with one click id, the first.
    async fn touches_of_clicks(
        &self,
        leads: &[LeadFact],
        touches: &mut Touches,
        tally: &mut Tally,
    ) -> Result<HashMap<String, Step>, Error> {
        let ids: HashSet<&str> = leads.iter().filter_map(|lead| lead.click_id.as_deref()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let mut found: HashMap<String, Step> = HashMap::new();
        for chunk in ids.chunks(NAMES_A_READ) {
            let list = sql::placeholders(1, chunk.len());
            let text = format!("{TOUCH} WHERE click_id IN ({list}) ORDER BY occurred_at, message_id");
            for row in sql::all(self.kernel.db.reader(), &text, chunk.iter().map(|id| Value::from(*id)).collect::<Vec<_>>()).await? {
                let fact = read_touch(&row)?;
                if let Some(click) = &fact.touch.click_id {
                    let step = touches.step(tally, Some(&fact.message_id), &fact.touch, fact.at);
                    found.entry(click.clone()).or_insert(step);
                }
            }
        }
        Ok(found)
    }
}

/// Numbers of touches, so that one that is met twice is the same.
struct Touches {
    group_by: GroupBy,
    numbers: HashMap<String, u32>,
    next: u32,
}

impl Touches {
    fn step(&mut self, tally: &mut Tally, message_id: Option<&str>, touch: &Touch, at: i64) -> Step {
        let known = message_id.and_then(|id| self.numbers.get(id)).copied();
        let number = known.unwrap_or_else(|| {
            let number = self.next;
            self.next = self.next.saturating_add(1);
            if let Some(id) = message_id {
                self.numbers.insert(id.to_owned(), number);
            }
            number
        });
        let (key, direct) = channel(self.group_by, touch);
        Step { at, touch: number, channel: tally.number(&key), direct }
    }
}

fn read_lead(row: &sql::Row) -> Result<LeadFact, Error> {
    let touch: Option<String> = sql::get(row, "touch")?;
    Ok(LeadFact {
        id: sql::get(row, "id")?,
        unit: sql::get(row, "unit")?,
        anchor: anchor(row)?,
        submitted_at: sql::get(row, "submitted_at")?,
        click_id: sql::get(row, "click_id")?,
        touch: touch.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| corrupt("touch", e))?,
        results: Vec::new(),
    })
}

fn read_touch(row: &sql::Row) -> Result<TouchFact, Error> {
    let touch = Touch {
        source: sql::get(row, "source")?,
        medium: sql::get(row, "medium")?,
        campaign: sql::get(row, "campaign")?,
        platform: sql::get(row, "platform")?,
        click_id: sql::get(row, "click_id")?,
        ..Touch::default()
    };
    Ok(TouchFact { message_id: sql::get(row, "message_id")?, anchor: anchor(row)?, touch, at: sql::get(row, "occurred_at")? })
}

fn anchor(row: &sql::Row) -> Result<Option<AnchorId>, Error> {
    let text: Option<String> = sql::get(row, "anchor")?;
    text.map(AnchorId::new).transpose().map_err(|e| corrupt("anchor", e))
}
