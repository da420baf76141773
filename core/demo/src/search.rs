//! The search for a home: need and means decide which pages are looked at, for how long, and whether a lead comes of it.

use serde::Serialize;

use crate::Error;
use crate::calendar::Rhythm;
use crate::draw::Uuid;
use crate::events::{Facts, Session, identify_by_relay, log_in, open};
use crate::media::Touch;
use crate::message::{Properties, Said};
use crate::people::{Household, Structure};
use crate::person::{Person, Slot};
use crate::sales::{Lead, pursue, welcome};
use crate::stamp::{DAY, SECOND, Stamp};
use crate::story::Story;
use crate::world::{App, PROJECTS};

/// What a household wants and how badly.
pub(crate) struct Quest {
    /// 0 to 1000.
    pub(crate) need: u64,
    /// Budget over price, in per mille.
    pub(crate) afford: u64,
    pub(crate) project: usize,
    pub(crate) home: usize,
    sessions: u64,
    from: u32,
    until: u32,
    partner: Option<usize>,
}

/// One step of the path to a contract.
#[derive(Serialize)]
pub(crate) struct Step {
    #[serde(skip)]
    pub(crate) at: i64,
    occurred_at: Stamp,
    person: u64,
    source: &'static str,
    medium: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creative_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click_id: Option<String>,
    message_id: Uuid,
}

impl Step {
    fn new(at: i64, person: u64, touch: Option<&Touch>, message_id: Uuid) -> Self {
        Self {
            at,
            occurred_at: Stamp::utc(at),
            person,
            source: touch.map_or("direct", |touch| touch.source),
            medium: touch.map_or("none", |touch| touch.medium),
            plan_id: touch.and_then(|touch| touch.plan_id.clone()),
            creative_id: touch.and_then(|touch| touch.creative_id.clone()),
            click_id: touch.and_then(|touch| touch.click_id.clone()),
            message_id,
        }
    }
}

pub(crate) fn search(story: &mut Story<'_>, household: &mut Household) -> Result<(), Error> {
    let facts = Facts::of(household);
    if let Some(quest) = quest(story, household) {
        story.truth.note_quest(&quest);
        browse(story, household, &facts, &quest)?;
    }
    let stranger = household.adults.first().is_none_or(|person| person.stranger);
    if !stranger && story.chance.chance(190) {
        welcome(story, household, &facts)?;
    }
    Ok(())
}

/// Decides whether a household looks for a home, and for which.
fn quest(story: &mut Story<'_>, household: &Household) -> Option<Quest> {
    let chance = &mut story.chance;
    let seeker = household.adults.first()?;
    let serious = match (household.structure, household.community.is_some()) {
        (Structure::Single, false) => 90,
        (Structure::Single, true) => 40,
        (Structure::Couple, false) => 270,
        (Structure::Couple, true) => 90,
        (Structure::CoupleOneChild, false) => 250,
        (Structure::CoupleOneChild, true) => 140,
        (Structure::CoupleTwoChildren, _) => 220,
        (Structure::ThreeGenerations, _) => 170,
        (Structure::Elders, _) => 50,
    };
    let (need, sessions) = if seeker.stranger {
        (chance.between(20, 400), chance.between(1, 5))
    } else {
        match chance.below(1000) {
            fate if fate < serious * 2 / 5 => (chance.between(700, 1000), chance.between(9, 26)),
            fate if fate < serious => (chance.between(350, 700), chance.between(5, 17)),
            fate if fate < serious + 170 => (chance.between(50, 300), chance.between(1, 5)),
            _ => return None,
        }
    };
    let budget_fen = household.annual_income_fen * (9 + (seeker.age - 22).clamp(0, 24) / 4);
    let (project, home) = wanted(household, budget_fen);
    let price_fen = PROJECTS[project].price_fen(home);
    let partner = (household.adults.len() > 1 && chance.chance(420)).then_some(1);
    let earliest = household.adults.iter().take(2).map(|person| person.active_from).max().unwrap_or(0);
    let days = story.calendar.days;
    let from = earliest + chance.below(u64::from(days.saturating_sub(earliest)).max(1) * 9 / 10) as u32;
    let until = (from + chance.between(15, 80) as u32).min(days);
    let afford = (budget_fen * 1000 / price_fen).clamp(300, 1300) as u64;
    Some(Quest { need: need as u64, afford, project, home, sessions: sessions as u64, from, until, partner })
}

/// The home in the household's city that fits its size best among those it can pay, dearer ones first.
fn wanted(household: &Household, budget_fen: i64) -> (usize, usize) {
    let bedrooms = match household.size() {
        1 => 1,
        2 => 2,
        3 | 4 => 3,
        _ => 4,
    };
    let homes = PROJECTS.iter().enumerate().filter(|(_, project)| project.city == household.city);
    let homes = homes.flat_map(|(index, project)| (0..project.homes.len()).map(move |home| (index, home)));
    homes
        .min_by_key(|(index, home)| {
            let project = &PROJECTS[*index];
            let over_per_mille = ((project.price_fen(*home) - budget_fen).max(0) * 1000 / budget_fen).min(5_000);
            let misfit = i64::from(project.homes[*home].bedrooms.abs_diff(bedrooms)) * 350;
            (over_per_mille + misfit, -project.price_fen(*home))
        })
        .unwrap_or((0, 0))
}

fn browse(story: &mut Story<'_>, household: &mut Household, facts: &Facts, quest: &Quest) -> Result<(), Error> {
    let calendar = story.calendar;
    let mut times: Vec<i64> = (0..quest.sessions)
        .map(|_| {
            let day = calendar.day(&mut story.chance, Rhythm::Home, quest.from, quest.until);
            calendar.moment(&mut story.chance, Rhythm::Home, day)
        })
        .collect();
    times.sort_unstable();
    let stranger = household.adults[0].stranger;
    let leads = !stranger && story.chance.chance(quest.need * quest.need * 11 / 10_000);
    let lead_place = if leads { Some(story.chance.index(times.len().div_ceil(2)) + times.len() / 3) } else { None };
    let mut path = Vec::with_capacity(times.len());
    let mut lead = None;
    for (place, at) in times.iter().enumerate() {
        let who = quest.partner.filter(|_| story.chance.chance(280)).unwrap_or(0);
        let touch = touch(story, quest, stranger, calendar.day_of(*at));
        let app = app(story, touch.as_ref(), stranger);
        let project = project(story, quest);
        let person = &mut household.adults[who];
        let (unit, address) = (PROJECTS[project].unit, PROJECTS[project].path);
        let (mut session, first) = open(story, person, app, unit, address, *at, touch)?;
        path.push(Step::new(*at, person.number, session.touch.as_ref(), first));
        look_around(story, quest, project, person, &mut session)?;
        let login = [60, 480, 970][usize::from(app == App::WxHome) + 2 * usize::from(app == App::Native)];
        if Some(place) == lead_place {
            lead = Some((who, submit(story, facts, project, person, &mut session, quest)?));
        } else if !stranger && story.chance.chance(login) {
            log_in(story, facts, person, &mut session, "sms")?;
        }
    }
    let last = times.last().copied().unwrap_or(calendar.start);
    come_back(story, household, facts, quest, last)?;
    if let Some((who, lead)) = lead
        && let Some(contract) = pursue(story, household, facts, quest, who, &lead)?
    {
        path.retain(|step| step.at <= contract.at);
        story.truth.cause(household.number, &contract, &lead, &path)?;
    }
    Ok(())
}

/// Most who looked around in a browser sign up there in the end, for the price list or a coupon.
fn come_back(story: &mut Story<'_>, household: &mut Household, facts: &Facts, quest: &Quest, last: i64) -> Result<(), Error> {
    let project = &PROJECTS[quest.project];
    for person in household.adults.iter_mut().filter(|person| !person.stranger) {
        for (attempt, slot) in [Slot::Browser, Slot::SecondBrowser, Slot::SecondBrowser].into_iter().enumerate() {
            let open_question = person.devices.iter().any(|device| device.slot == slot && !device.linked);
            let at = last + attempt as i64 * DAY + story.chance.between(0, DAY);
            if open_question && at < story.calendar.end && story.chance.chance(900) {
                let (mut session, _) = open(story, person, App::HomeWeb, project.unit, project.path, at, None)?;
                log_in(story, facts, person, &mut session, "sms")?;
            }
        }
    }
    Ok(())
}

fn touch(story: &mut Story<'_>, quest: &Quest, stranger: bool, day: u32) -> Option<Touch> {
    let project = PROJECTS[quest.project].unit;
    match story.chance.below(1000) {
        0..460 => story.media.click(project, day),
        460..600 => Some(Touch::organic()),
        600..710 => Some(Touch::own("wechat", "share", None)),
        710..790 if !stranger => Some(Touch::own("wx-mall", "slot", Some("mall-banner-home"))),
        790..830 if !stranger => Some(Touch::own("sms", "sms", Some("weekend-open-house"))),
        _ => None,
    }
}

fn app(story: &mut Story<'_>, touch: Option<&Touch>, stranger: bool) -> App {
    if stranger {
        return App::HomeWeb;
    }
    let in_wechat = match touch.map(|touch| (touch.source, touch.medium)) {
        Some(("tencent", _)) => 500,
        Some(("wechat", _)) => 800,
        Some(("wx-mall", _)) => 1000,
        Some(("oceanengine" | "baidu", _)) => 0,
        Some(_) => 300,
        None if story.chance.chance(180) => return App::Native,
        None => 720,
    };
    if story.chance.chance(in_wechat) { App::WxHome } else { App::HomeWeb }
}

/// Mostly the wanted project, sometimes another one of the same city.
fn project(story: &mut Story<'_>, quest: &Quest) -> usize {
    let city = PROJECTS[quest.project].city;
    if story.chance.chance(760) {
        return quest.project;
    }
    (0..PROJECTS.len()).find(|index| PROJECTS[*index].city == city && *index != quest.project).unwrap_or(quest.project)
}

fn look_around(story: &mut Story<'_>, quest: &Quest, project: usize, person: &Person, session: &mut Session<'_>) -> Result<(), Error> {
    let place = &PROJECTS[project];
    let bedrooms = PROJECTS[quest.project].homes[quest.home].bedrooms;
    let views = story.chance.between(1, 2 + quest.need as i64 / 200);
    for _ in 0..views {
        let chance = &mut story.chance;
        let home = if project == quest.project && chance.chance(300 + quest.need * 45 / 100) {
            quest.home
        } else {
            chance.index(place.homes.len())
        };
        let difference = place.homes[home].bedrooms.abs_diff(bedrooms);
        let interest = (quest.need * quest.need * quest.afford / 1_000_000) as i64 * chance.between(60, 230);
        let dwell_ms = match difference {
            0 if project == quest.project && home == quest.home => chance.between(12_000, 45_000) + interest,
            0 => chance.between(9_000, 35_000) + interest / 2,
            1 => chance.between(4_000, 25_000) + interest / 8,
            _ => chance.between(1_500, 14_000),
        };
        let properties = Properties::UnitViewed {
            project_id: place.unit,
            unit_type: place.homes[home].unit_type(),
            layout: place.homes[home].code,
            dwell_seconds: (dwell_ms + 500) / 1000,
            price_fen: place.price_fen(home),
        };
        session.pass(dwell_ms);
        story.teller.say(person, session, &Said::Track(properties))?;
        session.pass(story.chance.between(SECOND, 8 * SECOND));
    }
    Ok(())
}

/// A lead is left: on our page with the own number, there through a platform's relay number, or in the platform's own form.
fn submit(
    story: &mut Story<'_>,
    facts: &Facts,
    project: usize,
    person: &mut Person,
    session: &mut Session<'_>,
    quest: &Quest,
) -> Result<Lead, Error> {
    let bought = session.touch.as_ref().is_some_and(Touch::is_bought);
    let lead_id = story.desk.lead_id();
    let relay = story.chance.pick(&story.world.relay_numbers).clone();
    let (form, phone) = match story.chance.below(1000) {
        0..280 if bought => ("platform_form", relay),
        280..560 if bought && session.app == App::HomeWeb => {
            identify_by_relay(story, person, session, &relay)?;
            ("relay_form", relay)
        }
        _ => {
            log_in(story, facts, person, session, "sms")?;
            let form = if session.app == App::HomeWeb { "web_form" } else { "app_form" };
            (form, person.phone(session.at).unwrap_or_default().to_owned())
        }
    };
    session.pass(story.chance.between(2 * SECOND, 30 * SECOND));
    if form != "platform_form" {
        let properties = Properties::LeadSubmitted { project_id: PROJECTS[project].unit, lead_id: &lead_id, form };
        story.teller.say(person, session, &Said::Track(properties))?;
    }
    let adviser = story.chance.pick(&story.world.advisers[project]).clone();
    let home = if project == quest.project { quest.home } else { quest.home.min(PROJECTS[project].homes.len() - 1) };
    let at = session.at.min(story.calendar.end - SECOND);
    Ok(Lead { id: lead_id, at, project, home, phone, form, touch: session.touch.clone(), adviser })
}
