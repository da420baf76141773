//! The sales system: leads, invitations, visits, subscriptions, contracts and cancellations, as advisers record them.

use serde::Serialize;

use crate::Error;
use crate::calendar::{Calendar, Rhythm};
use crate::draw::{Draw, Purpose};
use crate::events::{Facts, Session, identify};
use crate::media::Touch;
use crate::message::{Properties, Said};
use crate::output::Sorted;
use crate::people::Household;
use crate::person::Person;
use crate::search::Quest;
use crate::stamp::{DAY, HOUR, MINUTE, SECOND, Stamp};
use crate::story::Story;
use crate::world::PROJECTS;

/// Somebody who may buy, as the sales system knows it.
pub(crate) struct Lead {
    pub(crate) id: String,
    pub(crate) at: i64,
    pub(crate) project: usize,
    pub(crate) home: usize,
    /// Perhaps a relay number; the own one is learnt at the visit.
    pub(crate) phone: String,
    pub(crate) form: &'static str,
    pub(crate) touch: Option<Touch>,
    pub(crate) adviser: String,
}

/// A contract that was signed.
pub(crate) struct Contract {
    pub(crate) id: String,
    pub(crate) at: i64,
    pub(crate) amount_fen: i64,
    pub(crate) cancelled_at: Option<i64>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Lead,
    Invited,
    Visited,
    Subscribed,
    Contracted,
    Cancelled,
}

#[derive(Serialize)]
struct Record<'a> {
    id: String,
    lead_id: &'a str,
    stage: Stage,
    occurred_at: Stamp,
    unit: &'static str,
    phone: &'a str,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    click_id: Option<&'a str>,
    /// The name under which the platform sends its click id.
    #[serde(skip_serializing_if = "Option::is_none")]
    click_id_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    utm: Option<Utm<'a>>,
    adviser_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contract_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_fen: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Utm<'a> {
    source: &'static str,
    medium: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// What a stage adds to a record.
#[derive(Default)]
struct Detail<'a> {
    contract_id: Option<&'a str>,
    amount_fen: Option<i64>,
    reason: Option<&'static str>,
}

/// Writes `leads.ndjson`.
pub(crate) struct Desk {
    pub(crate) lines: Sorted,
    draw: Draw,
    end: i64,
    pub(crate) leads: u64,
    pub(crate) visits: u64,
    pub(crate) subscriptions: u64,
    pub(crate) contracts: u64,
    pub(crate) cancellations: u64,
}

impl Desk {
    pub(crate) fn new(seed: u64, lines: Sorted, calendar: &Calendar) -> Self {
        let draw = Draw::new(seed, Purpose::Records);
        Self { lines, draw, end: calendar.end, leads: 0, visits: 0, subscriptions: 0, contracts: 0, cancellations: 0 }
    }

    pub(crate) fn lead_id(&mut self) -> String {
        format!("lead-{}", self.draw.hexadecimal(14))
    }

    fn contract_id(&mut self) -> String {
        format!("HT{}", self.draw.digits(12))
    }

    fn record(&mut self, lead: &Lead, stage: Stage, at: i64, phone: &str, detail: Detail<'_>) -> Result<(), Error> {
        let (count, typed_in) = match stage {
            // Forms arrive by machine, the rest is typed in by an adviser in the evening.
            Stage::Lead => (Some(&mut self.leads), self.draw.between(SECOND, 3 * MINUTE)),
            Stage::Invited => (None, self.draw.between(MINUTE, 9 * HOUR)),
            Stage::Visited => (Some(&mut self.visits), self.draw.between(MINUTE, 9 * HOUR)),
            Stage::Subscribed => (Some(&mut self.subscriptions), self.draw.between(MINUTE, 30 * HOUR)),
            Stage::Contracted => (Some(&mut self.contracts), self.draw.between(MINUTE, 30 * HOUR)),
            Stage::Cancelled => (Some(&mut self.cancellations), self.draw.between(MINUTE, 30 * HOUR)),
        };
        if let Some(count) = count {
            *count += 1;
        }
        let touch = lead.touch.as_ref();
        let record = Record {
            id: format!("rec-{}", self.draw.hexadecimal(14)),
            lead_id: &lead.id,
            stage,
            occurred_at: Stamp::shanghai(at),
            unit: PROJECTS[lead.project].unit,
            phone,
            source: lead.form,
            click_id: touch.and_then(|touch| touch.click_id.as_deref()),
            click_id_type: touch.filter(|touch| touch.is_bought()).map(|touch| touch.parameter),
            utm: touch.filter(|touch| touch.tagged).map(|touch| Utm {
                source: touch.source,
                medium: touch.medium,
                campaign: touch.plan_id.as_deref(),
                content: touch.creative_id.as_deref(),
            }),
            adviser_id: &lead.adviser,
            layout: matches!(stage, Stage::Subscribed | Stage::Contracted).then(|| PROJECTS[lead.project].homes[lead.home].code),
            contract_id: detail.contract_id,
            amount_fen: detail.amount_fen,
            currency: detail.amount_fen.map(|_| "CNY"),
            reason: detail.reason,
        };
        self.lines.push((at + typed_in).min(self.end - 1), &record)
    }
}

/// Follows a lead as far as it goes within the history.
pub(crate) fn pursue(
    story: &mut Story<'_>,
    household: &Household,
    facts: &Facts,
    quest: &Quest,
    who: usize,
    lead: &Lead,
) -> Result<Option<Contract>, Error> {
    let end = story.calendar.end;
    story.desk.record(lead, Stage::Lead, lead.at, &lead.phone, Detail::default())?;
    if !story.chance.chance(870) {
        return Ok(None);
    }
    let invited_at = lead.at + story.chance.between(20 * MINUTE, 40 * HOUR);
    if invited_at >= end {
        return Ok(None);
    }
    story.desk.record(lead, Stage::Invited, invited_at, &lead.phone, Detail::default())?;
    let Some(visited_at) = office_hours(story, story.calendar.day_of(invited_at) + 1, 11) else { return Ok(None) };
    if !story.chance.chance(280 + quest.need / 2) {
        return Ok(None);
    }
    let mut party = vec![&household.adults[who]];
    if household.adults.len() > 1 && story.chance.chance(550) {
        party.push(&household.adults[usize::from(who == 0)]);
    }
    check_in(story, facts, &party, lead.project, visited_at, true)?;
    let phone = |at| household.adults[who].phone(at).unwrap_or(&lead.phone);
    story.desk.record(lead, Stage::Visited, visited_at, phone(visited_at), Detail::default())?;
    if !story.chance.chance(quest.need * quest.afford * 62 / 100_000) {
        return Ok(None);
    }
    let Some(subscribed_at) = office_hours(story, story.calendar.day_of(visited_at) + 1, 14) else { return Ok(None) };
    let deposit = Detail { amount_fen: Some(*story.chance.pick(&[2_000_000, 3_000_000, 5_000_000])), ..Detail::default() };
    story.desk.record(lead, Stage::Subscribed, subscribed_at, phone(subscribed_at), deposit)?;
    if story.chance.chance(150) {
        if let Some(at) = office_hours(story, story.calendar.day_of(subscribed_at) + 2, 20) {
            let reason = Some(*story.chance.pick(&["price", "loan_refused", "location", "bought_elsewhere"]));
            story.desk.record(lead, Stage::Cancelled, at, phone(at), Detail { reason, ..Detail::default() })?;
        }
        return Ok(None);
    }
    let Some(at) = office_hours(story, story.calendar.day_of(subscribed_at) + 2, 18) else { return Ok(None) };
    sign(story, household, who, lead, at).map(Some)
}

fn sign(story: &mut Story<'_>, household: &Household, who: usize, lead: &Lead, at: i64) -> Result<Contract, Error> {
    let id = story.desk.contract_id();
    let list_price_fen = PROJECTS[lead.project].price_fen(lead.home);
    let amount_fen = list_price_fen / 1000 * story.chance.between(955, 998) / 10_000 * 10_000;
    let phone = |at| household.adults[who].phone(at).unwrap_or(&lead.phone);
    let detail = Detail { contract_id: Some(&id), amount_fen: Some(amount_fen), reason: None };
    story.desk.record(lead, Stage::Contracted, at, phone(at), detail)?;
    let mut cancelled_at = None;
    if story.chance.chance(60) {
        cancelled_at = office_hours(story, story.calendar.day_of(at) + 3, 30);
    }
    if let Some(at) = cancelled_at {
        let reason = Some(*story.chance.pick(&["loan_refused", "family", "job"]));
        story.desk.record(lead, Stage::Cancelled, at, phone(at), Detail { contract_id: Some(&id), amount_fen: None, reason })?;
    }
    Ok(Contract { id, at, amount_fen, cancelled_at })
}

/// An instant between nine and six on one of the `days` from `first` on, weekends more often; `None` past the history.
fn office_hours(story: &mut Story<'_>, first: u32, days: u32) -> Option<i64> {
    let last = first + days;
    // Drawn over the whole span, so that the end of the history does not crowd visits into its last days.
    if first >= story.calendar.days
        || last > story.calendar.days && story.chance.chance(u64::from(last - story.calendar.days) * 1000 / u64::from(days))
    {
        return None;
    }
    let day = story.calendar.day(&mut story.chance, Rhythm::Home, first, last);
    Some(story.calendar.start + i64::from(day) * DAY + story.chance.between(9 * HOUR, 18 * HOUR))
}

/// Visitors type their numbers into a tablet of the sales office, one after the other.
fn check_in(story: &mut Story<'_>, facts: &Facts, party: &[&Person], project: usize, at: i64, invited: bool) -> Result<(), Error> {
    let world = story.world;
    let tablet = story.chance.pick(&world.tablets[project]);
    let unit = PROJECTS[project].unit;
    let mut session = Session::at_tablet(tablet, unit, at);
    for person in party {
        identify(story, facts, person, &session)?;
        session.pass(story.chance.between(3 * SECOND, 20 * SECOND));
        let properties = Properties::VisitCheckedIn { project_id: unit, party_size: party.len() as i64, invited };
        story.teller.say(person, &session, &Said::Track(properties))?;
        session.pass(story.chance.between(20 * SECOND, 60 * SECOND));
    }
    Ok(())
}

/// An open day: people walk in, are counted at the tablet, and some of them become leads.
pub(crate) fn welcome(story: &mut Story<'_>, household: &Household, facts: &Facts) -> Result<(), Error> {
    let projects: Vec<usize> = (0..PROJECTS.len()).filter(|index| PROJECTS[*index].city == household.city).collect();
    let project = *story.chance.pick(&projects);
    let from = household.adults.iter().map(|person| person.active_from).max().unwrap_or(0);
    let day = story.calendar.day(&mut story.chance, Rhythm::Home, from, story.calendar.days);
    let at = story.calendar.start + i64::from(day) * DAY + story.chance.between(9 * HOUR, 18 * HOUR);
    let together = story.chance.between(1, 2) as usize;
    let party: Vec<&Person> = household.adults.iter().take(together).collect();
    check_in(story, facts, &party, project, at, false)?;
    let Some(phone) = household.adults[0].phone(at) else { return Ok(()) };
    if story.chance.chance(220) {
        let adviser = story.chance.pick(&story.world.advisers[project]).clone();
        let id = story.desk.lead_id();
        let lead = Lead { id, at, project, home: 0, phone: phone.to_owned(), form: "walk_in", touch: None, adviser };
        story.desk.record(&lead, Stage::Lead, at, phone, Detail::default())?;
        story.desk.record(&lead, Stage::Visited, at + MINUTE, phone, Detail::default())?;
    }
    Ok(())
}
