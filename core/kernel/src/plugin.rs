//! The register of plugins: versions by digest, what they may read, which one is active, and how a wing sees them.

mod approval;
mod wish;

pub use approval::Approval;
pub use wish::{Claim, Mode, Standing, Wish};

use crate::actor::{Actor, Scope};
use crate::audit;
use crate::database::{Database, Tx};
use crate::error::{Error, Problem, codes};
use crate::sql;
use crate::time::now_ms;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa::ToSchema;

/// Largest module accepted, in bytes.
pub const MODULE_BYTES_MAX: usize = 4 << 20;
/// Plugins of one tenant.
const NAMES_MAX: i64 = 200;

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginKind {
    /// Answers tags for rows of features.
    Tagger,
    /// Answers effects for a transaction.
    BenefitRule,
}

impl PluginKind {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            PluginKind::Tagger => "tagger",
            PluginKind::BenefitRule => "benefit-rule",
        }
    }

    fn parse(text: &str) -> Option<PluginKind> {
        [PluginKind::Tagger, PluginKind::BenefitRule].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What the host found in a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// SHA-256 of the module, in hex: the version's name for ever.
    pub digest: String,
    /// Which world it implements.
    pub kind: PluginKind,
    /// Its own description as JSON: features read, tags written, refresh.
    pub description: serde_json::Value,
}

/// The sandbox, as the register needs it; implemented by the server over the plugin host.
pub trait Runtime: Send + Sync {
    /// Checks and compiles a module and keeps it ready to run; a module that is ready already costs nothing.
    fn install(&self, module: Vec<u8>) -> BoxFuture<'_, Result<Installed, Problem>>;
}

/// A version of a plugin, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Version {
    /// The plugin's name.
    pub name: String,
    /// SHA-256 of the module.
    pub digest: String,
    /// What it does.
    pub kind: PluginKind,
    /// `checked`, `active` or `retired`.
    pub state: String,
    /// What the plugin says of itself.
    pub description: serde_json::Value,
    /// What it would read: features as the tenant spells them, and `input.member` or `input.order_lines`.
    pub reads: Vec<String>,
    /// What of `reads` the tenant approved; a version is activated once this is all of it.
    pub approved: Vec<String>,
    /// Who uploaded it.
    pub uploaded_by: String,
}

/// The columns of a version, beside what is approved for its name.
const VERSION: &str = "SELECT v.name, v.digest, v.kind, v.state, v.description, v.uploaded_by, a.approved
  FROM kernel_plugin_version v LEFT JOIN kernel_plugin_approval a ON a.name = v.name";

/// An active plugin and the pointer's generation, which changes with every activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// The plugin's name.
    pub name: String,
    /// The version that counts.
    pub digest: String,
    /// Lower runs first; ties by name.
    pub priority: i64,
    /// Changes with every activation.
    pub generation: i64,
    /// What the plugin says of itself.
    pub description: serde_json::Value,
    /// What it reads although nobody approved it. Activation leaves nothing here; whoever calls a plugin looks again.
    pub unapproved: Vec<String>,
}

/// The register.
#[derive(Clone)]
pub struct Plugins {
    db: Database,
    runtime: Arc<dyn Runtime>,
}

impl Plugins {
    /// A register over a sandbox.
    pub fn new(db: Database, runtime: Arc<dyn Runtime>) -> Plugins {
        Plugins { db, runtime }
    }

    /// Makes every active version ready to run; called at start, before the process says that it is ready.
    ///
    /// # Errors
    /// The database's; the sandbox's when an active module no longer passes.
    pub async fn warm(&self) -> Result<(), Problem> {
        let rows = sql::all(
            self.db.reader(),
            "SELECT m.module FROM kernel_plugin_pointer p JOIN kernel_plugin_module m ON m.digest = p.digest ORDER BY p.name LIMIT $1",
            [NAMES_MAX.into()],
        )
        .await?;
        for row in rows {
            self.runtime.install(sql::get(&row, "module")?).await?;
        }
        Ok(())
    }

    /// Makes one version ready to run: one that a past decision names.
    ///
    /// # Errors
    /// `not_found`; the sandbox's.
    pub async fn ready(&self, digest: &str) -> Result<Installed, Problem> {
        let row = sql::one(self.db.reader(), "SELECT module FROM kernel_plugin_module WHERE digest = $1", [digest.into()]).await?;
        let row = row.ok_or_else(|| Problem::not_found("plugin version", digest))?;
        self.runtime.install(sql::get(&row, "module")?).await
    }

    /// Checks a module and keeps it as a version of `name`. The same module again changes nothing.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` with what the sandbox found; `conflict` when the name belongs to another kind.
    pub async fn upload(&self, actor: &Actor, name: &str, module: Vec<u8>) -> Result<Version, Problem> {
        require_group_admin(actor)?;
        check_name(name)?;
        if module.len() > MODULE_BYTES_MAX {
            return Err(Problem::new(codes::BODY_TOO_LARGE, format!("a module has at most {MODULE_BYTES_MAX} bytes")));
        }
        self.refuse_managed(actor, name).await?;
        let installed = self.runtime.install(module.clone()).await?;
        self.refuse_other_kind(name, installed.kind).await?;
        let entry = audit::Entry::new(actor, "upload plugin", name).detail("digest", installed.digest.clone());
        let (name, actor) = (name.to_owned(), actor.name().to_owned());
        let digest = installed.digest.clone();
        let key = (name.clone(), digest.clone());
        self.db
            .write("upload plugin", move |tx| {
                let (name, actor, installed, module, entry) =
                    (name.clone(), actor.clone(), installed.clone(), module.clone(), entry.clone());
                async move {
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO kernel_plugin_module (digest, module) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
                        [installed.digest.clone().into(), module.into()],
                    )
                    .await?;
                    let new = sql::execute(
                        tx.conn(),
                        "INSERT INTO kernel_plugin_version (name, digest, kind, state, description, uploaded_at, uploaded_by)
                         VALUES ($1, $2, $3, 'checked', $4, $5, $6) ON CONFLICT (name, digest) DO NOTHING",
                        [
                            name.into(),
                            installed.digest.into(),
                            installed.kind.as_str().into(),
                            installed.description.to_string().into(),
                            now_ms().into(),
                            actor.into(),
                        ],
                    )
                    .await?;
                    if new == 1 { audit::record(tx, &entry).await } else { Ok(()) }
                }
                .boxed()
            })
            .await?;
        self.version(&key.0, &key.1).await
    }

    async fn refuse_other_kind(&self, name: &str, kind: PluginKind) -> Result<(), Problem> {
        let row = sql::one(self.db.reader(), "SELECT kind FROM kernel_plugin_version WHERE name = $1 LIMIT 1", [name.into()]).await?;
        let Some(row) = row else { return Ok(()) };
        let known: String = sql::get(&row, "kind")?;
        if known == kind.as_str() {
            return Ok(());
        }
        Err(Problem::new(codes::CONFLICT, format!("the name {name} belongs to a {known}; this module is a {}", kind.as_str()))
            .field("name"))
    }

    async fn version(&self, name: &str, digest: &str) -> Result<Version, Problem> {
        let text = format!("{VERSION} WHERE v.name = $1 AND v.digest = $2");
        let row = sql::one(self.db.reader(), &text, [name.into(), digest.into()]).await?;
        let row = row.ok_or_else(|| Problem::not_found("plugin version", format!("{name}@{digest}")))?;
        Ok(read_version(&row)?)
    }

    /// Every version, by name.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn list(&self, actor: &Actor, after: Option<String>, limit: u64) -> Result<Vec<Version>, Problem> {
        actor.require(Scope::Admin)?;
        let text = format!("{VERSION} WHERE v.name || '@' || v.digest > $1 ORDER BY v.name || '@' || v.digest LIMIT $2");
        let rows = sql::all(self.db.reader(), &text, [after.unwrap_or_default().into(), limit.into()]).await?;
        Ok(rows.iter().map(read_version).collect::<Result<_, _>>()?)
    }

    /// Makes a version the one that counts; rolling back is activating an earlier one. Running decisions finish on what they began
    /// with, and decide again when they find the pointer moved. What is in `approve` is added to what the plugin may read.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `approval_needed` when the version reads what is not approved; `managed_by_operator`.
    pub async fn activate(&self, actor: &Actor, name: &str, digest: &str, priority: i64, approve: &[String]) -> Result<Version, Problem> {
        require_group_admin(actor)?;
        self.refuse_managed(actor, name).await?;
        self.point(actor, name, digest, priority, approve).await
    }

    /// Goes back to another version of a plugin that the operator manages, at once and whatever its object says, until the object's
    /// generation changes.
    ///
    /// # Errors
    /// As [`Plugins::activate`], but for `managed_by_operator`.
    pub async fn roll_back(&self, actor: &Actor, name: &str, digest: &str, priority: i64) -> Result<Version, Problem> {
        require_group_admin(actor)?;
        self.point(actor, name, digest, priority, &[]).await
    }

    async fn point(&self, actor: &Actor, name: &str, digest: &str, priority: i64, approve: &[String]) -> Result<Version, Problem> {
        let version = self.version(name, digest).await?;
        approval::check_added(name, &version.reads, approve)?;
        self.ready(digest).await?;
        let entry = audit::Entry::new(actor, "activate plugin", name).detail("digest", digest);
        let (kind, reads) = (version.kind, version.reads);
        let (actor, approve) = (actor.clone(), approve.to_vec());
        let (name, digest) = (version.name, version.digest);
        let key = (name.clone(), digest.clone());
        self.db
            .write("activate plugin", move |tx| {
                let (name, digest, entry) = (name.clone(), digest.clone(), entry.clone());
                let (actor, reads, approve) = (actor.clone(), reads.clone(), approve.clone());
                async move {
                    approval::add(tx, &actor, &name, &reads, &approve).await?;
                    wish::overrule(tx, &actor, &name).await?;
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO kernel_plugin_pointer (name, kind, digest, priority, generation, activated_at) VALUES ($1, $2, $3, $4, 1, $5)
                         ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, priority = excluded.priority,
                           generation = kernel_plugin_pointer.generation + 1, activated_at = excluded.activated_at",
                        [name.clone().into(), kind.as_str().into(), digest.clone().into(), priority.into(), now_ms().into()],
                    )
                    .await?;
                    sql::execute(
                        tx.conn(),
                        "UPDATE kernel_plugin_version SET state = CASE WHEN digest = $2 THEN 'active' WHEN state = 'active' THEN 'retired' ELSE state END
                         WHERE name = $1",
                        [name.into(), digest.into()],
                    )
                    .await?;
                    audit::record(tx, &entry).await
                }
                .boxed()
            })
            .await?;
        self.version(&key.0, &key.1).await
    }

    /// Takes a plugin out of service; its versions stay for replay. One that the operator manages stays out of service until the
    /// generation of its object changes.
    ///
    /// # Errors
    /// `forbidden`; `not_found` when there is nothing to retire.
    pub async fn retire(&self, actor: &Actor, name: &str) -> Result<(), Problem> {
        require_group_admin(actor)?;
        let entry = audit::Entry::new(actor, "retire plugin", name);
        let actor = actor.clone();
        let name = name.to_owned();
        let missing = Problem::not_found("active plugin", &name);
        let removed = self
            .db
            .write("retire plugin", move |tx| {
                let (actor, name, entry) = (actor.clone(), name.clone(), entry.clone());
                async move {
                    let overruled = wish::overrule(tx, &actor, &name).await?;
                    sql::execute(tx.conn(), "DELETE FROM kernel_plugin_pointer WHERE name = $1", [name.clone().into()]).await?;
                    // Those that only wait for an activation too, so that the name is free for a Plugin object.
                    let text = "UPDATE kernel_plugin_version SET state = 'retired' WHERE name = $1 AND state <> 'retired'";
                    let retired = sql::execute(tx.conn(), text, [name.into()]).await?;
                    if overruled + retired == 0 {
                        return Ok(0);
                    }
                    audit::record(tx, &entry).await?;
                    Ok::<u64, Error>(overruled + retired)
                }
                .boxed()
            })
            .await?;
        if removed == 0 { Err(missing) } else { Ok(()) }
    }

    /// The active plugins of a kind, in the order in which they run.
    ///
    /// # Errors
    /// The database's.
    pub async fn active(&self, kind: PluginKind) -> Result<Vec<Active>, Error> {
        let text = "SELECT p.name, p.digest, p.priority, p.generation, v.description, a.approved FROM kernel_plugin_pointer p
             JOIN kernel_plugin_version v ON v.name = p.name AND v.digest = p.digest
             LEFT JOIN kernel_plugin_approval a ON a.name = p.name WHERE p.kind = $1 ORDER BY p.priority, p.name LIMIT $2";
        let rows = sql::all(self.db.reader(), text, [kind.as_str().into(), NAMES_MAX.into()]).await?;
        rows.iter().map(read_active).collect()
    }

    /// What a version reads although nobody approved it, looked up now; also of one that was in force a moment ago.
    ///
    /// # Errors
    /// `not_found`; the database's.
    pub async fn unapproved(&self, name: &str, digest: &str) -> Result<Vec<String>, Problem> {
        let version = self.version(name, digest).await?;
        Ok(approval::missing(&version.reads, &version.approved.into_iter().collect()))
    }

    /// Fails a deciding transaction when the pointers of a kind are no longer those that the decision was made with.
    ///
    /// # Errors
    /// [`Error::Stale`]; [`Error::Database`].
    pub async fn check_unmoved(tx: &Tx, kind: PluginKind, decided_with: &[(String, i64)]) -> Result<(), Error> {
        let rows =
            sql::all(tx.conn(), "SELECT name, generation FROM kernel_plugin_pointer WHERE kind = $1 ORDER BY name", [kind.as_str().into()])
                .await?;
        let mut now = Vec::with_capacity(rows.len());
        for row in &rows {
            now.push((sql::get::<String>(row, "name")?, sql::get::<i64>(row, "generation")?));
        }
        let mut then = decided_with.to_vec();
        then.sort();
        if now == then { Ok(()) } else { Err(Error::Stale("the active plugins")) }
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let fits = !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(()) } else { Err(Problem::invalid("name", "expected 1 to 63 characters of a-z 0-9 -")) }
}

/// A plugin works on the whole group's customers, so a key of one unit does not rule it.
fn require_group_admin(actor: &Actor) -> Result<(), Problem> {
    actor.require(Scope::Admin)?;
    match actor.unit() {
        None => Ok(()),
        Some(_) => Err(Problem::new(codes::FORBIDDEN, "plugins work on the whole group; this needs a key of the whole group")),
    }
}

fn read_description(row: &sql::Row) -> Result<serde_json::Value, Error> {
    let description: String = sql::get(row, "description")?;
    serde_json::from_str(&description).map_err(|error| Error::Corrupt { what: "description of a plugin", why: error.to_string() })
}

fn read_approved(row: &sql::Row) -> Result<BTreeSet<String>, Error> {
    approval::parse(sql::get::<Option<String>>(row, "approved")?.as_deref())
}

fn read_active(row: &sql::Row) -> Result<Active, Error> {
    let description = read_description(row)?;
    Ok(Active {
        name: sql::get(row, "name")?,
        digest: sql::get(row, "digest")?,
        priority: sql::get(row, "priority")?,
        generation: sql::get(row, "generation")?,
        unapproved: approval::missing(&approval::declared(&description)?, &read_approved(row)?),
        description,
    })
}

fn read_version(row: &sql::Row) -> Result<Version, Error> {
    let kind: String = sql::get(row, "kind")?;
    let description = read_description(row)?;
    let reads = approval::declared(&description)?;
    let approved = read_approved(row)?;
    Ok(Version {
        name: sql::get(row, "name")?,
        digest: sql::get(row, "digest")?,
        kind: PluginKind::parse(&kind).ok_or(Error::Corrupt { what: "plugin kind", why: kind })?,
        state: sql::get(row, "state")?,
        description,
        approved: reads.iter().filter(|value| approved.contains(*value)).cloned().collect(),
        reads,
        uploaded_by: sql::get(row, "uploaded_by")?,
    })
}
