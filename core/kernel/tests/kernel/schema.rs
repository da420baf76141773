//! The schema's contract on real databases: what a release makes, what it leaves behind when it fails, and who may serve.

use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::migration::{SqlMigration, Steps};
use heyuan_kernel::schema::{Blueprint, Failed, Making, Room, Step, StepKind, Verdict};
use heyuan_kernel::{Database, Location};
use sea_orm_migration::prelude::{DynIden, IntoIden};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use std::time::Duration;

const LOCK_WAIT: Duration = Duration::from_millis(200);
const FIRST: SqlMigration = SqlMigration { name: "m1_first", up: "CREATE TABLE house_door (id BIGINT PRIMARY KEY)" };
const WIDER: SqlMigration = SqlMigration { name: "m2_wider", up: "ALTER TABLE house_door ADD COLUMN width BIGINT" };
const NARROWER: SqlMigration = SqlMigration { name: "m3_narrower", up: "ALTER TABLE house_door DROP COLUMN width" };
const BROKEN: SqlMigration =
    SqlMigration { name: "m3_broken", up: "CREATE TABLE house_window (id BIGINT PRIMARY KEY); INSERT INTO house_nothing VALUES (1)" };

/// Declares a house with these steps.
macro_rules! house {
    ($name:ident, [$($step:expr),*], $contracting:expr) => {
        struct $name;

        #[async_trait::async_trait]
        impl MigratorTrait for $name {
            fn migrations() -> Vec<Box<dyn MigrationTrait>> {
                vec![$(Box::new($step)),*]
            }

            fn migration_table_name() -> DynIden {
                "house_migration".into_iden()
            }
        }

        impl Steps for $name {
            fn contracting() -> &'static [(&'static str, &'static str)] {
                $contracting
            }
        }
    };
}

house!(First, [FIRST], &[]);
house!(Second, [FIRST, WIDER], &[]);
house!(Third, [FIRST, WIDER, NARROWER], &[("m3_narrower", "0.2.0")]);
house!(Broken, [FIRST, WIDER, BROKEN], &[]);

fn release<M: Steps>(number: &str) -> Blueprint {
    let kernel = Room::of::<heyuan_kernel::migration::Migrator>("kernel");
    Blueprint::new(number, vec![kernel, Room::of::<M>("house")])
}

async fn open(database: &TestDatabase) -> Database {
    Database::open(&Location::new(database.data_dir(), database.database_url())).await.expect("the test database opens")
}

async fn make(blueprint: &Blueprint, db: &Database, making: Making) -> (Vec<Step>, Result<(), Failed>) {
    let mut made = Vec::new();
    let ended = blueprint.make(db, making, LOCK_WAIT, |step| made.push(step)).await;
    (made, ended)
}

async fn verdict(blueprint: &Blueprint, db: &Database) -> (Verdict, bool) {
    let plan = blueprint.plan(db).await.expect("the schema is read");
    (plan.verdict, plan.may_serve)
}

#[tokio::test]
async fn a_schema_expands_then_contracts_and_tells_who_may_serve() {
    for_both_databases(async |database| {
        let db = open(&database).await;
        let (one, two, three) = (release::<First>("0.1.0"), release::<Second>("0.2.0"), release::<Third>("0.3.0"));
        assert_eq!(verdict(&one, &db).await, (Verdict::Empty, false));
        let (made, ended) = make(&one, &db, Making::Expanding).await;
        ended.expect("an empty database is filled");
        let plan = one.plan(&db).await.expect("the schema is read");
        assert_eq!((plan.verdict, plan.schema, plan.schema.level), (Verdict::Current, plan.target, Some(made.len())));

        // The next release expands; the one before serves on it.
        assert_eq!(verdict(&two, &db).await, (Verdict::Expand, false));
        make(&two, &db, Making::Expanding).await.1.expect("it is expanded");
        assert_eq!((verdict(&two, &db).await, verdict(&one, &db).await), ((Verdict::Current, true), (Verdict::Ahead, true)));

        // The one after that contracts when it is told to, and not before.
        let (made, ended) = make(&three, &db, Making::Expanding).await;
        ended.expect("there is nothing to expand");
        assert_eq!((made.len(), verdict(&three, &db).await), (0, (Verdict::Contract, true)));
        assert_eq!(one.refusal(&db).await.expect("the schema is read"), None);
        let (made, ended) = make(&three, &db, Making::All).await;
        ended.expect("it is contracted");
        assert_eq!(made, [Step { room: "house", name: "m3_narrower".into(), kind: StepKind::Contract }]);
        let verdicts = (verdict(&three, &db).await, verdict(&two, &db).await, verdict(&one, &db).await);
        assert_eq!(verdicts, ((Verdict::Current, true), (Verdict::Ahead, true), (Verdict::Ahead, false)));
        assert!(one.refusal(&db).await.expect("the schema is read").is_some_and(|why| why.contains("0.2.0")));
        let (_, refused) = make(&one, &db, Making::All).await;
        assert!(matches!(refused, Err(Failed::Refused(_))));
    })
    .await;
}

#[tokio::test]
async fn a_step_that_fails_is_undone_and_those_before_it_stand() {
    for_both_databases(async |database| {
        let db = open(&database).await;
        make(&release::<First>("0.1.0"), &db, Making::All).await.1.expect("an empty database is filled");
        let broken = release::<Broken>("0.2.0");
        let (made, ended) = make(&broken, &db, Making::Expanding).await;
        assert_eq!(made, [Step { room: "house", name: "m2_wider".into(), kind: StepKind::Expand }]);
        let Err(Failed::Step { step, why }) = ended else { panic!("it fails: {ended:?}") };
        assert_eq!(step.name, "m3_broken");
        assert!(why.contains("house_nothing"), "{why}");
        // The table that its first statement made is gone, so that the same step can be made once it is right.
        let again = make(&broken, &db, Making::Expanding).await.1;
        assert!(matches!(again, Err(Failed::Step { why, .. }) if why.contains("house_nothing")));
        assert_eq!(verdict(&release::<Second>("0.2.0"), &db).await, (Verdict::Current, true));
        assert_eq!(verdict(&release::<First>("0.1.0"), &db).await, (Verdict::Ahead, true), "the release before goes on");
    })
    .await;
}

#[tokio::test]
async fn a_step_waits_for_a_lock_only_so_long() {
    let database = TestDatabase::postgres().await;
    let db = open(&database).await;
    make(&release::<First>("0.1.0"), &db, Making::All).await.1.expect("an empty database is filled");
    let held = database.hold("LOCK TABLE house_door IN ACCESS SHARE MODE").await;
    let two = release::<Second>("0.2.0");
    let (made, ended) = make(&two, &db, Making::Expanding).await;
    let Err(Failed::Step { step, why }) = ended else { panic!("it fails: {ended:?}") };
    assert_eq!((made.len(), step.name.as_str()), (0, "m2_wider"));
    assert!(why.contains("lock timeout"), "{why}");
    held.release().await;
    make(&two, &db, Making::Expanding).await.1.expect("it is made once nothing stands in its way");
}

#[tokio::test]
async fn processes_that_start_at_once_fill_a_database_once() {
    for_both_databases(async |database| {
        let (first, second) = (open(&database).await, open(&database).await);
        let blueprint = release::<Third>("0.3.0");
        let (one, other) = futures::join!(make(&blueprint, &first, Making::All), make(&blueprint, &second, Making::All));
        one.1.and(other.1).expect("both end well");
        let level = blueprint.plan(&first).await.expect("the schema is read").schema.level;
        assert_eq!(Some(one.0.len() + other.0.len()), level);
    })
    .await;
}
