//! Where a tenant lives: its data folder, its database, its key, and the schema's migrations.

use crate::settings::Settings;
use anyhow::{Context, bail};
use clap::Args;
use futures::FutureExt;
use heyuan_kernel::secret::TenantKeys;
use heyuan_kernel::{Clock, Database, Error, Kernel, Location, Zone, sql};
use sea_orm::DbBackend;
use sea_orm_migration::MigratorTrait;
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
    /// A TOML file with settings; HEYUAN_<SECTION>__<KEY> in the environment overrides it
    #[arg(long, env = "HEYUAN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Which schema changes a command makes before it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    /// The embedded database is brought up to date, an empty PostgreSQL database is filled; any other must be current.
    Prepare,
    /// Everything is brought up to date.
    Migrate,
    /// Nothing is changed, made or locked: the tenant must be there and current.
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

    /// Opens the tenant.
    ///
    /// # Errors
    /// A data folder, database or key that can't be used, in words.
    pub(crate) async fn open(&self, settings: &Settings, schema: Schema) -> anyhow::Result<Kernel> {
        let location = Location::new(&self.data, self.database_url.as_deref());
        match &location {
            Location::Sqlite(file) if schema == Schema::Read && !file.exists() => bail!("there is no tenant in {}", self.data.display()),
            _ if schema == Schema::Read => {}
            _ => std::fs::create_dir_all(&self.data).with_context(|| format!("could not make the data folder {}", self.data.display()))?,
        }
        let db = Database::open(&location).await.context("could not open the database")?;
        prepare_schema(&db, schema).await?;
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
    pub(crate) fn lock(&self) -> anyhow::Result<Option<File>> {
        if self.database_url.is_some() {
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

/// Runs the migrations of a room, or tells whether it has any left.
macro_rules! each_migrator {
    ($do:ident) => {{
        $do!("kernel", heyuan_kernel::migration::Migrator);
        $do!("ledger", heyuan_ledger::Migrator);
        $do!("lake", heyuan_lake::Migrator);
        $do!("cdp", heyuan_cdp::Migrator);
        $do!("membership", heyuan_membership::Migrator);
        $do!("mall", heyuan_mall::migration::Migrator);
        $do!("attribution", heyuan_attribution::migration::Migrator);
        $do!("staff", heyuan_staff::Migrator);
    }};
}

async fn prepare_schema(db: &Database, schema: Schema) -> anyhow::Result<()> {
    let conn = db.reader();
    let embedded = db.backend() == DbBackend::Sqlite;
    let brings_up = match schema {
        Schema::Migrate => true,
        Schema::Prepare => embedded || is_empty(db).await?,
        Schema::Read => false,
    };
    if brings_up {
        let _turn = if embedded { None } else { Some(take_turn(db).await?) };
        macro_rules! up {
            ($room:literal, $migrator:ty) => {
                <$migrator>::up(conn, None).await.with_context(|| format!("could not migrate the tables of {}", $room))?;
            };
        }
        each_migrator!(up);
        return Ok(());
    }
    macro_rules! current {
        ($room:literal, $migrator:ty) => {
            let pending =
                <$migrator>::get_pending_migrations(conn).await.with_context(|| format!("could not read the schema of {}", $room))?;
            if let Some(first) = pending.first() {
                bail!("the database lacks the migration {} of {}; run heyuan migrate first", first.name(), $room);
            }
        };
    }
    each_migrator!(current);
    Ok(())
}

/// What `heyuan migrate --plan` prints: the migrations that a room still lacks.
///
/// # Errors
/// The database's; an unknown migration in it, which a newer release left.
pub(crate) async fn plan(db: &Database) -> anyhow::Result<Vec<(&'static str, Vec<String>)>> {
    let conn = db.reader();
    let mut rooms = Vec::new();
    macro_rules! pending {
        ($room:literal, $migrator:ty) => {
            let pending =
                <$migrator>::get_pending_migrations(conn).await.with_context(|| format!("could not read the schema of {}", $room))?;
            rooms.push(($room, pending.iter().map(|migration| migration.name().to_owned()).collect()));
        };
    }
    each_migrator!(pending);
    Ok(rooms)
}

/// Holds an advisory lock while it lives, so that two processes don't migrate one PostgreSQL database at once.
async fn take_turn(db: &Database) -> anyhow::Result<sea_orm::DatabaseTransaction> {
    use sea_orm::TransactionTrait;
    let turn = db.reader().begin().await?;
    sql::execute(&turn, "SET LOCAL idle_in_transaction_session_timeout = 0", []).await?;
    sql::execute(&turn, "SELECT pg_advisory_xact_lock(7223372036854775)", []).await?;
    Ok(turn)
}

async fn is_empty(db: &Database) -> anyhow::Result<bool> {
    let text = "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = current_schema() LIMIT 1";
    Ok(sql::one(db.reader(), text, []).await?.is_none())
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
