//! Life with the group's other lines: property fees and services at home, nights at the hotel, parking at the office.

use crate::Error;
use crate::calendar::Rhythm;
use crate::events::{Facts, log_in, open};
use crate::message::{Properties, Said};
use crate::money::{Item, Known, Sale, known};
use crate::people::Household;
use crate::person::Person;
use crate::stamp::{DAY, HOUR, SECOND};
use crate::story::Story;
use crate::world::{App, CITIES, HOTEL, OFFICE_OF_CITY};

/// The property fee of a month for a square metre, by city.
const FEE_FEN: [i64; 3] = [360, 310, 280];

pub(crate) fn live(story: &mut Story<'_>, household: &mut Household) -> Result<(), Error> {
    let facts = Facts::of(household);
    if let Some((community, area)) = household.community {
        pay_fees(story, &facts, household, community, area)?;
        for person in &mut household.adults {
            use_services(story, &facts, person, community)?;
        }
    }
    let city = household.city;
    for person in household.adults.iter_mut().filter(|person| !person.stranger) {
        if story.chance.chance(110) {
            for _ in 0..story.chance.between(1, 2) {
                stay(story, &facts, person)?;
            }
        }
        if let Some(tower) = OFFICE_OF_CITY[city]
            && person.age < 60
            && story.chance.chance(190)
        {
            work(story, &facts, person, tower)?;
        }
        if story.chance.chance(230) {
            look_in(story, &facts, person, CITIES[city])?;
        }
    }
    Ok(())
}

fn pay_fees(story: &mut Story<'_>, facts: &Facts, household: &mut Household, community: &'static str, area: i64) -> Result<(), Error> {
    let month_fen = area * FEE_FEN[household.city];
    // Some pay the year in advance, most by the quarter, some are always late.
    let months = [12, 3, 1][story.chance.weighted(&[11, 55, 34])];
    let punctual = story.chance.chance(800);
    let person = &mut household.adults[0];
    let mut paid_until = 0;
    for (place, first) in story.calendar.months().into_iter().enumerate() {
        let day = first + story.chance.between(0, if punctual { 12 } else { 27 }) as u32;
        if place < paid_until || day < person.active_from || day >= story.calendar.days || !story.chance.chance(960) {
            continue;
        }
        let amount_fen = if months == 12 { month_fen * 12 * 95 / 100 } else { month_fen * months };
        paid_until = place + months as usize;
        let at = story.calendar.moment(&mut story.chance, Rhythm::Even, day);
        let (mut session, _) = open(story, person, App::WxProperty, community, "/", at, None)?;
        if story.chance.chance(900) {
            log_in(story, facts, person, &mut session, "sms")?;
        }
        story.teller.say(person, &session, &Said::Screen("账单"))?;
        session.pass(story.chance.between(5 * SECOND, 60 * SECOND));
        let id = story.till.id();
        let properties = Properties::PropertyFeePaid { transaction_id: &id, months, amount_fen, currency: "CNY" };
        story.teller.say(person, &session, &Said::Track(properties))?;
        let identifiers = known(&mut story.chance, person, at, Some(App::WxProperty), false);
        let items = vec![Item { sku: "property-fee".to_owned(), category: "property_fee", quantity: months, amount_fen }];
        sell(story, Sale { unit: community, line: "community", at: session.at, identifiers, items, refund_per_mille: 6 }, &id)?;
    }
    Ok(())
}

fn use_services(story: &mut Story<'_>, facts: &Facts, person: &mut Person, community: &'static str) -> Result<(), Error> {
    if !story.chance.chance(820) {
        return Ok(());
    }
    let mean = 1_500 + story.chance.below(4_500);
    for _ in 0..story.chance.count(story.calendar.scaled(mean)) {
        let day = story.calendar.day(&mut story.chance, Rhythm::Even, person.active_from, story.calendar.days);
        let at = story.calendar.moment(&mut story.chance, Rhythm::Even, day);
        let (mut session, _) = open(story, person, App::WxProperty, community, "/", at, None)?;
        if story.chance.chance(700) {
            log_in(story, facts, person, &mut session, "sms")?;
        }
        let name = *story.chance.pick(&["访客通行", "报事报修", "社区公告", "停车缴费", "活动报名"]);
        story.teller.say(person, &session, &Said::Screen(name))?;
    }
    Ok(())
}

fn stay(story: &mut Story<'_>, facts: &Facts, person: &mut Person) -> Result<(), Error> {
    let day = story.calendar.day(&mut story.chance, Rhythm::Hotel, person.active_from, story.calendar.days);
    let nights = 1 + story.chance.weighted(&[60, 25, 10, 5]) as i64;
    let booked_at = story.calendar.moment(&mut story.chance, Rhythm::Even, day);
    let (mut session, _) = open(story, person, App::HotelWeb, HOTEL, "/rooms", booked_at, None)?;
    if story.chance.chance(950) {
        log_in(story, facts, person, &mut session, "sms")?;
    }
    session.pass(30 * SECOND);
    story.teller.say(person, &session, &Said::Page("房型"))?;
    let left_at = booked_at + story.chance.between(1, 12) * DAY + nights * DAY;
    let left_at = left_at - (left_at - story.calendar.start) % DAY + story.chance.between(9 * HOUR, 13 * HOUR);
    if left_at >= story.calendar.end {
        return Ok(());
    }
    let (room_type, price_fen) = *story.chance.pick(&[("courtyard-twin", 68_000), ("courtyard-king", 78_000), ("garden-suite", 148_000)]);
    let price_fen = price_fen * story.calendar.season(Rhythm::Hotel, story.calendar.day_of(left_at)).clamp(900, 1_900) as i64 / 1000;
    let amount_fen = price_fen * nights;
    let device = person.take_up(App::HotelDesk, &mut story.chance, &mut story.numbers);
    let known_guest = person.devices[device].linked;
    let mut desk = crate::events::at_desk(device, HOTEL, left_at);
    if !known_guest {
        log_in(story, facts, person, &mut desk, "reception")?;
    }
    let id = story.till.id();
    let properties = Properties::HotelStayCompleted { transaction_id: &id, room_type, nights, amount_fen, currency: "CNY" };
    story.teller.say(person, &desk, &Said::Track(properties))?;
    let mut identifiers = known(&mut story.chance, person, left_at, None, false);
    if story.chance.chance(400) {
        identifiers.extend(Known::email(person));
    }
    let items = vec![Item { sku: room_type.to_owned(), category: "room", quantity: nights, amount_fen }];
    sell(story, Sale { unit: HOTEL, line: "hotel", at: desk.at, identifiers, items, refund_per_mille: 30 }, &id)
}

/// Somebody who works in a tower parks there on many weekdays.
fn work(story: &mut Story<'_>, facts: &Facts, person: &mut Person, tower: &'static str) -> Result<(), Error> {
    if person.has("plate") {
        let parks = story.calendar.scaled(8_000);
        for _ in 0..story.chance.count(parks) {
            let day = story.calendar.day(&mut story.chance, Rhythm::Office, person.active_from, story.calendar.days);
            let at = story.calendar.moment(&mut story.chance, Rhythm::Office, day) + story.chance.between(HOUR, 9 * HOUR);
            let hours = story.chance.between(1, 9);
            let identifiers = known(&mut story.chance, person, at, None, true);
            let items =
                vec![Item { sku: "parking-hour".to_owned(), category: "parking", quantity: hours, amount_fen: (hours * 600).min(4_000) }];
            let id = story.till.id();
            sell(story, Sale { unit: tower, line: "office", at, identifiers, items, refund_per_mille: 3 }, &id)?;
        }
    }
    for _ in 0..story.chance.count(story.calendar.scaled(4_000)) {
        let day = story.calendar.day(&mut story.chance, Rhythm::Office, person.active_from, story.calendar.days);
        let at = story.calendar.moment(&mut story.chance, Rhythm::Office, day);
        let (mut session, _) = open(story, person, App::Native, tower, "/", at, None)?;
        if story.chance.chance(960) {
            log_in(story, facts, person, &mut session, "sms")?;
        }
        story.teller.say(person, &session, &Said::Screen("写字楼服务"))?;
    }
    Ok(())
}

/// The group's own app, opened for its own sake.
fn look_in(story: &mut Story<'_>, facts: &Facts, person: &mut Person, city: &'static str) -> Result<(), Error> {
    for _ in 0..story.chance.count(story.calendar.scaled(4_500)) {
        let day = story.calendar.day(&mut story.chance, Rhythm::Even, person.active_from, story.calendar.days);
        let at = story.calendar.moment(&mut story.chance, Rhythm::Even, day);
        let (mut session, _) = open(story, person, App::Native, city, "/", at, None)?;
        if story.chance.chance(980) {
            log_in(story, facts, person, &mut session, "sms")?;
        }
        if story.chance.chance(400) {
            let name = *story.chance.pick(&["首页", "我的积分", "权益", "活动"]);
            story.teller.say(person, &session, &Said::Screen(name))?;
        }
    }
    Ok(())
}

fn sell(story: &mut Story<'_>, sale: Sale<'_>, id: &str) -> Result<(), Error> {
    let last = story.calendar.end - SECOND;
    let sale = Sale { at: sale.at.min(last), ..sale };
    if sale.identifiers.is_empty() {
        return Ok(());
    }
    story.till.sell(id, &sale)
}
