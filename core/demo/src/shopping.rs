//! Life at the malls: sessions, online orders, vouchers, and sales at the tills.

use crate::Error;
use crate::calendar::Rhythm;
use crate::events::{Facts, Session, log_in, open};
use crate::message::{Amount, Bought, Properties, Said};
use crate::money::{Item, Sale, known};
use crate::people::Household;
use crate::person::Person;
use crate::stamp::{MINUTE, SECOND};
use crate::story::Story;
use crate::world::{App, MALL_OF_CITY, MALLS};

pub(crate) fn shop(story: &mut Story<'_>, household: &mut Household) -> Result<(), Error> {
    let Some(mall) = MALL_OF_CITY[household.city] else { return Ok(()) };
    let facts = Facts::of(household);
    // Baskets follow income: 1 at 120,000 yuan a year, 3 at the top.
    let basket = (household.annual_income_fen / 12_000_000).clamp(1, 3);
    for person in household.adults.iter_mut().filter(|person| !person.stranger) {
        if !story.chance.chance(760) {
            continue;
        }
        let fondness = 1_800 + story.chance.below(6_400);
        let active = u64::from(story.calendar.days - person.active_from.min(story.calendar.days));
        let visits = story.chance.count(story.calendar.scaled(fondness) * active / u64::from(story.calendar.days));
        for _ in 0..visits {
            let day = story.calendar.day(&mut story.chance, Rhythm::Mall, person.active_from, story.calendar.days);
            let at = story.calendar.moment(&mut story.chance, Rhythm::Mall, day);
            visit(story, &facts, person, mall, at, basket)?;
        }
    }
    Ok(())
}

fn visit(story: &mut Story<'_>, facts: &Facts, person: &mut Person, mall: usize, at: i64, basket: i64) -> Result<(), Error> {
    let in_wechat = story.chance.chance(840);
    let app = if in_wechat { App::WxMall } else { App::Native };
    let day = story.calendar.day_of(at);
    let touch = if in_wechat && story.chance.chance(45) { story.media.click(MALLS[mall], day) } else { None };
    let (mut session, _) = open(story, person, app, MALLS[mall], "/", at, touch)?;
    if story.chance.chance(if in_wechat { 760 } else { 980 }) {
        log_in(story, facts, person, &mut session, "wechat")?;
    }
    if story.chance.chance(480) {
        let name = *story.chance.pick(&["商场首页", "会员中心", "券中心", "美食", "停车缴费"]);
        story.teller.say(person, &session, &Said::Screen(name))?;
        session.pass(story.chance.between(3 * SECOND, 90 * SECOND));
    }
    if story.chance.chance(330) {
        order(story, person, &mut session, mall)?;
    }
    if story.chance.chance(190) {
        redeem(story, person, &mut session, mall)?;
    }
    if story.chance.chance(200) {
        let minutes = story.chance.between(-50, 100);
        let bought_at = (at + minutes * MINUTE).clamp(story.calendar.start, story.calendar.end - SECOND);
        pay_at_till(story, person, mall, bought_at, basket)?;
    }
    Ok(())
}

/// An order in the mini-program: a voucher or goods.
fn order(story: &mut Story<'_>, person: &Person, session: &mut Session<'_>, mall: usize) -> Result<(), Error> {
    let catalogue = story.catalogue;
    let quantity = if story.chance.chance(800) { 1 } else { story.chance.between(2, 4) };
    let (sku, merchant_id, category, price_fen) = if story.chance.chance(450) {
        let voucher = catalogue.voucher(&mut story.chance, mall);
        (&voucher.sku, &voucher.merchant_id, "voucher", voucher.price_fen)
    } else {
        let product = catalogue.product(&mut story.chance, mall);
        (&product.sku, &product.merchant_id, product.category, product.price_fen)
    };
    let amount_fen = price_fen * quantity;
    let broken = |error: serde_json::Error| Error::Config(error.to_string());
    let amount = match mall {
        0 => Amount::Fen { amount_fen },
        _ if story.chance.chance(250) => Amount::yuan_text(amount_fen).map_err(broken)?,
        _ => Amount::yuan_number(amount_fen).map_err(broken)?,
    };
    let order_id = format!("ord-{}", story.till.draw().hexadecimal(16));
    let products = [Bought { sku, category, quantity }];
    let properties = Properties::OrderPaid { order_id: &order_id, merchant_id, amount, currency: "CNY", products };
    story.teller.say(person, session, &Said::Track(properties))?;
    session.pass(story.chance.between(5 * SECOND, 60 * SECOND));
    Ok(())
}

fn redeem(story: &mut Story<'_>, person: &Person, session: &mut Session<'_>, mall: usize) -> Result<(), Error> {
    let catalogue = story.catalogue;
    let voucher = catalogue.voucher(&mut story.chance, mall);
    let properties = Properties::VoucherRedeemed {
        voucher_sku: &voucher.sku,
        merchant_id: &voucher.merchant_id,
        face_value_fen: voucher.face_value_fen,
    };
    story.teller.say(person, session, &Said::Track(properties))?;
    session.pass(story.chance.between(5 * SECOND, 60 * SECOND));
    Ok(())
}

fn pay_at_till(story: &mut Story<'_>, person: &Person, mall: usize, at: i64, basket: i64) -> Result<(), Error> {
    let count = story.chance.between(1, 1 + basket);
    let mut items = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let product = story.catalogue.product(&mut story.chance, mall);
        let quantity = if story.chance.chance(780) { 1 } else { story.chance.between(2, 3) };
        items.push(Item { sku: product.sku.clone(), category: product.category, quantity, amount_fen: product.price_fen * quantity });
    }
    let identifiers = known(&mut story.chance, person, at, Some(App::WxMall), false);
    if identifiers.is_empty() {
        return Ok(());
    }
    let id = story.till.id();
    story.till.sell(&id, &Sale { unit: MALLS[mall], line: "mall", at, identifiers, items, refund_per_mille: 45 })
}
