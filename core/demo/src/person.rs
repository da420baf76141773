//! One person: who it is, by which identifiers others know it, and the devices in its pockets.

use std::cell::Cell;

use crate::draw::Draw;
use crate::numbers::Numbers;
use crate::stamp::{HOUR, MINUTE, Spelling};
use crate::world::App;

/// An identifier and when it is this person's. It is observed once it was written to a file.
pub(crate) struct Identifier {
    pub(crate) kind: &'static str,
    pub(crate) value: String,
    pub(crate) app: Option<&'static str>,
    pub(crate) from: Option<i64>,
    pub(crate) until: Option<i64>,
    pub(crate) observed: Cell<bool>,
}

impl Identifier {
    pub(crate) fn new(kind: &'static str, value: String) -> Self {
        Self { kind, value, app: None, from: None, until: None, observed: Cell::new(false) }
    }

    fn holds(&self, at: i64) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// The place where an app keeps its anonymous id: a browser, the storage of a mini-program, an app, a guest file of the hotel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Browser,
    SecondBrowser,
    WxHome,
    WxMall,
    WxProperty,
    Native,
    HotelDesk,
    SalesPad,
}

pub(crate) struct Device {
    pub(crate) slot: Slot,
    pub(crate) anonymous_id: String,
    /// The advertising id of the phone, for the native app.
    pub(crate) device_id: Option<String>,
    pub(crate) spelling: Spelling,
    /// How far its clock is wrong; both its `timestamp` and its `sentAt` are.
    pub(crate) skew: i64,
    /// Its user has logged in: messages carry the member id from then on.
    pub(crate) linked: bool,
    pub(crate) observed: Cell<bool>,
}

impl Device {
    pub(crate) fn new(slot: Slot, anonymous_id: String, spelling: Spelling) -> Self {
        Self { slot, anonymous_id, device_id: None, spelling, skew: 0, linked: false, observed: Cell::new(false) }
    }
}

pub(crate) struct Person {
    /// Known to the truth alone.
    pub(crate) number: u64,
    pub(crate) role: &'static str,
    pub(crate) name: String,
    pub(crate) female: bool,
    pub(crate) age: i64,
    /// Nobody ever learns who this is.
    pub(crate) stranger: bool,
    pub(crate) shares_phone: bool,
    /// The first day on which this person does anything.
    pub(crate) active_from: u32,
    pub(crate) second_browser: bool,
    pub(crate) identifiers: Vec<Identifier>,
    pub(crate) devices: Vec<Device>,
}

impl Person {
    fn said(&self, kind: &str, app: Option<&str>, at: i64) -> Option<&str> {
        let found = self.identifiers.iter().find(|known| known.kind == kind && known.app == app && known.holds(at))?;
        found.observed.set(true);
        Some(&found.value)
    }

    pub(crate) fn phone(&self, at: i64) -> Option<&str> {
        self.said("phone", None, at)
    }

    pub(crate) fn member(&self) -> Option<&str> {
        self.said("member", None, 0)
    }

    pub(crate) fn unionid(&self) -> Option<&str> {
        self.said("unionid", None, 0)
    }

    pub(crate) fn email(&self) -> Option<&str> {
        self.said("email", None, 0)
    }

    pub(crate) fn plate(&self) -> Option<&str> {
        self.said("plate", None, 0)
    }

    pub(crate) fn openid(&self, app: App) -> Option<&str> {
        if !app.in_wechat() {
            return None;
        }
        self.said("openid", Some(app.name()), 0)
    }

    pub(crate) fn has(&self, kind: &str) -> bool {
        self.identifiers.iter().any(|known| known.kind == kind)
    }

    /// The device on which this person uses an app, made at its first use.
    pub(crate) fn take_up(&mut self, app: App, draw: &mut Draw, numbers: &mut Numbers) -> usize {
        let slot = match app {
            App::HomeWeb if self.second_browser && draw.chance(350) => Slot::SecondBrowser,
            App::HomeWeb | App::HotelWeb => Slot::Browser,
            App::WxHome => Slot::WxHome,
            App::WxMall => Slot::WxMall,
            App::WxProperty => Slot::WxProperty,
            App::Native => Slot::Native,
            App::HotelDesk => Slot::HotelDesk,
            App::SalesPad => Slot::SalesPad,
        };
        if let Some(index) = self.devices.iter().position(|device| device.slot == slot) {
            return index;
        }
        if app.in_wechat() {
            let openid = Identifier { app: Some(app.name()), ..Identifier::new("openid", numbers.openid()) };
            self.identifiers.push(openid);
        }
        let spelling = if draw.chance(250) { Spelling::Shanghai } else { Spelling::Utc };
        let mut device = Device::new(slot, numbers.anonymous_id(), spelling);
        if slot == Slot::Native {
            device.device_id = Some(numbers.advertising_id());
        }
        if slot != Slot::HotelDesk && draw.chance(12) {
            device.skew = draw.between(-36 * HOUR, 6 * HOUR);
        } else if draw.chance(200) {
            device.skew = draw.between(-MINUTE, MINUTE);
        }
        self.devices.push(device);
        self.devices.len() - 1
    }
}
