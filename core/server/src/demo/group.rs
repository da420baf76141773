//! What the group is before anybody comes: units, event types, plugins, definitions, and what the malls sell.

use super::client::{Call, Client};
use super::records::{document, money};
use anyhow::Context;
use heyuan_cdp::know::demo_definitions;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The plugins of the demo, in the order in which they run.
const PLUGINS: [&str; 2] = ["home-upgrader", "member-day"];

/// What the demo's apps send beyond the event types that every tenant starts with: event, property, declaration.
fn own_properties() -> [(&'static str, &'static str, Value); 3] {
    [
        ("unit_viewed", "layout", json!({ "type": "text" })),
        ("unit_viewed", "dwell_seconds", json!({ "type": "integer", "unit": "s" })),
        ("profile", "annual_income", json!({ "type": "integer", "unit": "yuan" })),
    ]
}

#[derive(Debug, Deserialize)]
struct Unit {
    id: String,
    parent: Option<String>,
    name: String,
    kind: String,
    line: Option<String>,
}

/// The tree, as the loader needs it.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The group itself.
    pub(crate) root: String,
    /// Every unit.
    pub(crate) ids: Vec<String>,
    /// Ids by name.
    pub(crate) by_name: BTreeMap<String, String>,
}

/// Puts the tree of units.
///
/// # Errors
/// A file or a server that refuses.
pub(crate) async fn put_units(client: &Client, admin: &str, from: &Path) -> anyhow::Result<Tree> {
    let units: Vec<Unit> = document(&from.join("org_units.json"))?;
    let body: Vec<Value> = units
        .iter()
        .map(|unit| {
            let mut view = json!({ "id": unit.id, "name": unit.name, "kind": unit.kind });
            if let Some(parent) = &unit.parent {
                view["parent"] = json!(parent);
            }
            if let Some(line) = &unit.line {
                view["line"] = json!(line);
            }
            view
        })
        .collect();
    client.expect(&Call::json(Method::PUT, "/v1/org-units", admin, &json!({ "units": body }))).await?;
    let root = units.iter().find(|unit| unit.parent.is_none()).context("org_units.json has no group")?.id.clone();
    let by_name = units.iter().map(|unit| (unit.name.clone(), unit.id.clone())).collect();
    Ok(Tree { root, ids: units.into_iter().map(|unit| unit.id).collect(), by_name })
}

/// Declares what the demo's apps send beyond the built-in event types; what is declared already stays.
///
/// # Errors
/// A server that refuses.
pub(crate) async fn put_event_types(client: &Client, admin: &str) -> anyhow::Result<()> {
    for (event, property, declared) in own_properties() {
        let path = format!("/v1/event-types/{event}");
        let mut known = client.expect(&Call::get(path.as_str(), admin)).await?;
        if !known["properties"][property].is_null() {
            continue;
        }
        known["properties"][property] = declared;
        let body = json!({ "mode": known["mode"], "properties": known["properties"] });
        client.expect(&Call::json(Method::PUT, path, admin, &body)).await?;
    }
    Ok(())
}

/// Uploads the demo's plugins and makes them count.
///
/// # Errors
/// A component that is missing or was not built from today's sources; a server that refuses it.
pub(crate) async fn put_plugins(client: &Client, admin: &str, plugins: &Path) -> anyhow::Result<()> {
    for name in PLUGINS {
        let path = plugins.join(format!("{name}.wasm"));
        let module =
            std::fs::read(&path).with_context(|| format!("could not read {}; make build builds it from source", path.display()))?;
        let upload = Call {
            method: Method::PUT,
            content_type: "application/wasm",
            body: module,
            ..Call::get(format!("/v1/plugins/{name}/versions"), admin)
        };
        let version = client.expect(&upload).await?;
        // Whoever loads the demo wants its plugins, so what they read is approved along with them.
        let active = json!({ "digest": version["digest"], "approve": version["reads"] });
        client.expect(&Call::json(Method::POST, format!("/v1/plugins/{name}/activate"), admin, &active)).await?;
    }
    Ok(())
}

/// A segment with its predicate.
pub(crate) fn segment(name: &str, predicate: &Value) -> Value {
    json!({ "name": name, "predicate": predicate })
}

/// Declares features: what plugins, tags and segments read.
///
/// # Errors
/// A server that refuses.
pub(crate) async fn put_features(client: &Client, admin: &str) -> anyhow::Result<()> {
    for (name, expression) in &demo_definitions().features {
        let path = format!("/v1/features/{name}");
        client.expect(&Call::json(Method::PUT, path, admin, &json!({ "expression": expression }))).await?;
    }
    Ok(())
}

/// Declares tags and segments.
///
/// # Errors
/// A server that refuses.
pub(crate) async fn put_definitions(client: &Client, admin: &str) -> anyhow::Result<()> {
    let put = |path: String, body: Value| async move { client.expect(&Call::json(Method::PUT, path, admin, &body)).await };
    let definitions = demo_definitions();
    for (name, cases) in &definitions.tags {
        let cases: Vec<Value> = cases.iter().map(|case| json!({ "value": case.value, "when": case.when })).collect();
        put(format!("/v1/tags/{name}"), json!({ "cases": cases })).await?;
    }
    for (id, definition) in &definitions.segments {
        let mut body = segment(&definition.name, &definition.predicate);
        if let Some(purpose) = &definition.purpose {
            body["purpose"] = json!(purpose);
        }
        put(format!("/v1/segments/{id}"), body).await?;
    }
    // The tag is the plugin's, so this one can't stand among the definitions that need no plugin.
    put("/v1/segments/home-upgraders".into(), segment("置换意向客户", &json!({ "tag": "home_upgrader", "is": "hot" }))).await?;
    let families = json!({ "all": [{ "feature": "city", "is": "杭州" }, { "feature": "household_size", "at_least": 3 }] });
    put("/v1/segments/families-in-hangzhou".into(), segment("杭州多口之家", &families)).await?;
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Catalogue {
    merchants: Vec<Merchant>,
    products: Vec<Product>,
    vouchers: Vec<Product>,
}

#[derive(Debug, Deserialize)]
struct Merchant {
    id: String,
    unit: String,
    name: String,
    commission_per_mille: i64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Product {
    sku: String,
    merchant_id: String,
    name: String,
    category: String,
    price_fen: i64,
    stock: i64,
    valid_days: Option<i64>,
}

/// Puts merchants and products, and stocks the shelves once.
///
/// # Errors
/// A file or a server that refuses.
pub(crate) async fn put_catalogue(client: &Client, admin: &str, from: &Path) -> anyhow::Result<u64> {
    let catalogue: Catalogue = document(&from.join("catalogue.json"))?;
    for merchant in &catalogue.merchants {
        let rate = json!({ "numerator": merchant.commission_per_mille, "denominator": 1000 });
        let body = json!({ "name": merchant.name, "unit": merchant.unit, "commission_rate": rate });
        client.expect(&Call::json(Method::PUT, format!("/v1/merchants/{}", merchant.id), admin, &body)).await?;
    }
    for product in catalogue.products.iter().chain(&catalogue.vouchers) {
        let kind = if product.valid_days.is_some() { "voucher" } else { "goods" };
        let mut body = json!({
            "merchant": product.merchant_id,
            "name": product.name,
            "category": product.category,
            "kind": kind,
            "price": money(product.price_fen),
        });
        if let Some(days) = product.valid_days {
            body["voucher_valid_days"] = json!(days);
        }
        client.expect(&Call::json(Method::PUT, format!("/v1/products/{}", product.sku), admin, &body)).await?;
        let stock = json!({ "change": product.stock, "reason": "demo opening stock" });
        let call = Call::json(Method::POST, format!("/v1/products/{}/stock", product.sku), admin, &stock);
        client.expect(&call.once(format!("demo-stock-{}", product.sku))).await?;
    }
    let count = catalogue.merchants.len() + catalogue.products.len() + catalogue.vouchers.len();
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}
