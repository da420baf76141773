//! Advertising and what came of it: spend files with their plans' units, leads and their stages.

use super::client::{Call, Client};
use super::progress::Lane;
use super::records::{Refusals, money, stream};
use anyhow::{Context, anyhow, bail};
use heyuan_attribution::{Platform, parse_spend_file};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Leads in work at once; the stages of one lead go one after the other.
const AT_ONCE: usize = 16;

/// Imports the three report files and tells which unit each plan advertises. `units` are ids by name.
///
/// # Errors
/// A file that can't be read, a server that refuses it.
pub(crate) async fn send_spend(
    client: &Client,
    from: &Path,
    key: &str,
    group: &str,
    units: &BTreeMap<String, String>,
) -> anyhow::Result<u64> {
    let mut rows = 0;
    for platform in Platform::ALL {
        let path = from.join("spend").join(format!("{}.csv", platform.as_str()));
        let bytes = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        let file = parse_spend_file(platform, &bytes, None).with_context(|| format!("{} is no spend file", path.display()))?;
        for (plan, unit) in plans(&file.rows, units) {
            let call = Call::json(Method::PUT, format!("/v1/spend/plans/{}/{plan}", platform.as_str()), key, &json!({ "unit": unit }));
            client.expect(&call).await?;
        }
        let path = format!("/v1/spend/imports?platform={}&unit={group}", platform.as_str());
        let call = Call { method: Method::POST, content_type: "text/csv", body: bytes, ..Call::get(path, key) };
        let imported = client.expect(&call).await?;
        if imported["rows_refused"] != 0 {
            bail!("rows of {}.csv were refused: {}", platform.as_str(), imported["errors"]);
        }
        rows += imported["rows_accepted"].as_u64().unwrap_or(0);
    }
    Ok(rows)
}

/// Plans by id with their unit: the house rule puts the unit's name before the plan's own, parted by a hyphen.
fn plans<'a>(rows: &[(u64, heyuan_attribution::SpendRow)], units: &'a BTreeMap<String, String>) -> BTreeSet<(String, &'a str)> {
    let unit = |name: &str| units.get(name.rsplit_once('-').map_or(name, |(unit, _)| unit)).map(String::as_str);
    rows.iter().filter_map(|(_, row)| Some((row.plan.clone(), unit(&row.plan_name)?))).collect()
}

#[derive(Debug, Deserialize)]
struct Record {
    lead_id: String,
    stage: String,
    occurred_at: String,
    unit: String,
    phone: String,
    click_id: Option<String>,
    click_id_type: Option<String>,
    utm: Option<Utm>,
    adviser_id: String,
    contract_id: Option<String>,
    amount_fen: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Utm {
    source: String,
    medium: String,
    campaign: Option<String>,
    content: Option<String>,
}

/// What became of the sales system's records.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) records: u64,
    pub(crate) refused: u64,
}

/// Reports leads and their stages in the order in which they arrived.
///
/// # Errors
/// A file that can't be read, a server that is away, more than a few refusals.
pub(crate) async fn send_leads(client: &Client, path: PathBuf, key: &str, lane: Arc<Lane>) -> anyhow::Result<Taken> {
    let (taken, refusals) = (Arc::new(AtomicU64::new(0)), Arc::new(Refusals::of("record of a lead")));
    let (mut senders, mut workers) = (Vec::new(), JoinSet::new());
    for _ in 0..AT_ONCE {
        let (sender, mut records) = mpsc::channel::<Record>(16);
        senders.push(sender);
        let (client, key, lane, taken, refusals) = (client.clone(), key.to_owned(), lane.clone(), taken.clone(), refusals.clone());
        workers.spawn(async move {
            while let Some(record) = records.recv().await {
                let answer = client.send(&call(&record, &key)).await?;
                if answer.status.is_success() {
                    taken.fetch_add(1, Ordering::Relaxed);
                } else if answer.status.as_u16() == 401 || answer.status.is_server_error() {
                    bail!("{} of {} was refused: {}", record.stage, record.lead_id, answer.problem());
                } else {
                    refusals.add(&record.lead_id, &answer.problem());
                }
                lane.add(1);
            }
            Ok(())
        });
    }
    let (mut records, reader) = stream::<Record>(path);
    while let Some(record) = records.recv().await {
        let mut hasher = DefaultHasher::new();
        record.lead_id.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % AT_ONCE as u64).unwrap_or(0);
        if senders[place].send(record).await.is_err() {
            break;
        }
    }
    drop((records, senders));
    while let Some(worked) = workers.join_next().await {
        worked.map_err(|error| anyhow!("sending leads broke off: {error}"))??;
    }
    reader.await.map_err(|error| anyhow!("reading the leads broke off: {error}"))??;
    let records = taken.load(Ordering::Relaxed);
    Ok(Taken { records, refused: refusals.settle(records)? })
}

fn call(record: &Record, key: &str) -> Call {
    if record.stage != "lead" {
        let mut body = json!({ "stage": record.stage, "occurred_at": record.occurred_at });
        if let Some(fen) = record.amount_fen {
            body["amount"] = money(fen);
        }
        if let Some(contract) = &record.contract_id {
            body["contract"] = json!(contract);
        }
        return Call::json(Method::POST, format!("/v1/leads/{}/stages", record.lead_id), key, &body);
    }
    let mut body = json!({
        "id": record.lead_id,
        "unit": record.unit,
        "identifiers": [{ "kind": "phone", "value": record.phone }],
        "submitted_at": record.occurred_at,
        "adviser": record.adviser_id,
    });
    if let Some(click_id) = &record.click_id {
        body["click_id"] = json!(click_id);
    }
    if let Some(utm) = &record.utm {
        body["touch"] = touch(utm, record.click_id_type.as_deref());
    }
    Call::json(Method::POST, "/v1/leads", key, &body).once(format!("demo-{}", record.lead_id))
}

fn touch(utm: &Utm, click_id_type: Option<&str>) -> Value {
    let platform = match click_id_type {
        Some("clickid") => Some(Platform::OceanEngine),
        Some("gdt_vid") => Some(Platform::TencentAds),
        Some("bd_vid") => Some(Platform::Baidu),
        _ => None,
    };
    let told = [
        ("source", Some(utm.source.as_str())),
        ("medium", Some(utm.medium.as_str())),
        ("campaign", utm.campaign.as_deref()),
        ("content", utm.content.as_deref()),
        ("platform", platform.map(Platform::as_str)),
    ];
    Value::Object(told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect())
}
