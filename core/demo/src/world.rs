//! The property group itself: its tree of units, what each project sells, its apps, its sales-office tablets.

use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::draw::{Draw, Purpose};
use crate::person::{Device, Slot};
use crate::stamp::Spelling;

pub(crate) const GROUP: &str = "group";

#[derive(Serialize)]
struct Unit {
    id: &'static str,
    parent: Option<&'static str>,
    name: &'static str,
    kind: &'static str,
    line: Option<&'static str>,
    latitude_e6: i64,
    longitude_e6: i64,
}

/// id, parent, name, kind, latitude and longitude in millionths of a degree.
const UNITS: [(&str, &str, &str, &str, i64, i64); 19] = [
    (GROUP, "", "合院集团", "group", 30_250_000, 120_170_000),
    ("city-hangzhou", GROUP, "杭州城市公司", "city", 30_274_100, 120_155_100),
    ("city-nanjing", GROUP, "南京城市公司", "city", 32_060_300, 118_796_900),
    ("city-chengdu", GROUP, "成都城市公司", "city", 30_572_800, 104_066_800),
    ("home-hz-lakeside", "city-hangzhou", "合院·湖畔", "project", 30_231_500, 120_121_300),
    ("home-hz-riverside", "city-hangzhou", "合院·江澜", "project", 30_208_700, 120_219_400),
    ("home-nj-purple", "city-nanjing", "合院·紫金", "project", 32_075_600, 118_853_200),
    ("home-nj-qinhuai", "city-nanjing", "合院·秦淮", "project", 31_998_200, 118_771_900),
    ("home-cd-jinjiang", "city-chengdu", "合院·锦江", "project", 30_601_400, 104_097_700),
    ("home-cd-tianfu", "city-chengdu", "合院·天府", "project", 30_412_900, 104_075_500),
    ("mall-hz", "city-hangzhou", "杭州合院里", "mall", 30_246_800, 120_207_600),
    ("mall-cd", "city-chengdu", "成都合院里", "mall", 30_557_300, 104_065_100),
    ("hotel-hz", "city-hangzhou", "杭州合院酒店", "hotel", 30_252_700, 120_139_800),
    ("office-nj", "city-nanjing", "南京合院中心", "office", 32_041_800, 118_784_300),
    ("office-cd", "city-chengdu", "成都合院中心", "office", 30_541_200, 104_068_900),
    ("community-hz-west", "city-hangzhou", "杭州城西合院社区", "community", 30_287_300, 120_083_400),
    ("community-hz-north", "city-hangzhou", "杭州城北合院社区", "community", 30_331_700, 120_162_200),
    ("community-nj", "city-nanjing", "南京河西合院社区", "community", 32_011_500, 118_727_600),
    ("community-cd", "city-chengdu", "成都城南合院社区", "community", 30_535_600, 104_052_700),
];

pub(crate) const CITIES: [&str; 3] = ["city-hangzhou", "city-nanjing", "city-chengdu"];
pub(crate) const CITY_NAMES: [&str; 3] = ["杭州", "南京", "成都"];
pub(crate) const MALLS: [&str; 2] = ["mall-hz", "mall-cd"];
pub(crate) const HOTEL: &str = "hotel-hz";

/// A mall by city; Nanjing has none.
pub(crate) const MALL_OF_CITY: [Option<usize>; 3] = [Some(0), None, Some(1)];
/// An office tower by city; Hangzhou has none.
pub(crate) const OFFICE_OF_CITY: [Option<&str>; 3] = [None, Some("office-nj"), Some("office-cd")];
pub(crate) const COMMUNITIES_OF_CITY: [&[&str]; 3] = [&["community-hz-west", "community-hz-north"], &["community-nj"], &["community-cd"]];

/// A residential project and what it sells.
pub(crate) struct Project {
    pub(crate) unit: &'static str,
    pub(crate) name: &'static str,
    pub(crate) city: usize,
    pub(crate) path: &'static str,
    pub(crate) square_metre_fen: i64,
    pub(crate) homes: &'static [Home],
}

/// A floor plan: its code, bedrooms and area.
pub(crate) struct Home {
    pub(crate) code: &'static str,
    pub(crate) bedrooms: u32,
    pub(crate) area: i64,
}

impl Home {
    /// The type that everybody speaks of, whatever the project calls its floor plans.
    pub(crate) const fn unit_type(&self) -> &'static str {
        match self.bedrooms {
            1 => "1br",
            2 => "2br",
            3 => "3br",
            4 => "4br",
            _ => "5br",
        }
    }
}

impl Project {
    pub(crate) fn price_fen(&self, home: usize) -> i64 {
        self.square_metre_fen * self.homes[home].area
    }
}

const fn home(code: &'static str, bedrooms: u32, area: i64) -> Home {
    Home { code, bedrooms, area }
}

const fn project(
    unit: &'static str,
    name: &'static str,
    city: usize,
    path: &'static str,
    square_metre_fen: i64,
    homes: &'static [Home],
) -> Project {
    Project { unit, name, city, path, square_metre_fen, homes }
}

pub(crate) const PROJECTS: [Project; 6] = [
    project(
        "home-hz-lakeside",
        "合院·湖畔",
        0,
        "/hz/lakeside",
        4_680_000,
        &[home("3b2l-108", 3, 108), home("3b2l-125", 3, 125), home("4b2l-143", 4, 143), home("5b2l-220", 5, 220)],
    ),
    project(
        "home-hz-riverside",
        "合院·江澜",
        0,
        "/hz/riverside",
        3_150_000,
        &[home("1b1l-52", 1, 52), home("2b1l-78", 2, 78), home("2b2l-89", 2, 89), home("3b2l-108", 3, 108), home("4b2l-139", 4, 139)],
    ),
    project(
        "home-nj-purple",
        "合院·紫金",
        1,
        "/nj/purple",
        3_820_000,
        &[home("2b2l-89", 2, 89), home("3b2l-118", 3, 118), home("4b2l-143", 4, 143), home("5b2l-198", 5, 198)],
    ),
    project(
        "home-nj-qinhuai",
        "合院·秦淮",
        1,
        "/nj/qinhuai",
        2_460_000,
        &[home("1b1l-48", 1, 48), home("2b1l-75", 2, 75), home("2b2l-89", 2, 89), home("3b2l-105", 3, 105), home("4b2l-136", 4, 136)],
    ),
    project(
        "home-cd-jinjiang",
        "合院·锦江",
        2,
        "/cd/jinjiang",
        2_980_000,
        &[home("2b2l-92", 2, 92), home("3b2l-121", 3, 121), home("4b2l-143", 4, 143), home("5b2l-210", 5, 210)],
    ),
    project(
        "home-cd-tianfu",
        "合院·天府",
        2,
        "/cd/tianfu",
        1_890_000,
        &[home("1b1l-55", 1, 55), home("2b1l-79", 2, 79), home("2b2l-95", 2, 95), home("3b2l-110", 3, 110), home("4b2l-140", 4, 140)],
    ),
];

/// The software that sends events, each with its own SDK.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum App {
    HomeWeb,
    WxHome,
    WxMall,
    WxProperty,
    Native,
    HotelWeb,
    HotelDesk,
    SalesPad,
}

impl App {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HomeWeb => "home-web",
            Self::WxHome => "wx-home",
            Self::WxMall => "wx-mall",
            Self::WxProperty => "wx-property",
            Self::Native => "heyuan-app",
            Self::HotelWeb => "hotel-web",
            Self::HotelDesk => "hotel-desk",
            Self::SalesPad => "sales-pad",
        }
    }

    /// Name and version of the SDK.
    pub(crate) fn library(self) -> (&'static str, &'static str) {
        match self {
            Self::HomeWeb | Self::HotelWeb => ("analytics.js", "next-1.84.0"),
            Self::WxHome | Self::WxMall | Self::WxProperty => ("analytics-miniprogram", "2.3.1"),
            Self::Native => ("analytics-android", "4.11.3"),
            Self::HotelDesk => ("analytics-python", "2.4.0"),
            Self::SalesPad => ("analytics-ios", "4.1.8"),
        }
    }

    /// A mini-program knows the openid of its user from the first event on.
    pub(crate) fn in_wechat(self) -> bool {
        matches!(self, Self::WxHome | Self::WxMall | Self::WxProperty)
    }

    pub(crate) fn on_web(self) -> bool {
        matches!(self, Self::HomeWeb | Self::HotelWeb)
    }
}

pub(crate) struct World {
    /// Per project: the tablets on which visitors check in.
    pub(crate) tablets: Vec<Vec<Device>>,
    pub(crate) advisers: Vec<Vec<String>>,
    /// Numbers that a platform puts in front of its users' own.
    pub(crate) relay_numbers: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, customers: u64) -> Self {
        let mut draw = Draw::new(seed, Purpose::Catalogue);
        // A tablet meets some hundreds of people, however large the group is.
        let tablets_each = 1 + customers / 30_000;
        let tablets = PROJECTS
            .iter()
            .map(|_| (0..tablets_each).map(|_| Device::new(Slot::SalesPad, draw.uuid().to_string(), Spelling::Shanghai)).collect())
            .collect();
        let advisers = PROJECTS.iter().map(|_| (0..8).map(|_| format!("adv-{}", draw.digits(6))).collect()).collect();
        let relay_numbers = (0..3 + customers / 8000)
            .map(|index| if index % 2 == 0 { format!("95013{}", draw.digits(8)) } else { format!("170{}", draw.digits(8)) })
            .collect();
        Self { tablets, advisers, relay_numbers }
    }
}

/// Writes `org_units.json`.
pub(crate) fn write_units(path: &Path) -> Result<u64, Error> {
    let units: Vec<Unit> = UNITS
        .iter()
        .map(|(id, parent, name, kind, latitude_e6, longitude_e6)| Unit {
            id,
            parent: Some(*parent).filter(|parent| !parent.is_empty()),
            name,
            kind,
            line: match *kind {
                "project" => Some("residential"),
                "group" | "city" => None,
                line => Some(line),
            },
            latitude_e6: *latitude_e6,
            longitude_e6: *longitude_e6,
        })
        .collect();
    crate::output::write_document(path, &units)?;
    Ok(units.len() as u64)
}
