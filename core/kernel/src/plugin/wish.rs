//! Plugins that the operator manages: what it wishes, remembered with its generation, and who may overrule it.

use super::{PluginKind, Plugins, check_name};
use crate::actor::{Actor, Scope};
use crate::audit;
use crate::database::Tx;
use crate::error::{Code, Error, Kind, Problem, codes};
use crate::sql;
use crate::time::now_ms;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The name is one that keys of the API upload and activate.
const MANAGED_BY_API: Code = Code::new(Kind::Conflict, "managed_by_api", "The plugin is managed over the API", "该插件由 API 管理");
/// The name is one that a `Plugin` object rules.
const MANAGED_BY_OPERATOR: Code =
    Code::new(Kind::Conflict, "managed_by_operator", "The plugin is managed by its Plugin object", "该插件由 Plugin 对象管理");
/// Names that are listed at once.
const LISTED_MAX: i64 = 400;

/// How a plugin should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Checked, compiled and ready; it is called by nothing.
    Shadow,
    /// It counts.
    Active,
    /// Out of service.
    Disabled,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Mode::Shadow => "shadow",
            Mode::Active => "active",
            Mode::Disabled => "disabled",
        }
    }

    fn parse(text: &str) -> Option<Mode> {
        [Mode::Shadow, Mode::Active, Mode::Disabled].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What the operator wants of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The plugin's name.
    pub name: String,
    /// What it does.
    pub kind: PluginKind,
    /// Everything that it may read.
    pub approved: Vec<String>,
    /// How it should be.
    pub mode: Mode,
    /// The generation of the object that says so; it only grows.
    pub generation: i64,
}

/// What becomes of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is to be carried out.
    Granted,
    /// The tenant has overruled this very generation; a higher one is heard again.
    Overruled,
}

/// A plugin as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: PluginKind,
    /// The version that counts or is wished for; `None` before there is one.
    pub digest: Option<String>,
    /// `active`, `shadow`, `checked`, `quarantined` or `retired`.
    pub state: &'static str,
    /// Whether a wish rules it; else the API does.
    pub by_operator: bool,
    /// That of the wish, or of the pointer where there is none.
    pub generation: i64,
    /// Why it is not as it should be; empty where it is.
    pub message: String,
}

/// A stored wish.
struct Stored {
    kind: PluginKind,
    digest: Option<String>,
    mode: Mode,
    generation: i64,
    overruled_by: Option<String>,
    overruled: Option<i64>,
    message: String,
}

impl Stored {
    const COLUMNS: &str = "name, kind, digest, mode, generation, overruled, overruled_by, message";

    fn read(row: &sql::Row) -> Result<Stored, Error> {
        let corrupt = |what: String| Error::Corrupt { what: "wish for a plugin", why: what };
        let (kind, mode): (String, String) = (sql::get(row, "kind")?, sql::get(row, "mode")?);
        Ok(Stored {
            kind: PluginKind::parse(&kind).ok_or_else(|| corrupt(kind))?,
            digest: sql::get(row, "digest")?,
            mode: Mode::parse(&mode).ok_or_else(|| corrupt(mode))?,
            generation: sql::get(row, "generation")?,
            overruled: sql::get(row, "overruled")?,
            overruled_by: sql::get(row, "overruled_by")?,
            message: sql::get(row, "message")?,
        })
    }

    fn is_overruled(&self) -> bool {
        self.overruled == Some(self.generation)
    }

    fn state(&self, active: Option<&str>) -> &'static str {
        match self.mode {
            _ if self.is_overruled() => "quarantined",
            Mode::Active if active.is_some() && active == self.digest.as_deref() => "active",
            Mode::Shadow if self.digest.is_some() && self.message.is_empty() => "shadow",
            Mode::Disabled => "retired",
            Mode::Active | Mode::Shadow => "checked",
        }
    }
}

impl Plugins {
    /// Remembers a wish, before anything is done for it.
    ///
    /// # Errors
    /// `forbidden` without the scope `operator`; `managed_by_api`; `conflict` for a generation below the known one; the database's.
    pub async fn claim(&self, actor: &Actor, wish: &Wish) -> Result<Claim, Problem> {
        actor.require(Scope::Operator)?;
        check_name(&wish.name)?;
        let wish = wish.clone();
        let claim = self.db.write("claim plugin", move |tx| {
            let wish = wish.clone();
            async move { claim_in(tx, &wish).await }.boxed()
        });
        Ok(claim.await?)
    }

    /// Notes what became of a wish: its version, and why it is not as it should be.
    ///
    /// # Errors
    /// The database's.
    pub async fn note_wish(&self, wish: &Wish, digest: Option<&str>, message: &str) -> Result<(), Problem> {
        let text = "UPDATE kernel_plugin_wish SET digest = COALESCE($3, digest), message = $4 WHERE name = $1 AND generation = $2";
        let (name, generation) = (wish.name.clone(), wish.generation);
        let (digest, message) = (digest.map(str::to_owned), message.to_owned());
        let noted = self.db.write("note what became of a wish", move |tx| {
            let values = [name.clone().into(), generation.into(), digest.clone().into(), message.clone().into()];
            async move { sql::execute(tx.conn(), text, values).await }.boxed()
        });
        noted.await?;
        Ok(())
    }

    /// Takes a plugin of the operator's out of service, and gives its name up. Its versions stay for replay.
    ///
    /// # Errors
    /// `forbidden`; `not_found` for a name that the operator does not manage; the database's.
    pub async fn release(&self, actor: &Actor, name: &str) -> Result<(), Problem> {
        actor.require(Scope::Operator)?;
        let (entry, missing) = (audit::Entry::new(actor, "release plugin", name), Problem::not_found("plugin of the operator", name));
        let name = name.to_owned();
        let removed = self.db.write("release plugin", move |tx| {
            let (name, entry) = (name.clone(), entry.clone());
            async move {
                let removed = sql::execute(tx.conn(), "DELETE FROM kernel_plugin_wish WHERE name = $1", [name.clone().into()]).await?;
                if removed == 0 {
                    return Ok::<u64, Error>(0);
                }
                for text in [
                    "DELETE FROM kernel_plugin_pointer WHERE name = $1",
                    "UPDATE kernel_plugin_version SET state = 'retired' WHERE name = $1",
                ] {
                    sql::execute(tx.conn(), text, [name.clone().into()]).await?;
                }
                audit::record(tx, &entry).await?;
                Ok(removed)
            }
            .boxed()
        });
        if removed.await? == 0 { Err(missing) } else { Ok(()) }
    }

    /// Refuses to let a key change what a `Plugin` object rules.
    ///
    /// # Errors
    /// `managed_by_operator`; the database's.
    pub(super) async fn refuse_managed(&self, actor: &Actor, name: &str) -> Result<(), Problem> {
        if actor.is_system() {
            return Ok(());
        }
        let row = sql::one(self.db.reader(), "SELECT name FROM kernel_plugin_wish WHERE name = $1", [name.into()]).await?;
        if row.is_none() {
            return Ok(());
        }
        let how = format!("change the object, or stop the plugin at once by POST /v1/plugins/{name}/retire");
        Err(Problem::new(MANAGED_BY_OPERATOR, format!("{name} is ruled by the object Plugin/{name} in this tenant's namespace; {how}")))
    }

    /// Every plugin as the operator sees it, by name.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn standings(&self, actor: &Actor) -> Result<Vec<Standing>, Problem> {
        actor.require(Scope::Operator)?;
        let mut all = self.of_the_api().await?;
        let text = format!("SELECT {} FROM kernel_plugin_wish ORDER BY name LIMIT $1", Stored::COLUMNS);
        for row in &sql::all(self.db.reader(), &text, [LISTED_MAX.into()]).await? {
            let (name, wish): (String, _) = (sql::get(row, "name")?, Stored::read(row)?);
            let active = all.get(&name).filter(|standing| standing.state == "active").and_then(|standing| standing.digest.clone());
            let message = match &wish.overruled_by {
                Some(by) if wish.is_overruled() => {
                    format!("{by} stopped generation {} of it; a higher one is heard again", wish.generation)
                }
                _ => wish.message.clone(),
            };
            let standing = Standing {
                kind: wish.kind,
                state: wish.state(active.as_deref()),
                by_operator: true,
                generation: wish.generation,
                message,
                digest: wish.digest,
                name: name.clone(),
            };
            all.insert(name, standing);
        }
        Ok(all.into_values().collect())
    }

    /// One plugin as the operator sees it.
    ///
    /// # Errors
    /// As [`Plugins::standings`]; `not_found`.
    pub async fn standing(&self, actor: &Actor, name: &str) -> Result<Standing, Problem> {
        let all = self.standings(actor).await?;
        all.into_iter().find(|standing| standing.name == name).ok_or_else(|| Problem::not_found("plugin", name))
    }

    /// By name: the version that counts, else the one that was uploaded last.
    async fn of_the_api(&self) -> Result<BTreeMap<String, Standing>, Error> {
        let text = "SELECT v.name, v.digest, v.kind, v.state, COALESCE(p.generation, 0) AS generation FROM kernel_plugin_version v
             LEFT JOIN kernel_plugin_pointer p ON p.name = v.name ORDER BY v.name, v.state = 'active', v.uploaded_at LIMIT $1";
        let mut all = BTreeMap::new();
        for row in &sql::all(self.db.reader(), text, [(LISTED_MAX * 10).into()]).await? {
            let (name, kind, state): (String, String, String) = (sql::get(row, "name")?, sql::get(row, "kind")?, sql::get(row, "state")?);
            let state = ["active", "retired"].into_iter().find(|known| *known == state).unwrap_or("checked");
            let standing = Standing {
                name: name.clone(),
                kind: PluginKind::parse(&kind).ok_or(Error::Corrupt { what: "plugin kind", why: kind })?,
                digest: Some(sql::get(row, "digest")?),
                state,
                by_operator: false,
                generation: sql::get(row, "generation")?,
                message: String::new(),
            };
            all.insert(name, standing);
        }
        Ok(all)
    }

    /// Whether the module of a version is kept, so that it need not be fetched again.
    ///
    /// # Errors
    /// The database's.
    pub async fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, Problem> {
        let row = sql::one(self.db.reader(), "SELECT module FROM kernel_plugin_module WHERE digest = $1", [digest.into()]).await?;
        Ok(row.map(|row| sql::get(&row, "module")).transpose()?)
    }

    /// Has a plugin called by nothing, without a word on whether it may come back; where it is not called nothing changes.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn take_out(&self, actor: &Actor, name: &str) -> Result<(), Problem> {
        super::require_group_admin(actor)?;
        let entry = audit::Entry::new(actor, "take plugin out", name);
        let name = name.to_owned();
        let taken = self.db.write("take plugin out", move |tx| {
            let (name, entry) = (name.clone(), entry.clone());
            async move {
                let text = "DELETE FROM kernel_plugin_pointer WHERE name = $1";
                if sql::execute(tx.conn(), text, [name.clone().into()]).await? == 0 {
                    return Ok::<(), Error>(());
                }
                let text = "UPDATE kernel_plugin_version SET state = 'retired' WHERE name = $1 AND state = 'active'";
                sql::execute(tx.conn(), text, [name.into()]).await?;
                audit::record(tx, &entry).await
            }
            .boxed()
        });
        Ok(taken.await?)
    }
}

/// Notes in the transaction of a stop or a roll-back that the tenant wants it so, whatever the operator's object says; answers whether
/// there was a wish to overrule.
pub(super) async fn overrule(tx: &Tx, actor: &Actor, name: &str) -> Result<u64, Error> {
    if actor.is_system() {
        return Ok(0);
    }
    let text = "UPDATE kernel_plugin_wish SET overruled = generation, overruled_by = $2 WHERE name = $1";
    sql::execute(tx.conn(), text, [name.into(), actor.name().into()]).await
}

async fn claim_in(tx: &Tx, wish: &Wish) -> Result<Claim, Error> {
    let name = wish.name.as_str();
    let text = format!("SELECT {} FROM kernel_plugin_wish WHERE name = $1{}", Stored::COLUMNS, sql::for_update(tx.conn()));
    let before = sql::one(tx.conn(), &text, [name.into()]).await?.map(|row| Stored::read(&row)).transpose()?;
    if let Some(before) = &before {
        if wish.generation < before.generation {
            let detail = format!("generation {} of {name} is known already; {} is older", before.generation, wish.generation);
            return Err(Problem::new(codes::CONFLICT, detail).field("generation").into());
        }
        if wish.generation == before.generation && before.is_overruled() {
            return Ok(Claim::Overruled);
        }
    } else {
        let text = "SELECT COUNT(*) AS n FROM kernel_plugin_version WHERE name = $1 AND state <> 'retired'";
        if sql::count(tx.conn(), text, [name.into()]).await? > 0 {
            let detail = format!("{name} was uploaded over the API; retire its versions there, or take another name");
            return Err(Problem::new(MANAGED_BY_API, detail).into());
        }
    }
    let approved = serde_json::Value::from(wish.approved.clone()).to_string();
    let text =
        "INSERT INTO kernel_plugin_wish (name, kind, approved, mode, generation, message, put_at) VALUES ($1, $2, $3, $4, $5, '', $6)
        ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, approved = excluded.approved, mode = excluded.mode,
          generation = excluded.generation, put_at = excluded.put_at";
    let (kind, mode) = (wish.kind.as_str(), wish.mode.as_str());
    sql::execute(tx.conn(), text, [name.into(), kind.into(), approved.into(), mode.into(), wish.generation.into(), now_ms().into()])
        .await?;
    Ok(Claim::Granted)
}
