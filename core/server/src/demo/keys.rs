//! The demo's keys: made beside the running server, kept in `demo/keys.json` of the data folder for its owner alone, and reused.

use super::client::{Call, Client};
use crate::place::{Place, Schema};
use anyhow::Context;
use heyuan_contract::OrgUnitId;
use heyuan_kernel::{Kernel, Scope, keys};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The unit whose app sends the tour's events: a key of one unit, as an app carries it.
pub(crate) const APP_UNIT: &str = "home-hz-riverside";

/// What a stranger needs to play with the demo group.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DemoKeys {
    /// Defines, configures and reports, for the whole group.
    pub(crate) admin: String,
    /// Acts for members and lines, for the whole group.
    pub(crate) app: String,
    /// Sends events of one project's app.
    pub(crate) ingest: String,
    /// Sends a unit's history, by unit.
    pub(crate) import: BTreeMap<String, String>,
    /// What the payment simulator and the mall sign with.
    pub(crate) payment_secret: String,
}

/// Where the demo's files lie.
pub(crate) fn folder(data: &Path) -> PathBuf {
    data.join("demo")
}

fn file(data: &Path) -> PathBuf {
    folder(data).join("keys.json")
}

impl DemoKeys {
    /// What was kept; nothing on a fresh data folder.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(crate) fn read(data: &Path) -> anyhow::Result<Option<DemoKeys>> {
        let path = file(data);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let keys = serde_json::from_slice(&bytes);
                keys.map(Some).with_context(|| format!("{} is no file of demo keys; remove it and new ones are made", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
        }
    }

    /// Keeps them for the owner of the data folder alone.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub(crate) fn write(&self, data: &Path) -> anyhow::Result<()> {
        let (path, text) = (file(data), serde_json::to_string_pretty(self)?);
        write_private(&path, &text)
    }

    /// Keys that this server takes, for the whole group; those of an earlier data folder are made anew.
    ///
    /// # Errors
    /// A server that can't be reached, a place that can't be opened.
    pub(crate) async fn of_group(place: &Place, client: &Client) -> anyhow::Result<DemoKeys> {
        let mut keys = DemoKeys::read(&place.data)?.unwrap_or_default();
        if !is_taken(client, &keys.admin).await? || !is_taken(client, &keys.app).await? {
            let kernel = open(place).await?;
            keys = DemoKeys { payment_secret: keys.payment_secret, ..DemoKeys::default() };
            keys.admin = create(&kernel, &[Scope::Admin], None).await?;
            keys.app = create(&kernel, &[Scope::App], None).await?;
            keys.write(&place.data)?;
        }
        Ok(keys)
    }

    /// Adds a key for each unit; the units must be in the tree.
    ///
    /// # Errors
    /// A place that can't be opened, an unknown unit.
    pub(crate) async fn with_units(mut self, place: &Place, units: &[String]) -> anyhow::Result<DemoKeys> {
        if !self.ingest.is_empty() && units.iter().all(|unit| self.import.contains_key(unit)) {
            return Ok(self);
        }
        let kernel = open(place).await?;
        for unit in units.iter().filter(|unit| !self.import.contains_key(*unit)).cloned().collect::<Vec<String>>() {
            let key = create(&kernel, &[Scope::Ingest, Scope::Import], Some(&unit)).await?;
            self.import.insert(unit, key);
        }
        if self.ingest.is_empty() {
            let unit = units.iter().find(|unit| *unit == APP_UNIT);
            self.ingest = create(&kernel, &[Scope::Ingest], unit.map(String::as_str)).await?;
        }
        self.write(&place.data)?;
        Ok(self)
    }
}

async fn is_taken(client: &Client, key: &str) -> anyhow::Result<bool> {
    Ok(!key.is_empty() && client.send(&Call::get("/v1/me", key)).await?.status == StatusCode::OK)
}

async fn open(place: &Place) -> anyhow::Result<Kernel> {
    place.open(&place.settings()?, Schema::Prepare).await.context("could not open the tenant to make keys beside its server")
}

async fn create(kernel: &Kernel, scopes: &[Scope], unit: Option<&str>) -> anyhow::Result<String> {
    let unit = unit.map(OrgUnitId::new).transpose()?;
    keys::create(&kernel.db, &kernel.org, scopes, unit.as_ref()).await.context("could not make a key")
}

/// Writes a file that only its owner can read, whole or not at all.
///
/// # Errors
/// A folder that can't be written.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    let fresh = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    written().with_context(|| format!("could not write {}", path.display()))
}
