//! Households: who lives together, on what income, where, and which phone numbers they share, give up or take over.

use std::collections::VecDeque;

use crate::calendar::Calendar;
use crate::draw::{Draw, Purpose};
use crate::numbers::Numbers;
use crate::person::{Identifier, Person};
use crate::stamp::DAY;
use crate::world::COMMUNITIES_OF_CITY;

#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Structure {
    Single,
    Couple,
    CoupleOneChild,
    CoupleTwoChildren,
    ThreeGenerations,
    Elders,
}

const STRUCTURES: [Structure; 6] = [
    Structure::Single,
    Structure::Couple,
    Structure::CoupleOneChild,
    Structure::CoupleTwoChildren,
    Structure::ThreeGenerations,
    Structure::Elders,
];

pub(crate) struct Household {
    pub(crate) number: u64,
    pub(crate) structure: Structure,
    pub(crate) city: usize,
    pub(crate) children: usize,
    pub(crate) annual_income_fen: i64,
    /// Where it owns a home of the group's, and its area in square metres.
    pub(crate) community: Option<(&'static str, i64)>,
    pub(crate) adults: Vec<Person>,
}

impl Household {
    pub(crate) fn size(&self) -> usize {
        self.adults.len() + self.children
    }
}

/// Yearly household income in 10,000 yuan at even steps of the population.
const INCOMES: [i64; 13] = [6, 9, 12, 15, 18, 22, 26, 32, 40, 52, 70, 100, 180];

/// So many people apart, somebody gives up a phone number that somebody else gets later.
const CHANGERS_APART: u64 = 700;
/// A history this short has no room for a number to be given up and taken over.
const RECYCLING_DAYS_MIN: u32 = 45;

pub(crate) struct People {
    draw: Draw,
    people: u64,
    households: u64,
    next_changer: u64,
    /// Numbers given up, and the day from which the next owner may use them.
    freed: VecDeque<(String, u32)>,
    pub(crate) families_sharing_phone: u64,
    pub(crate) recycled_numbers: u64,
}

/// A number that had two owners, for the truth.
pub(crate) type Recycled = Vec<String>;

impl People {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            draw: Draw::new(seed, Purpose::People),
            people: 0,
            households: 0,
            next_changer: 30,
            freed: VecDeque::new(),
            families_sharing_phone: 0,
            recycled_numbers: 0,
        }
    }

    pub(crate) fn household(&mut self, left: u64, calendar: &Calendar, numbers: &mut Numbers, recycled: &mut Recycled) -> Household {
        let draw = &mut self.draw;
        let stranger = draw.chance(270);
        let structure = if stranger { Structure::Single } else { STRUCTURES[draw.weighted(&[24, 23, 23, 10, 12, 8])] };
        let step = draw.index(INCOMES.len() - 1);
        let within = draw.between(0, 999);
        let one_earner = if structure == Structure::Single || structure == Structure::Elders { 600 } else { 1000 };
        let annual_income_fen = (INCOMES[step] * 1000 + (INCOMES[step + 1] - INCOMES[step]) * within) * 1000 * one_earner / 1000;
        let city = draw.weighted(&[40, 28, 32]);
        let owns = !stranger && draw.chance(if structure == Structure::Single { 280 } else { 470 });
        let community = owns.then(|| (*draw.pick(COMMUNITIES_OF_CITY[city]), draw.between(62, 168)));
        let children = match structure {
            Structure::CoupleOneChild => 1,
            Structure::CoupleTwoChildren => 2,
            Structure::ThreeGenerations => 1 + draw.index(2),
            _ => 0,
        };
        self.households += 1;
        let mut household =
            Household { number: self.households, structure, city, children, annual_income_fen, community, adults: Vec::new() };
        let roles = roles(structure, draw.chance(400));
        let seeker_age = seeker_age(structure, draw);
        for role in roles.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            let person = self.person(role, seeker_age, stranger, calendar);
            household.adults.push(person);
        }
        if !stranger {
            self.give_identifiers(&mut household, calendar, numbers, recycled);
        }
        household
    }

    fn person(&mut self, role: &'static str, seeker_age: i64, stranger: bool, calendar: &Calendar) -> Person {
        let draw = &mut self.draw;
        let female = match role {
            "wife" | "grandmother" => true,
            "husband" | "grandfather" => false,
            _ => draw.chance(500),
        };
        let age = match role {
            "wife" => (seeker_age + draw.between(-5, 3)).max(21),
            "grandfather" | "grandmother" => (seeker_age + draw.between(23, 31)).min(88),
            _ => seeker_age,
        };
        self.people += 1;
        let joins_late = draw.chance(200);
        Person {
            number: self.people,
            role,
            name: name(draw, female),
            female,
            age,
            stranger,
            shares_phone: false,
            active_from: if joins_late { draw.below(u64::from(calendar.days) * 7 / 10) as u32 } else { 0 },
            second_browser: draw.chance(180),
            identifiers: Vec::new(),
            devices: Vec::new(),
        }
    }

    fn give_identifiers(&mut self, household: &mut Household, calendar: &Calendar, numbers: &mut Numbers, recycled: &mut Recycled) {
        let share_chance = match household.structure {
            Structure::Single => 0,
            Structure::ThreeGenerations | Structure::Elders => 160,
            _ => 40,
        };
        let sharing = if household.adults.len() > 1 && self.draw.chance(share_chance) { 2 + self.draw.index(2) } else { 0 };
        let shared = (sharing > 0).then(|| numbers.phone());
        self.families_sharing_phone += u64::from(shared.is_some());
        // The oldest share: whoever is last in the list of roles.
        let first_sharing = household.adults.len().saturating_sub(sharing);
        for (place, person) in household.adults.iter_mut().enumerate() {
            match &shared {
                Some(phone) if place >= first_sharing => {
                    person.shares_phone = true;
                    person.identifiers.push(Identifier::new("phone", phone.clone()));
                }
                _ => self.give_phone(person, calendar, numbers, recycled),
            }
            // Members of one family on one number tell themselves apart by what is theirs alone.
            if !person.has("member") && (person.shares_phone || self.draw.chance(860)) {
                person.identifiers.push(Identifier::new("member", numbers.member()));
            }
            if person.shares_phone || self.draw.chance(780) {
                person.identifiers.push(Identifier::new("unionid", numbers.unionid()));
            }
            if self.draw.chance(300) {
                person.identifiers.push(Identifier::new("email", numbers.email()));
            }
            if person.age < 72 && self.draw.chance(430) {
                person.identifiers.push(Identifier::new("plate", numbers.plate(household.city)));
            }
        }
    }

    fn give_phone(&mut self, person: &mut Person, calendar: &Calendar, numbers: &mut Numbers, recycled: &mut Recycled) {
        if calendar.days >= RECYCLING_DAYS_MIN && self.people >= self.next_changer {
            self.next_changer = self.people + CHANGERS_APART;
            let days = i64::from(calendar.days);
            let stops_day = self.draw.between(days / 8, days * 35 / 100) as u32;
            let stops_at = calendar.start + i64::from(stops_day) * DAY;
            let rest_days = self.draw.between(days / 3, days * 45 / 100) as u32;
            let old = numbers.phone();
            self.freed.push_back((old.clone(), stops_day + rest_days));
            person.active_from = 0;
            person.identifiers.push(Identifier { until: Some(stops_at), ..Identifier::new("phone", old) });
            person.identifiers.push(Identifier { from: Some(stops_at), ..Identifier::new("phone", numbers.phone()) });
            // The old and the new number are one person's because the member stays the same.
            person.identifiers.push(Identifier::new("member", numbers.member()));
            return;
        }
        if let Some((phone, from_day)) = self.freed.pop_front_if(|_| self.draw.chance(100)) {
            person.active_from = from_day;
            let from = calendar.start + i64::from(from_day) * DAY;
            recycled.push(phone.clone());
            self.recycled_numbers += 1;
            person.identifiers.push(Identifier { from: Some(from), ..Identifier::new("phone", phone) });
            return;
        }
        person.identifiers.push(Identifier::new("phone", numbers.phone()));
    }
}

fn roles(structure: Structure, two_grandparents: bool) -> &'static [&'static str] {
    match structure {
        Structure::Single => &["single"],
        Structure::Couple | Structure::CoupleOneChild | Structure::CoupleTwoChildren => &["husband", "wife"],
        Structure::ThreeGenerations if two_grandparents => &["husband", "wife", "grandfather", "grandmother"],
        Structure::ThreeGenerations => &["husband", "wife", "grandmother"],
        Structure::Elders => &["grandfather", "grandmother"],
    }
}

fn seeker_age(structure: Structure, draw: &mut Draw) -> i64 {
    match structure {
        Structure::Single => draw.between(22, 48),
        Structure::Couple => draw.between(24, 50),
        Structure::CoupleOneChild => draw.between(27, 46),
        Structure::CoupleTwoChildren => draw.between(30, 46),
        Structure::ThreeGenerations => draw.between(29, 48),
        // Of the generation between, which lives elsewhere.
        Structure::Elders => draw.between(34, 50),
    }
}

fn name(draw: &mut Draw, female: bool) -> String {
    const FAMILY: [&str; 30] = [
        "王", "李", "张", "刘", "陈", "杨", "黄", "赵", "吴", "周", "徐", "孙", "马", "朱", "胡", "郭", "何", "林", "高", "罗", "郑", "梁",
        "谢", "宋", "唐", "许", "邓", "冯", "韩", "曹",
    ];
    const MEN: [&str; 20] =
        ["伟", "强", "磊", "军", "洋", "勇", "杰", "涛", "明", "超", "浩", "宇", "轩", "鹏", "辉", "子豪", "志远", "建国", "文博", "思源"];
    const WOMEN: [&str; 20] = [
        "芳", "娜", "敏", "静", "丽", "艳", "娟", "霞", "燕", "玲", "婷", "雪", "琳", "欣怡", "梓涵", "雨桐", "晓梅", "思琪", "佳怡",
        "若兰",
    ];
    let given = if female { draw.pick(&WOMEN) } else { draw.pick(&MEN) };
    format!("{}{given}", draw.pick(&FAMILY))
}
