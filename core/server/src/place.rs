//! Where a tenant lives: its data folder, its database, its key, and the schema's migrations.

use crate::copies::Copies;
use crate::settings::{DatabaseSettings, Settings};
use anyhow::{Context, bail};
use clap::Args;
use futures::FutureExt;
use heyuan_kernel::schema::{Blueprint, Making, Room};
use heyuan_kernel::secret::TenantKeys;
use heyuan_kernel::{Clock, Database, Error, Kernel, Location, Zone, sql};
use sea_orm::DbBackend;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;

/// The options by which every command finds the tenant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The tenant's folder: history, key, compiled plugins, and the database unless --database-url names one
    #[arg(long, env = "HEYUAN_DATA", default_value = "data")]
    pub(crate) data: PathBuf,
    /// A PostgreSQL database instead of the file heyuan.db in the folder
    #[arg(long, env = "HEYUAN_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// A file with the URL of a PostgreSQL database; a server follows its content, so that a password is changed without a restart
    #[arg(long, env = "HEYUAN_DATABASE_URL_FILE", conflicts_with = "database_url")]
    pub(crate) database_url_file: Option<PathBuf>,
    /// A TOML file with settings; HEYUAN_<SECTION>__<KEY> in the environment overrides it
    #[arg(long, env = "HEYUAN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Which schema changes a command makes before it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The embedded database is brought up to date, an empty PostgreSQL database is filled; any other must be one to serve on.
    Prepare,
    /// Nothing is changed, made or locked: the tenant must be there, on a schema to serve on.
    Read,
}

/// The zone of a tenant that is made without naming one.
const TIME_ZONE: &str = "Asia/Shanghai";

impl Place {
    /// Reads the settings.
    ///
    /// # Errors
    /// The setting that is not allowed.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        Ok(heyuan_kernel::config::load(self.config.as_deref(), std::env::vars())?)
    }

    /// Where the tenant's tables are.
    ///
    /// # Errors
    /// The setting `database.url_file` beside `--database-url`.
    pub(crate) fn location(&self, settings: &Settings) -> anyhow::Result<Location> {
        let set = Some(&settings.database.url_file).filter(|file| !file.as_os_str().is_empty());
        match (&self.database_url, self.database_url_file.as_ref().or(set)) {
            (Some(_), Some(_)) => bail!("setting database.url_file: --database-url names a database already; give one of them"),
            (None, Some(file)) => Ok(Location::PostgresFile(file.clone())),
            (url, None) => Ok(Location::new(&self.data, url.as_deref())),
        }
    }

    /// Opens the tenant.
    ///
    /// # Errors
    /// A data folder, database or key that can't be used, in words.
    pub(crate) async fn open(&self, settings: &Settings, schema: Schema) -> anyhow::Result<Kernel> {
        let location = self.location(settings)?;
        match &location {
            Location::Sqlite(file) if schema == Schema::Read && !file.exists() => bail!("there is no tenant in {}", self.data.display()),
            _ if schema == Schema::Read => {}
            _ => std::fs::create_dir_all(&self.data).with_context(|| format!("could not make the data folder {}", self.data.display()))?,
        }
        // Whoever only reads walks whole books, and nobody waits for it.
        let opened = if schema == Schema::Read { Database::open_unhurried(&location).await } else { Database::open(&location).await };
        let db = opened.context("could not open the database")?;
        db.rest().set(settings.database.rest()?);
        prepare_schema(&db, schema, &settings.database, &Copies::of(&self.data)).await?;
        let begun = TenantKeys::mark(&db).await?.is_some();
        if schema == Schema::Read && !begun {
            bail!("no tenant was started on this database yet");
        }
        let embedded_key = settings.tenant.key_file.as_os_str().is_empty();
        let key_file = if embedded_key { self.data.join("tenant.key") } else { settings.tenant.key_file.clone() };
        // A tenant that has begun has its key elsewhere; another one beside its data would only be in the way.
        let keys = TenantKeys::load(&key_file, embedded_key && !begun)?;
        let zone = Zone::named(&fix_time_zone(&db, settings.tenant.time_zone.as_deref()).await?)?;
        Ok(Kernel::open(db, keys, Clock::system(), zone).await?)
    }

    /// Keeps a second server off the same embedded database: SQLite has one writing process.
    ///
    /// # Errors
    /// When another server holds the folder.
    pub(crate) fn lock(&self, settings: &Settings) -> anyhow::Result<Option<File>> {
        if !matches!(self.location(settings)?, Location::Sqlite(_)) {
            return Ok(None);
        }
        std::fs::create_dir_all(&self.data).with_context(|| format!("could not make the data folder {}", self.data.display()))?;
        let path = self.data.join("server.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("could not open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(_) => {
                bail!("another heyuan serve works on {}; stop it first, or use PostgreSQL for several processes", self.data.display())
            }
        }
    }
}

/// This release's schema.
pub(crate) fn blueprint() -> Blueprint {
    let rooms = vec![
        Room::of::<heyuan_kernel::migration::Migrator>("kernel"),
        Room::of::<heyuan_ledger::Migrator>("ledger"),
        Room::of::<heyuan_lake::Migrator>("lake"),
        Room::of::<heyuan_cdp::Migrator>("cdp"),
        Room::of::<heyuan_membership::Migrator>("membership"),
        Room::of::<heyuan_mall::migration::Migrator>("mall"),
        Room::of::<heyuan_attribution::migration::Migrator>("attribution"),
        Room::of::<heyuan_staff::Migrator>("staff"),
    ];
    Blueprint::new(env!("CARGO_PKG_VERSION"), rooms)
}

/// Makes the steps that a command may make. While the copy from before an upgrade is kept, the release before may be gone back to.
async fn prepare_schema(db: &Database, schema: Schema, settings: &DatabaseSettings, copies: &Copies) -> anyhow::Result<()> {
    let blueprint = blueprint();
    let making =
        if copies.names().context("could not look for copies of the database")?.is_empty() { Making::All } else { Making::Expanding };
    let brings_up = match schema {
        Schema::Prepare => db.backend() == DbBackend::Sqlite || blueprint.is_untouched(db).await?,
        Schema::Read => false,
    };
    if brings_up {
        blueprint.make(db, making, settings.lock_wait(), |_| ()).await?;
    }
    let plan = blueprint.plan(db).await?;
    if !plan.may_serve {
        bail!("{}", plan.words);
    }
    Ok(())
}

/// The zone is the tenant's for ever: days, windows and periods are cut in it. Who names none gets the one that is stored.
async fn fix_time_zone(db: &Database, wanted: Option<&str>) -> anyhow::Result<String> {
    let wanted = wanted.map(Zone::named).transpose()?.and(wanted);
    let fixed = match stored_time_zone(db.reader()).await? {
        Some(stored) => stored,
        None => {
            let name = wanted.unwrap_or(TIME_ZONE).to_owned();
            db.write("fix the time zone", move |tx| {
                let name = name.clone();
                async move {
                    let text = "INSERT INTO kernel_setting (name, value) VALUES ('time_zone', $1) ON CONFLICT (name) DO NOTHING";
                    sql::execute(tx.conn(), text, [name.clone().into()]).await?;
                    // Another process may have been first.
                    Ok::<String, Error>(stored_time_zone(tx.conn()).await?.unwrap_or(name))
                }
                .boxed()
            })
            .await?
        }
    };
    match wanted {
        Some(wanted) if wanted != fixed => {
            bail!("setting tenant.time_zone: this tenant was made with {fixed}, which can't be changed to {wanted}")
        }
        _ => Ok(fixed),
    }
}

async fn stored_time_zone<C: sql::Connection>(conn: &C) -> Result<Option<String>, Error> {
    let row = sql::one(conn, "SELECT value FROM kernel_setting WHERE name = 'time_zone'", []).await?;
    row.map(|row| sql::get(&row, "value")).transpose()
}
