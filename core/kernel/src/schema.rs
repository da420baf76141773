//! The schema's contract: the steps of a release, what of them lies in the database, and which releases may serve on it.

use crate::database::Database;
use crate::error::Error;
use crate::migration::Steps;
use crate::notices;
use crate::sql;
use crate::time::now_ms;
use sea_orm::{DatabaseTransaction, DbBackend, DbErr, TransactionTrait};
use sea_orm_migration::prelude::{MigrationTrait, SchemaManager};
use serde::{Serialize, Serializer};
use std::cmp::max;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The setting in which the oldest release that may serve lies.
const SERVES_FROM: &str = "schema_serves_from";
/// The first release: every schema without a later word is its own.
const FIRST: Release = Release([0, 1, 0]);
/// Two commands that change one PostgreSQL database take turns by this number.
const TURN: i64 = 7_223_372_036_854_775;

/// A release's number; what stands behind a hyphen or a plus is no part of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release([u64; 3]);

impl FromStr for Release {
    type Err = Error;

    fn from_str(text: &str) -> Result<Release, Error> {
        let number = text.split(['-', '+']).next().unwrap_or_default();
        let parts = number.split('.').map(str::parse).collect::<Result<Vec<u64>, _>>().ok();
        let parts: Option<[u64; 3]> = parts.and_then(|parts| parts.try_into().ok());
        parts.map(Release).ok_or_else(|| Error::Corrupt { what: "release", why: format!("{text} is not three numbers") })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Serialize for Release {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a step means for the releases before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// The release before serves on what it makes.
    Expand,
    /// Earlier releases can't serve any more: it is made when none of them runs, and none is gone back to.
    Contract,
}

/// A step as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The room whose tables it changes.
    pub room: &'static str,
    /// Its name for ever.
    pub name: String,
    /// What it means for earlier releases.
    pub kind: StepKind,
}

/// A room's migrations, in their order.
pub struct Room {
    name: &'static str,
    table: String,
    migrations: Vec<Box<dyn MigrationTrait>>,
    /// The oldest release that may serve after a contracting step, by the step's name.
    contracting: BTreeMap<&'static str, Release>,
}

impl Room {
    /// The migrations of a room.
    ///
    /// # Panics
    /// For a contracting step without a release, or one that is not among the migrations: our own bug.
    pub fn of<M: Steps>(name: &'static str) -> Room {
        let migrations = M::migrations();
        let release = |text: &str| text.parse().expect("a contracting step names a release");
        let contracting: BTreeMap<_, _> = M::contracting().iter().map(|(step, from)| (*step, release(from))).collect();
        assert!(contracting.keys().all(|step| migrations.iter().any(|one| one.name() == *step)), "{name} has every step that contracts");
        Room { name, table: M::migration_table_name().to_string(), migrations, contracting }
    }

    fn step(&self, migration: &dyn MigrationTrait) -> Step {
        let kind = if self.contracting.contains_key(migration.name()) { StepKind::Contract } else { StepKind::Expand };
        Step { room: self.name, name: migration.name().to_owned(), kind }
    }
}

/// How far a schema is, and the oldest release that may serve on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Level {
    /// How many steps were made; none where there is no schema yet.
    pub level: Option<usize>,
    /// `None` where there is no schema yet.
    pub serves_from: Option<Release>,
}

/// What a release finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// There is no schema yet.
    Empty,
    /// The release's own.
    Current,
    /// Expanding steps are missing.
    Expand,
    /// Contracting steps alone are missing.
    Contract,
    /// A later release has made steps that this one does not know.
    Ahead,
}

/// What `heyuan migrate --plan` prints: the release's way from what lies in the database to its own schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Who plans.
    pub release: Release,
    /// What lies in the database.
    pub schema: Level,
    /// What the release's own schema is.
    pub target: Level,
    /// What is missing, in the order in which it would be made.
    pub steps: Vec<Step>,
    /// The whole in a word.
    pub verdict: Verdict,
    /// Whether this release may serve on the schema as it is.
    pub may_serve: bool,
    /// The same for people.
    pub words: String,
}

/// Which steps are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// Those that the release before serves on; in an empty database all.
    Expanding,
    /// All.
    All,
}

/// Why steps were not made.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// One failed; what it had done is undone, and those before it stand.
    #[error("could not make the step {} of {}: {why}", step.name, step.room)]
    Step {
        /// Which one.
        step: Step,
        /// The database's words.
        why: String,
    },
    /// The database is of a later release, and this one has no say over it.
    #[error("{0}")]
    Refused(String),
    /// The database could not be read.
    #[error(transparent)]
    Database(#[from] Error),
}

/// What lies in the database.
#[derive(Debug, Default)]
struct Found {
    tables: BTreeSet<String>,
    /// Names of steps by the room's table.
    made: BTreeMap<String, BTreeSet<String>>,
    serves_from: Option<Release>,
}

/// The schema of a release.
pub struct Blueprint {
    release: Release,
    rooms: Vec<Room>,
}

impl Blueprint {
    /// A release and its rooms; the kernel's comes first, for it keeps the word on who may serve.
    ///
    /// # Panics
    /// For a release that is no number: our own bug.
    pub fn new(release: &str, rooms: Vec<Room>) -> Blueprint {
        Blueprint { release: release.parse().expect("a release has three numbers"), rooms }
    }

    /// Whether nothing at all lies in the database, ours or not; an attempt to fill it that failed leaves lists of steps with none in them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn is_untouched(&self, db: &Database) -> Result<bool, Error> {
        let found = self.find(db).await?;
        let foreign = found.tables.iter().any(|table| self.rooms.iter().all(|room| room.table != *table));
        Ok(!foreign && self.judge(&found).verdict == Verdict::Empty)
    }

    /// What an empty database would get.
    pub fn plan_for_nothing(&self) -> Plan {
        self.judge(&Found::default())
    }

    /// The way from what lies in the database to this release's schema. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Database`]; [`Error::Corrupt`].
    pub async fn plan(&self, db: &Database) -> Result<Plan, Error> {
        Ok(self.judge(&self.find(db).await?))
    }

    async fn find(&self, db: &Database) -> Result<Found, Error> {
        let mut found = Found { tables: tables(db).await?, ..Found::default() };
        for room in self.rooms.iter().filter(|room| found.tables.contains(&room.table)) {
            let rows = sql::all(db.reader(), &format!("SELECT version FROM {} ORDER BY version", room.table), []).await?;
            let names = rows.iter().map(|row| sql::get(row, "version")).collect::<Result<_, _>>()?;
            found.made.insert(room.table.clone(), names);
        }
        if found.tables.contains("kernel_setting") {
            found.serves_from = serves_from(db.reader()).await?;
        }
        Ok(found)
    }

    fn judge(&self, found: &Found) -> Plan {
        let none = BTreeSet::new();
        let made = |room: &Room| found.made.get(&room.table).unwrap_or(&none);
        let level: usize = self.rooms.iter().map(|room| made(room).len()).sum();
        let missing = |room: &Room| -> Vec<Step> {
            let all = room.migrations.iter().filter(|one| !made(room).contains(one.name()));
            all.map(|one| room.step(one.as_ref())).collect()
        };
        let steps: Vec<Step> = self.rooms.iter().flat_map(missing).collect();
        let known = |room: &Room, name: &String| room.migrations.iter().any(|one| one.name() == name);
        let unknown: Vec<&String> = self.rooms.iter().flat_map(|room| made(room).iter().filter(|name| !known(room, name))).collect();
        let schema = Level { level: (level > 0).then_some(level), serves_from: (level > 0).then(|| found.serves_from.unwrap_or(FIRST)) };
        let expands = steps.iter().any(|step| step.kind == StepKind::Expand);
        let verdict = match (level, unknown.is_empty(), expands, steps.is_empty()) {
            (0, ..) => Verdict::Empty,
            (_, false, ..) => Verdict::Ahead,
            (_, true, true, _) => Verdict::Expand,
            (_, true, false, false) => Verdict::Contract,
            (_, true, false, true) => Verdict::Current,
        };
        let may_serve = !expands && schema.serves_from.is_some_and(|from| from <= self.release);
        let words = self.words(verdict, may_serve, &schema, &steps, &unknown);
        Plan { release: self.release, schema, target: self.target(), steps, verdict, may_serve, words }
    }

    fn target(&self) -> Level {
        let level = self.rooms.iter().map(|room| room.migrations.len()).sum();
        let latest = self.rooms.iter().flat_map(|room| room.contracting.values().copied()).max();
        Level { level: Some(level), serves_from: Some(latest.unwrap_or(FIRST)) }
    }

    fn words(&self, verdict: Verdict, may_serve: bool, schema: &Level, steps: &[Step], unknown: &[&String]) -> String {
        let own = self.release;
        let from = schema.serves_from.unwrap_or(FIRST);
        let count = |kind| steps.iter().filter(|step| step.kind == kind).count();
        match verdict {
            Verdict::Empty => "the database is empty; heyuan migrate fills it".into(),
            Verdict::Current => "the schema is this release's own".into(),
            Verdict::Expand => {
                let first = steps.iter().find(|step| step.kind == StepKind::Expand).map_or("", |step| step.name.as_str());
                format!("{} expanding steps are missing, the first is {first}; run heyuan migrate first", count(StepKind::Expand))
            }
            Verdict::Contract => format!(
                "{} contracting steps are missing; run heyuan migrate --contract once no release before {} runs or is gone back to",
                count(StepKind::Contract),
                self.target().serves_from.unwrap_or(FIRST)
            ),
            Verdict::Ahead if may_serve => {
                format!(
                    "a later release has made {} steps that {own} does not know; it may serve, for the schema serves from {from}",
                    unknown.len()
                )
            }
            Verdict::Ahead if from > own => {
                format!("the schema serves from release {from}, and this is {own}; serve with that release or a later one")
            }
            Verdict::Ahead => {
                let lacks = steps.first().map_or("", |step| step.name.as_str());
                let first = unknown.first().map_or("", |name| name.as_str());
                format!(
                    "the schema has {first}, which {own} does not know, and lacks {lacks}, which it needs; serve with the release that made it"
                )
            }
        }
    }

    /// Makes what is missing, each step in a transaction of its own that also writes which releases may serve. A step waits for a lock of
    /// others no longer than `lock_wait`. `made` hears of each step that stands.
    ///
    /// # Errors
    /// [`Failed`]; what was made before the failure stands.
    pub async fn make(&self, db: &Database, making: Making, lock_wait: Duration, mut made: impl FnMut(Step)) -> Result<(), Failed> {
        let turn = if db.backend() == DbBackend::Postgres { Some(take_turn(db).await?) } else { None };
        let found = self.find(db).await?;
        let plan = self.judge(&found);
        if plan.verdict == Verdict::Ahead && !plan.may_serve {
            return Err(Failed::Refused(plan.words));
        }
        let all = making == Making::All || plan.verdict == Verdict::Empty;
        let wanted: Vec<Step> = plan.steps.into_iter().filter(|step| all || step.kind == StepKind::Expand).collect();
        for room in self.rooms.iter().filter(|room| !wanted.is_empty() && !found.tables.contains(&room.table)) {
            let columns = "(version VARCHAR NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)";
            sql::execute(db.reader(), &format!("CREATE TABLE IF NOT EXISTS {} {columns}", room.table), []).await?;
        }
        for step in wanted {
            match self.make_one(db, &step, lock_wait).await {
                Ok(true) => made(step),
                Ok(false) => {}
                Err(error) => return Err(Failed::Step { step, why: words_of(&error) }),
            }
        }
        if let Some(turn) = turn {
            turn.rollback().await.map_err(Error::from)?;
        }
        Ok(())
    }

    /// Whether it was made now; not if another process was faster.
    async fn make_one(&self, db: &Database, step: &Step, lock_wait: Duration) -> Result<bool, Error> {
        let room = self.rooms.iter().find(|room| room.name == step.room);
        let found = room.and_then(|room| Some((room, room.migrations.iter().find(|one| one.name() == step.name)?)));
        let (room, migration) = found.ok_or(Error::Broken("a step of no room"))?;
        let tx = db.reader().begin().await?;
        if db.backend() == DbBackend::Postgres {
            // A step may take long; what it must not do is stand in a queue that everybody else then waits behind.
            let text = format!("SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = 0", lock_wait.as_millis());
            sea_orm::ConnectionTrait::execute_unprepared(&tx, &text).await?;
        }
        // First, so that on SQLite the transaction begins with a write and waits for its turn instead of failing in the middle.
        let text = format!("INSERT INTO {} (version, applied_at) VALUES ($1, $2) ON CONFLICT DO NOTHING", room.table);
        if sql::execute(&tx, &text, [step.name.as_str().into(), (now_ms() / 1000).into()]).await? == 0 {
            return Ok(false);
        }
        migration.up(&SchemaManager::new(&tx)).await?;
        let from = max(serves_from(&tx).await?.unwrap_or(FIRST), room.contracting.get(step.name.as_str()).copied().unwrap_or(FIRST));
        let text = "INSERT INTO kernel_setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        sql::execute(&tx, text, [SERVES_FROM.into(), from.to_string().into()]).await?;
        if db.backend() == DbBackend::Postgres {
            // A process at rest holds what it read of the schema for good.
            sql::execute(&tx, notices::TELL, [notices::CHANNEL.into(), "schema".into()]).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Why this release may not serve any more on what lies in the database, looked up now by one statement: a step may have been made
    /// beside the running process.
    ///
    /// # Errors
    /// [`Error::Database`]; [`Error::Corrupt`].
    pub async fn refusal(&self, db: &Database) -> Result<Option<String>, Error> {
        let from = serves_from(db.reader()).await?.unwrap_or(FIRST);
        Ok((from > self.release).then(|| format!("the schema serves from release {from}, and this is {}", self.release)))
    }
}

async fn serves_from<C: sql::Connection>(conn: &C) -> Result<Option<Release>, Error> {
    let row = sql::one(conn, "SELECT value FROM kernel_setting WHERE name = $1", [SERVES_FROM.into()]).await?;
    row.map(|row| sql::get::<String>(&row, "value")?.parse()).transpose()
}

async fn tables(db: &Database) -> Result<BTreeSet<String>, Error> {
    let text = match db.backend() {
        DbBackend::Postgres => "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = current_schema()",
        _ => "SELECT name FROM sqlite_master WHERE type = 'table'",
    };
    let rows = sql::all(db.reader(), text, []).await?;
    rows.iter().map(|row| sql::get(row, "name")).collect()
}

/// Holds an advisory lock while it lives, so that two processes don't change one PostgreSQL database at once.
async fn take_turn(db: &Database) -> Result<DatabaseTransaction, Error> {
    let turn = db.reader().begin().await?;
    sql::execute(&turn, "SET LOCAL idle_in_transaction_session_timeout = 0", []).await?;
    sql::execute(&turn, "SELECT pg_advisory_xact_lock($1)", [TURN.into()]).await?;
    Ok(turn)
}

/// The database's own words, which ours would hide.
fn words_of(error: &Error) -> String {
    match error {
        Error::Database(DbErr::Conn(why) | DbErr::Exec(why) | DbErr::Query(why)) => why.to_string(),
        Error::Database(other) => other.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::SqlMigration;
    use sea_orm_migration::MigratorTrait;

    struct House;

    #[async_trait::async_trait]
    impl MigratorTrait for House {
        fn migrations() -> Vec<Box<dyn MigrationTrait>> {
            ["m1", "m2", "m3", "m4"].into_iter().map(|name| Box::new(SqlMigration { name, up: "" }) as Box<dyn MigrationTrait>).collect()
        }
    }

    impl Steps for House {
        fn contracting() -> &'static [(&'static str, &'static str)] {
            &[("m3", "0.2.0")]
        }
    }

    fn judged(release: &str, made: &[&str], serves_from: Option<&str>) -> (Verdict, bool, usize) {
        let blueprint = Blueprint::new(release, vec![Room::of::<House>("house")]);
        let table = blueprint.rooms[0].table.clone();
        let found = Found {
            tables: BTreeSet::new(),
            made: BTreeMap::from([(table, made.iter().map(ToString::to_string).collect())]),
            serves_from: serves_from.map(|text| text.parse().expect("a release")),
        };
        let plan = blueprint.judge(&found);
        (plan.verdict, plan.may_serve, plan.steps.len())
    }

    #[test]
    fn a_release_serves_on_what_it_knows_and_on_what_says_so() {
        for (release, made, serves_from, expected) in [
            ("0.3.0", &[][..], None, (Verdict::Empty, false, 4)),
            ("0.3.0", &["m1"], Some("0.1.0"), (Verdict::Expand, false, 3)),
            ("0.3.0", &["m1", "m2", "m4"], Some("0.1.0"), (Verdict::Contract, true, 1)),
            ("0.3.0", &["m1", "m2", "m3", "m4"], Some("0.2.0"), (Verdict::Current, true, 0)),
            // A database from before releases were written down.
            ("0.3.0", &["m1", "m2", "m3", "m4"], None, (Verdict::Current, true, 0)),
            ("0.3.0", &["m1", "m2", "m3", "m4", "m5"], Some("0.2.0"), (Verdict::Ahead, true, 0)),
            ("0.3.0-rc.1", &["m1", "m2", "m3", "m4", "m5"], Some("0.3.0"), (Verdict::Ahead, true, 0)),
            ("0.3.0", &["m1", "m2", "m3", "m4", "m5"], Some("0.4.0"), (Verdict::Ahead, false, 0)),
            ("0.3.0", &["m1", "m5"], Some("0.1.0"), (Verdict::Ahead, false, 3)),
        ] {
            assert_eq!(judged(release, made, serves_from), expected, "{release} on {made:?} from {serves_from:?}");
        }
    }

    #[test]
    fn releases_are_in_order_of_their_numbers() {
        let release = |text: &str| text.parse::<Release>().ok();
        assert!(release("0.10.0") > release("0.9.12"));
        assert_eq!(release("0.2.0-rc.1+5"), release("0.2.0"));
        assert!(["", "1", "1.2", "1.2.x", "v1.2.3"].into_iter().all(|text| release(text).is_none()));
    }
}
