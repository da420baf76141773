//! Who of a group's customers is about to trade up to a larger home: a tagger.
//!
//! Interest is where the time goes: seconds spent on unit pages in thirty days, by type. It is called hot only when the
//! household could use the room and could pay for it.

use heyuan_tagger::{Features, Moment, TagText, Tags, tagger};

/// Below this many seconds on every type, nothing is said about a preferred type.
const PREFERENCE_SECONDS: f64 = 60.0;
const WARM_SECONDS: f64 = 180.0;
const HOT_SECONDS: f64 = 600.0;
const HOUSEHOLD_MIN: f64 = 3.0;
/// Yuan a year.
const INCOME_MIN: f64 = 300_000.0;

#[derive(Features)]
pub struct Customer {
    #[reads("sum(unit_viewed.dwell_seconds where unit_type = '2br') over 30d")]
    two_bedrooms: Option<f64>,
    #[reads("sum(unit_viewed.dwell_seconds where unit_type = '3br') over 30d")]
    three_bedrooms: Option<f64>,
    #[reads("sum(unit_viewed.dwell_seconds where unit_type = '4br') over 30d")]
    four_bedrooms: Option<f64>,
    #[reads("profile.household_size")]
    household_size: Option<f64>,
    #[reads("profile.annual_income")]
    annual_income: Option<f64>,
}

#[derive(Clone, Copy, TagText)]
pub enum Intent {
    None,
    Warm,
    Hot,
}

#[derive(Clone, Copy, TagText)]
pub enum UnitType {
    #[text("2br")]
    TwoBedrooms,
    #[text("3br")]
    ThreeBedrooms,
    #[text("4br")]
    FourBedrooms,
}

#[derive(Tags)]
pub struct Upgrade {
    #[tag("home_upgrader")]
    intent: Option<Intent>,
    #[tag("home_upgrader_unit_type")]
    unit_type: Option<UnitType>,
}

/// Customers who look at larger homes, and whose household and income fit.
#[tagger(name = "home-upgrader", refresh_seconds = 86_400)]
pub fn tag(customer: &Customer, _moment: Moment) -> Upgrade {
    let viewed = [customer.two_bedrooms, customer.three_bedrooms, customer.four_bedrooms];
    if viewed.iter().all(Option::is_none) {
        // Who never looked at a unit is no none, but unknown.
        return Upgrade { intent: None, unit_type: None };
    }
    let [two, three, four] = viewed.map(|seconds| seconds.unwrap_or(0.0));
    let larger = three + four;
    let room = customer.household_size.is_some_and(|size| size >= HOUSEHOLD_MIN);
    let means = customer.annual_income.is_some_and(|income| income >= INCOME_MIN);
    let intent = if larger >= HOT_SECONDS && room && means {
        Intent::Hot
    } else if larger >= WARM_SECONDS && (room || means) {
        Intent::Warm
    } else {
        Intent::None
    };
    Upgrade { intent: Some(intent), unit_type: preferred(two, three, four) }
}

/// The type with most time; of two equals the larger home.
fn preferred(two: f64, three: f64, four: f64) -> Option<UnitType> {
    let most = two.max(three).max(four);
    if most < PREFERENCE_SECONDS {
        None
    } else if four >= most {
        Some(UnitType::FourBedrooms)
    } else if three >= most {
        Some(UnitType::ThreeBedrooms)
    } else {
        Some(UnitType::TwoBedrooms)
    }
}
