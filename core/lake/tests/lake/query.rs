//! What a query may do, and how far.

use crate::house::House;
use heyuan_contract::OrgUnitId;
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::{Actor, Problem, Reach, Scope};
use heyuan_lake::{Error, QueryOptions};
use serde_json::json;
use std::sync::Arc;

async fn problem(house: &House, sql: &str, options: QueryOptions) -> (String, String) {
    match house.lake.query(&Actor::system("test"), sql, options).await {
        Ok(table) => panic!("{sql} was answered: {table:?}"),
        Err(error) => {
            let problem = Problem::from(error);
            (problem.code().code.to_owned(), problem.detail().to_owned())
        }
    }
}

#[tokio::test]
async fn answers_are_typed() {
    for_both_databases(|place| async {
        let house = House::new(place, |_| {}).await;
        house.receive(1..=20).await;
        house.flush(10).await;
        let sql = "SELECT position, name, unit, occurred_at, day, identifiers, property_int(properties, 'amount') AS amount,
                     property(properties, 'unit_type') AS unit_type, CAST(1 AS DECIMAL(10,2)) AS price, 0.5 AS half, true AS yes
                   FROM events WHERE position = $1 AND name = $2";
        let options = QueryOptions { params: vec![json!(6), json!("visit")], limit: Some(1) };
        let table = house.lake.query(&Actor::system("test"), sql, options).await.expect("the query is answered");
        let columns: Vec<String> = table.columns.iter().map(|column| format!("{} {}", column.name, column.r#type)).collect();
        assert_eq!(
            columns,
            [
                "position bigint",
                "name text",
                "unit text",
                "occurred_at timestamp",
                "day date",
                "identifiers list",
                "amount bigint",
                "unit_type text",
                "price decimal",
                "half double",
                "yes boolean"
            ]
        );
        let expected = json!([[
            6,
            "visit",
            null,
            "2026-10-22T10:00:00.000Z",
            "2026-10-22",
            ["idn_42", "dev_6"],
            9_007_199_254_740_999_i64,
            "三居",
            "1.00",
            0.5,
            true
        ]]);
        assert_eq!(json!(table.rows), expected);
        assert!(!table.truncated);
    })
    .await;
}

#[tokio::test]
async fn statements_that_do_more_than_read_are_refused() {
    let house = House::new(TestDatabase::sqlite(), |_| {}).await;
    house.receive(1..=10).await;
    house.flush(5).await;
    for sql in [
        "",
        "SELECT",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nowhere",
        "SELECT sealed FROM events",
        "SELECT part FROM events",
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET name = 'x'",
        "DELETE FROM events",
        "TRUNCATE TABLE events",
        "CREATE TABLE mine AS SELECT 1",
        "CREATE VIEW events AS SELECT 1",
        "CREATE EXTERNAL TABLE mine STORED AS PARQUET LOCATION '/etc'",
        "CREATE EXTERNAL TABLE mine STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "DROP VIEW events",
        "COPY events TO '/tmp/heyuan-events.csv' STORED AS CSV",
        "COPY (SELECT 1) TO '/tmp/heyuan-events.parquet'",
        "EXPLAIN COPY (SELECT 1) TO '/tmp/heyuan-events.parquet'",
        "EXPLAIN ANALYZE INSERT INTO events SELECT * FROM events",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "SHOW TABLES",
        "SHOW ALL",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM 'lake://events/events/'",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM generate_series(1, 10)",
        "SELECT generate_series(1, 1000000000000)",
        "SELECT range(1, 1000000000000)",
        "SELECT repeat('x', 1000000000000)",
        "SELECT rpad('x', 1000000000, 'y')",
        "SELECT array_repeat('x', 1000000000000)",
        "SELECT position / 0 FROM events",
        "SELECT CAST(name AS BIGINT) FROM events",
        "SELECT $1",
    ] {
        let (code, detail) = problem(&house, sql, QueryOptions::default()).await;
        assert_eq!(code, "invalid_query", "{sql}: {detail}");
        assert!(!detail.is_empty(), "{sql} is refused without a word");
    }
    assert_eq!(house.lines("SELECT count(*) FROM events").await, ["[10]"]);
    assert!(!std::path::Path::new("/tmp/heyuan-events.csv").exists());
}

#[tokio::test]
async fn reading_statements_are_answered() {
    let house = House::new(TestDatabase::sqlite(), |_| {}).await;
    house.receive(1..=10).await;
    house.flush(5).await;
    for (sql, rows) in [
        ("SELECT 1", 1),
        ("WITH e AS (SELECT * FROM events) SELECT name, count(*) FROM e GROUP BY name", 5),
        ("SELECT * FROM events ORDER BY position DESC", 10),
        ("SELECT position FROM events WHERE name = 'visit' UNION ALL SELECT 1", 3),
        ("SELECT name, row_number() OVER (PARTITION BY anchor ORDER BY occurred_at) FROM events", 10),
        ("SELECT date_trunc('month', occurred_at), count(*) FROM events GROUP BY 1 HAVING count(*) > 100", 0),
        ("DESCRIBE events", 12),
        ("EXPLAIN SELECT count(*) FROM events", 2),
    ] {
        let table = house.ask(sql).await;
        assert_eq!(table.rows.len(), rows, "{sql}: {:?}", table.rows);
    }
}

#[tokio::test]
async fn deep_expressions_are_answered_or_refused() {
    let house = House::new(TestDatabase::sqlite(), |_| {}).await;
    house.receive(1..=10).await;
    let room = 16 << 10;
    let chain = |start: &str, link: &str, end: &str| {
        let links = (room - start.len() - end.len()) / link.len();
        format!("{start}{}{end}", link.repeat(links))
    };
    for sql in [
        chain("SELECT 1", "+1", ""),
        chain("SELECT position", "+1", " FROM events"),
        chain("SELECT * FROM events WHERE position=1", " OR position=2", ""),
        chain("SELECT ", "NOT ", "true"),
        chain("SELECT ", "- ", "1"),
        chain("SELECT 'a'", "||'a'", ""),
        chain("SELECT 1", " UNION ALL SELECT 1", ""),
        chain("SELECT * FROM events", ",events", ""),
        format!("SELECT {}1{}", "(".repeat(room / 2 - 10), ")".repeat(room / 2 - 10)),
    ] {
        let start: String = sql.chars().take(60).collect();
        match house.lake.query(&Actor::system("test"), &sql, QueryOptions { limit: Some(10), ..QueryOptions::default() }).await {
            Ok(table) => assert!(table.rows.len() <= 10, "{start}"),
            Err(Error::Query(_) | Error::Timeout(_) | Error::Memory(_)) => {}
            Err(error) => panic!("{start}: {error}"),
        }
    }
    let chain = format!("SELECT position{} FROM events WHERE name <> '{}' LIMIT 1", "+1".repeat(400), "+".repeat(1_000));
    assert_eq!(house.ask(&chain).await.rows.len(), 1);
    let (code, _) = problem(&house, &format!("SELECT 1 -- {}", "x".repeat(room)), QueryOptions::default()).await;
    assert_eq!(code, "invalid_query");
}

#[tokio::test]
async fn bounds_are_kept() {
    let house = House::new(TestDatabase::sqlite(), |config| {
        config.query_rows_max = 100;
        config.query_bytes_max = 4_000;
        config.query_memory_bytes_max = 4 << 20;
        config.query_timeout_ms = 1_500;
        config.query_slots = 1;
        config.tail_rows_max = 2_000;
    })
    .await;
    house.receive(1..=2_000).await;
    let table = house.ask("SELECT position FROM events").await;
    assert_eq!((table.rows.len(), table.truncated), (100, true));
    let table = house.ask("SELECT * FROM events").await;
    assert!(table.rows.len() < 100 && table.truncated, "the answer is cut by its bytes");
    for limit in [0, 101] {
        let (code, _) = problem(&house, "SELECT 1", QueryOptions { limit: Some(limit), ..QueryOptions::default() }).await;
        assert_eq!(code, "invalid_request");
    }
    for param in [json!(1.5), json!([1]), json!({"a": 1})] {
        let (code, _) = problem(&house, "SELECT $1", QueryOptions { params: vec![param], limit: None }).await;
        assert_eq!(code, "invalid_request");
    }
    let heavy = "SELECT a.properties, b.properties, c.name FROM events a, events b, events c ORDER BY a.properties, b.properties DESC";
    let (code, detail) = problem(&house, heavy, QueryOptions::default()).await;
    assert!(["query_memory", "query_timeout"].contains(&code.as_str()), "{code}: {detail}");
    let wide = "SELECT count(*) FROM (SELECT DISTINCT a.message_id, b.message_id, a.properties FROM events a, events b)";
    let (code, detail) = problem(&house, wide, QueryOptions::default()).await;
    assert_eq!(code, "query_memory", "{detail}");

    let endless = "SELECT count(*) FROM events a, events b, events c WHERE a.position * b.position % 1009 > c.position * 7 % 1013";
    let (code, detail) = problem(&house, endless, QueryOptions::default()).await;
    assert_eq!(code, "query_timeout", "{detail}");
    // The one slot is free again, since the stopped query has really ended; so it is after a caller goes away.
    assert_eq!(house.lines("SELECT 1").await, ["[1]"]);
    let actor = Actor::system("test");
    let left = house.lake.query(&actor, endless, QueryOptions::default());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), left).await.is_err());
    assert_eq!(house.lines("SELECT 1").await, ["[1]"]);

    house.receive(2_001..=2_001).await;
    let (code, _) = problem(&house, "SELECT 1 FROM events", QueryOptions::default()).await;
    assert_eq!(code, "limited");
}

#[tokio::test]
async fn a_key_sees_its_units_alone() {
    for_both_databases(|place| async {
        let house = House::new(place, |_| {}).await;
        house.receive(1..=300).await;
        house.flush(150).await;
        let unit = |id: &str| OrgUnitId::new(id).expect("the id is valid");
        let reach = Reach::Units(Arc::new([unit("prj_1")].into()));
        let key = |scope| Actor::key("key_2".to_owned(), vec![scope], Some(unit("prj_1")), reach.clone());
        for (sql, expected) in [
            ("SELECT count(*), min(unit), max(unit) FROM events", json!([[100, "prj_1", "prj_1"]])),
            ("SELECT count(*) FROM events WHERE unit = 'mall_1' OR unit IS NULL OR true", json!([[100]])),
            ("SELECT count(*) FROM (SELECT * FROM events UNION ALL SELECT * FROM events)", json!([[200]])),
        ] {
            let table = house.lake.query(&key(Scope::Admin), sql, QueryOptions::default()).await.expect("the query is answered");
            assert_eq!(json!(table.rows), expected, "{sql}");
        }
        let refused = house.lake.query(&key(Scope::App), "SELECT 1", QueryOptions::default()).await.map_err(Problem::from);
        assert_eq!(refused.map_err(|problem| problem.code().code), Err("forbidden"));
    })
    .await;
}
