//! Sessions on apps: who sits at which device, what the SDK says of it, and how late it arrives.

use crate::Error;
use crate::calendar::Calendar;
use crate::draw::{Draw, Purpose, Uuid};
use crate::media::Touch;
use crate::message::{Campaign, Context, Delivered, DeviceId, ExternalId, Library, Message, Named, Page, Properties, Said, Traits};
use crate::output::Sorted;
use crate::people::Household;
use crate::person::{Device, Person};
use crate::stamp::{DAY, HOUR, MINUTE, SECOND, Stamp};
use crate::story::Story;
use crate::world::{App, CITY_NAMES};

/// One sitting of one person at one app.
pub(crate) struct Session<'w> {
    pub(crate) app: App,
    pub(crate) unit: &'static str,
    /// Now, as the session goes on.
    pub(crate) at: i64,
    pub(crate) touch: Option<Touch>,
    seat: Seat<'w>,
    address: Option<Address>,
    /// Set where the device has no network: all that happens is sent at this instant.
    sent_when_online: Option<i64>,
}

enum Seat<'w> {
    Own(usize),
    Tablet(&'w Device),
}

struct Address {
    path: &'static str,
    url: String,
}

impl<'w> Session<'w> {
    /// At a tablet of a sales office, where the visitor is one of many.
    pub(crate) fn at_tablet(tablet: &'w Device, unit: &'static str, at: i64) -> Self {
        Self { app: App::SalesPad, unit, at, touch: None, seat: Seat::Tablet(tablet), address: None, sent_when_online: None }
    }

    fn device<'p>(&self, person: &'p Person) -> &'p Device
    where
        'w: 'p,
    {
        match self.seat {
            Seat::Own(index) => &person.devices[index],
            Seat::Tablet(tablet) => tablet,
        }
    }

    pub(crate) fn is_linked(&self, person: &Person) -> bool {
        self.device(person).linked
    }

    pub(crate) fn pass(&mut self, duration: i64) {
        self.at += duration;
    }
}

/// Writes messages to `events.ndjson`.
pub(crate) struct Teller {
    pub(crate) lines: Sorted,
    ids: Draw,
    transport: Draw,
    end: i64,
    pub(crate) late: u64,
    pub(crate) resent: u64,
}

impl Teller {
    pub(crate) fn new(seed: u64, lines: Sorted, calendar: &Calendar) -> Self {
        let (ids, transport) = (Draw::new(seed, Purpose::Messages), Draw::new(seed, Purpose::Transport));
        Self { lines, ids, transport, end: calendar.end, late: 0, resent: 0 }
    }

    pub(crate) fn say(&mut self, person: &Person, session: &Session<'_>, said: &Said<'_>) -> Result<Uuid, Error> {
        let device = session.device(person);
        device.observed.set(true);
        // A session may begin in the last minutes of the history.
        let at = session.at.min(self.end - SECOND);
        let (sent, arrived) = self.transport(session, at);
        let stamp = |at: i64| Stamp { at: at + device.skew, spelling: device.spelling };
        let (kind, event, name, properties, traits) = match said {
            Said::Identify(traits) => ("identify", None, None, None, Some(traits)),
            Said::Page(name) => ("page", None, Some(*name), None, None),
            Said::Screen(name) => ("screen", None, Some(*name), None, None),
            Said::Track(properties) => ("track", Some(properties.event()), None, Some(properties), None),
        };
        let message_id = self.ids.uuid();
        let message = Message {
            kind,
            message_id,
            anonymous_id: Some(&device.anonymous_id),
            user_id: if device.linked { person.member() } else { None },
            event,
            name,
            properties,
            traits,
            context: context(person, session, said),
            original_timestamp: (session.app == App::Native).then(|| stamp(at)),
            timestamp: stamp(at),
            sent_at: stamp(sent),
        };
        let mut delivered = Delivered { unit: session.unit, arrived_at: Stamp::utc(arrived), message };
        self.lines.push(arrived, &delivered)?;
        if self.transport.chance(2) {
            let again = (arrived + self.transport.between(SECOND, 30 * SECOND)).min(self.end - 1);
            delivered.arrived_at = Stamp::utc(again);
            self.lines.push(again, &delivered)?;
            self.resent += 1;
        }
        Ok(message_id)
    }

    /// When a message leaves the device and when it arrives.
    fn transport(&mut self, session: &Session<'_>, at: i64) -> (i64, i64) {
        let sent = match session.sent_when_online {
            Some(online) => {
                self.late += 1;
                online.max(at)
            }
            None => at + self.transport.between(20, 9 * SECOND),
        };
        let arrived = (sent + self.transport.between(30, 900)).min(self.end - 1);
        (sent.min(arrived), arrived)
    }

    /// Some sessions happen in garages and lifts, some phones are switched on again after days.
    fn offline_until(&mut self, at: i64) -> Option<i64> {
        if !self.transport.chance(22) {
            return None;
        }
        let lag = match self.transport.below(10) {
            0..=4 => self.transport.between(5 * MINUTE, 3 * HOUR),
            5..=7 => self.transport.between(3 * HOUR, 30 * HOUR),
            _ => self.transport.between(DAY, 9 * DAY),
        };
        Some(at + lag).filter(|online| *online < self.end)
    }
}

fn context<'a>(person: &'a Person, session: &'a Session<'_>, said: &Said<'_>) -> Context<'a> {
    let device = session.device(person);
    let (name, version) = session.app.library();
    let mut external_ids = Vec::new();
    let identifies = matches!(said, Said::Identify(_));
    if !identifies && let Some(openid) = person.openid(session.app) {
        external_ids.push(ExternalId::new("openid", openid, Some(session.app.name())));
    }
    let opens = matches!(said, Said::Track(Properties::AppOpened { .. } | Properties::SessionStarted { .. }));
    if opens
        && session.app.in_wechat()
        && device.linked
        && let Some(unionid) = person.unionid()
    {
        external_ids.push(ExternalId::new("unionid", unionid, None));
    }
    // A tablet is nobody's, so what happens at it names the visitor by phone.
    if !identifies
        && session.app == App::SalesPad
        && let Some(phone) = person.phone(session.at)
    {
        external_ids.push(ExternalId::new("phone", phone, None));
    }
    let started = matches!(said, Said::Track(Properties::SessionStarted { .. }) | Said::Page(_));
    Context {
        app: Named { name: session.app.name() },
        campaign: session.touch.as_ref().filter(|touch| started && touch.tagged).map(|touch| campaign(touch, session.app)),
        page: session.address.as_ref().map(|address| Page {
            path: address.path,
            url: &address.url,
            referrer: session.touch.as_ref().filter(|_| started).and_then(|touch| touch.referrer),
        }),
        device: device.device_id.as_deref().map(|id| DeviceId { id }),
        external_ids,
        library: Library { name, version },
    }
}

fn campaign(touch: &Touch, app: App) -> Campaign<'_> {
    let click_id = |parameter: &str| touch.click_id.as_deref().filter(|_| !app.on_web() && touch.parameter == parameter);
    Campaign {
        source: touch.source,
        medium: touch.medium,
        name: touch.plan_id.as_deref(),
        content: touch.creative_id.as_deref(),
        gdt_vid: click_id("gdt_vid"),
        clickid: click_id("clickid"),
        bd_vid: click_id("bd_vid"),
    }
}

/// Opens an app, by way of an advertisement where there is a touch. Gives the id of the message that began the session.
pub(crate) fn open<'w>(
    story: &mut Story<'w>,
    person: &mut Person,
    app: App,
    unit: &'static str,
    path: &'static str,
    at: i64,
    touch: Option<Touch>,
) -> Result<(Session<'w>, Uuid), Error> {
    let device = person.take_up(app, &mut story.chance, &mut story.numbers);
    let address = app.on_web().then(|| Address { path, url: url(app, path, touch.as_ref()) });
    let sent_when_online = story.teller.offline_until(at);
    let mut session = Session { app, unit, at, touch, seat: Seat::Own(device), address, sent_when_online };
    let first = if session.touch.is_some() {
        story.teller.say(person, &session, &Said::Track(Properties::SessionStarted { landing: path }))?
    } else if app.on_web() {
        story.teller.say(person, &session, &Said::Page("首页"))?
    } else {
        let from_background = story.chance.chance(420);
        story.teller.say(person, &session, &Said::Track(Properties::AppOpened { from_background }))?
    };
    session.pass(story.chance.between(2 * SECOND, 12 * SECOND));
    Ok((session, first))
}

/// A system at a desk writes about a person it has a file of.
pub(crate) fn at_desk<'w>(device: usize, unit: &'static str, at: i64) -> Session<'w> {
    Session { app: App::HotelDesk, unit, at, touch: None, seat: Seat::Own(device), address: None, sent_when_online: None }
}

fn url(app: App, path: &str, touch: Option<&Touch>) -> String {
    let host = if app == App::HotelWeb { "hotel.heyuan.example" } else { "home.heyuan.example" };
    let mut url = format!("https://{host}{path}");
    let Some(touch) = touch.filter(|touch| touch.tagged) else { return url };
    url.push_str("?utm_source=");
    url.push_str(touch.source);
    url.push_str("&utm_medium=");
    url.push_str(touch.medium);
    let more = [("utm_campaign", &touch.plan_id), ("utm_content", &touch.creative_id), (touch.parameter, &touch.click_id)];
    for (parameter, value) in more {
        if let Some(value) = value {
            url.push('&');
            url.push_str(parameter);
            url.push('=');
            url.push_str(value);
        }
    }
    url
}

/// The user says who it is: a log-in, or a form with a phone number. The device is linked from then on.
pub(crate) fn log_in(
    story: &mut Story<'_>,
    household_facts: &Facts,
    person: &mut Person,
    session: &mut Session<'_>,
    method: &'static str,
) -> Result<(), Error> {
    if session.is_linked(person) {
        return Ok(());
    }
    if let Seat::Own(index) = session.seat {
        person.devices[index].linked = true;
    }
    identify(story, household_facts, person, session)?;
    session.pass(story.chance.between(SECOND, 5 * SECOND));
    if story.chance.chance(350) {
        story.teller.say(person, session, &Said::Track(Properties::PhoneVerified { method }))?;
        session.pass(SECOND);
    }
    Ok(())
}

/// What a household tells about itself when somebody asks.
pub(crate) struct Facts {
    city: &'static str,
    size: i64,
    children: i64,
    /// Whole yuan a year.
    annual_income: i64,
}

impl Facts {
    pub(crate) fn of(household: &Household) -> Self {
        Self {
            city: CITY_NAMES[household.city],
            size: household.size() as i64,
            children: household.children as i64,
            // People round.
            annual_income: household.annual_income_fen / 1_000_000 * 10_000,
        }
    }
}

/// One `identify` with what is known at this app.
pub(crate) fn identify(story: &mut Story<'_>, facts: &Facts, person: &Person, session: &Session<'_>) -> Result<(), Error> {
    let chance = &mut story.chance;
    // Where only the phone could tell who it is, it is always given.
    let needs_phone = person.shares_phone || !person.has("member") || !matches!(session.seat, Seat::Own(_));
    let tells_home = session.app == App::SalesPad || chance.chance(520);
    let traits = Traits {
        phone: if needs_phone || chance.chance(880) { person.phone(session.at) } else { None },
        openid: person.openid(session.app),
        unionid: if session.app.in_wechat() { person.unionid() } else { None },
        email: if chance.chance(350) { person.email() } else { None },
        plate: if session.app == App::WxMall && chance.chance(500) { person.plate() } else { None },
        name: chance.chance(550).then_some(person.name.as_str()),
        gender: chance.chance(800).then_some(if person.female { "female" } else { "male" }),
        age: chance.chance(750).then_some(person.age),
        city: chance.chance(700).then_some(facts.city),
        household_size: tells_home.then_some(facts.size),
        children: tells_home.then_some(facts.children),
        annual_income: (tells_home && chance.chance(700)).then_some(facts.annual_income),
    };
    story.teller.say(person, session, &Said::Identify(traits))?;
    Ok(())
}

/// A number that a platform put in front of the person's own reaches the landing page's form.
pub(crate) fn identify_by_relay(story: &mut Story<'_>, person: &Person, session: &Session<'_>, relay: &str) -> Result<(), Error> {
    let traits = Traits { phone: Some(relay), ..Traits::default() };
    story.teller.say(person, session, &Said::Identify(traits))?;
    Ok(())
}
