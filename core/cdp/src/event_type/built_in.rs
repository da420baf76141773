//! The event types that every tenant starts with: what a property group's apps send.

use super::schema::{EventType, Mode, Property, PropertyType};
use PropertyType::{Boolean, Integer, Money, Text};

/// The types of a fresh tenant.
pub(crate) fn types() -> Vec<EventType> {
    vec![
        of(
            "unit_viewed",
            &[text("project_id"), text("unit_type"), text("layout"), with_unit("dwell_seconds", Integer, "s"), fen("price_fen")],
        ),
        of("lead_submitted", &[text("project_id"), text("lead_id"), text("form")]),
        of("phone_verified", &[text("method")]),
        of("order_paid", &[text("order_id"), text("merchant_id"), yuan("amount"), fen_as("amount_fen", "amount"), text("currency")]),
        of("order_refunded", &[text("order_id"), text("merchant_id"), yuan("amount"), fen_as("amount_fen", "amount"), text("currency")]),
        of("voucher_redeemed", &[text("voucher_sku"), text("merchant_id"), fen("face_value_fen"), text("voucher_id"), text("product_id")]),
        of(
            "property_fee_paid",
            &[
                text("transaction_id"),
                ("months", Property::plain(Integer)),
                yuan("amount"),
                fen_as("amount_fen", "amount"),
                text("currency"),
            ],
        ),
        of(
            "hotel_stay_completed",
            &[
                text("transaction_id"),
                text("room_type"),
                ("nights", Property::plain(Integer)),
                yuan("amount"),
                fen_as("amount_fen", "amount"),
                text("currency"),
            ],
        ),
        of("visit_checked_in", &[text("project_id"), ("party_size", Property::plain(Integer)), ("invited", Property::plain(Boolean))]),
        of("app_opened", &[("from_background", Property::plain(Boolean))]),
        of("session_started", &[text("landing")]),
        of("page_viewed", &[text("name"), text("path"), text("title")]),
        of("screen_viewed", &[text("name")]),
        of("member_joined", &[text("member_id"), text("line")]),
        of("tier_changed", &[text("member_id"), text("tier"), text("previous")]),
        of(
            "transaction_posted",
            &[
                text("transaction_id"),
                text("line"),
                yuan("amount"),
                fen_as("amount_fen", "amount"),
                ("growth", Property::plain(Integer)),
                ("points", Property::plain(Integer)),
                ("points_balance", Property::plain(Integer)),
                ("refund", Property::plain(Boolean)),
            ],
        ),
        of("lead_advanced", &[text("lead_id"), text("stage"), yuan("amount"), fen_as("amount_fen", "amount")]),
        of(
            super::PROFILE,
            &[
                ("age", Property::plain(Integer)),
                with_unit("annual_income", Integer, "yuan"),
                ("household_size", Property::plain(Integer)),
                ("children", Property::plain(Integer)),
                text("gender"),
                text("city"),
                personal("name", "name"),
                personal("phone", "phone"),
                personal("email", "email"),
                personal("address", "address"),
                personal("plate", "plate"),
                personal("openid", "identifier"),
                personal("unionid", "identifier"),
                personal("id_card", "id_card"),
            ],
        ),
    ]
}

type Declared = (&'static str, Property);

fn of(name: &str, properties: &[Declared]) -> EventType {
    let properties = properties.iter().map(|(name, property)| ((*name).to_owned(), property.clone())).collect();
    EventType { name: name.to_owned(), version: 1, mode: Mode::Open, properties }
}

fn text(name: &'static str) -> Declared {
    (name, Property::plain(Text))
}

fn with_unit(name: &'static str, kind: PropertyType, unit: &str) -> Declared {
    (name, Property { unit: Some(unit.to_owned()), ..Property::plain(kind) })
}

fn yuan(name: &'static str) -> Declared {
    with_unit(name, Money, "yuan")
}

fn fen(name: &'static str) -> Declared {
    with_unit(name, Money, "fen")
}

fn fen_as(name: &'static str, target: &str) -> Declared {
    let (name, property) = fen(name);
    (name, Property { keep_as: Some(target.to_owned()), ..property })
}

fn personal(name: &'static str, class: &str) -> Declared {
    (name, Property { personal: Some(class.to_owned()), ..Property::plain(Text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_types_pass_their_own_check() {
        for one in types() {
            assert_eq!(EventType::check(&one.name, &one.properties), Ok(()), "{}", one.name);
        }
    }
}
