//! The plans of statements whose cost must not grow with the book: SQLite walks indexes, sorts nothing and scans no table.

use crate::trail::{self, Trail};
use crate::{Migrator, agreement, expiring, gate, reports, statement, verify};
use heyuan_kernel::sql;
use sea_orm::{ConnectOptions, DbBackend};
use sea_orm_migration::MigratorTrait;

/// What SQLite says that it would do, line by line.
async fn plan(text: &str, values: usize) -> Vec<String> {
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.max_connections(1).sqlx_logging(false);
    let connection = sea_orm::Database::connect(options).await.expect("a database in memory opens");
    Migrator::up(&connection, None).await.expect("the ledger migrates");
    let values = vec![1i64.into(); values];
    let rows = sql::all(&connection, &format!("EXPLAIN QUERY PLAN {text}"), values).await.expect("it is explained");
    rows.iter().map(|row| sql::get(row, "detail").expect("a text")).collect()
}

#[tokio::test]
async fn entries_are_read_along_their_indexes() {
    let walk = verify::entries(DbBackend::Sqlite);
    let [plain, striped] = [false, true].map(|striped| reports::page(DbBackend::Sqlite, striped));
    for (text, values) in
        [(walk.as_str(), 3), (statement::ENTRIES, 3), (statement::TURNOVER, 2), (plain.as_str(), 4), (striped.as_str(), 4)]
    {
        let plan = plan(text, values).await;
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE") || line.starts_with("SCAN ledger")), "{text}: {plan:#?}");
        for index in ["ledger_transfer_debit", "ledger_transfer_credit"] {
            assert!(plan.iter().any(|line| line.starts_with("SEARCH") && line.contains(index)), "{text}: {plan:#?}");
        }
    }
}

#[tokio::test]
async fn stripes_are_compared_along_the_indexes_of_transfers() {
    let plan = plan(agreement::STRIPES, 1).await;
    assert!(!plan.iter().any(|line| line.contains("SCAN ledger")), "{plan:#?}");
    for index in ["ledger_transfer_debit", "ledger_transfer_credit"] {
        assert!(plan.iter().any(|line| line.contains("SEARCH") && line.contains(index)), "{plan:#?}");
    }
}

#[tokio::test]
async fn accounts_and_moves_of_lots_are_checked_along_their_indexes() {
    for (text, values) in [(verify::accounts().as_str(), 2), (verify::MOVES, 2)] {
        let plan = plan(text, values).await;
        // Open holds are few, and have an index of their own.
        let is_bad = |line: &String| line.contains("TEMP B-TREE") || (line.starts_with("SCAN") && !line.starts_with("SCAN h"));
        assert!(!plan.iter().any(is_bad), "{text}: {plan:#?}");
    }
    let plan = plan(&verify::accounts(), 2).await;
    for index in ["ledger_transfer_debit", "ledger_transfer_credit", "ledger_lot_account"] {
        assert!(plan.iter().any(|line| line.starts_with("SEARCH") && line.contains(index)), "{plan:#?}");
    }
}

#[tokio::test]
async fn the_first_period_of_a_unit_is_found_without_reading_its_transfers() {
    let plan = plan(gate::EARLIEST, 1).await;
    assert!(plan.iter().any(|line| line.contains("ledger_transfer_kept")), "{plan:#?}");
    assert!(!plan.iter().any(|line| line.starts_with("SCAN t") && !line.contains("ledger_transfer_kept")), "{plan:#?}");
}

#[tokio::test]
async fn lots_that_expire_are_walked_along_their_index() {
    let plan = plan(expiring::PAGE, 5).await;
    assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE") || line.starts_with("SCAN l")), "{plan:#?}");
    assert!(plan.iter().any(|line| line.starts_with("SEARCH") && line.contains("ledger_lot_expiry")), "{plan:#?}");
}

#[tokio::test]
async fn the_trail_of_a_period_is_walked_along_its_numbers() {
    for (trail, index) in [(Trail::Opened, "ledger_lot_period"), (Trail::Moved, "ledger_lot_move_period")] {
        let plan = plan(&trail::page(trail, 2), 9).await;
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE") || line.starts_with("SCAN")), "{trail:?}: {plan:#?}");
        assert!(plan.iter().any(|line| line.starts_with("SEARCH") && line.contains(index)), "{trail:?}: {plan:#?}");
    }
}
