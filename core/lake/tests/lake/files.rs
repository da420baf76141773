//! Flushing, compacting and sweeping change where events lie, and no answer.

use crate::house::{House, START_MS, event};
use futures::TryStreamExt;
use heyuan_contract::Timestamp;
use heyuan_harness::for_both_databases;
use heyuan_kernel::lease;
use heyuan_kernel::sql;
use heyuan_lake::{Error, EventRow, Scan, ScanOrder};

const EVENTS: i64 = 3_000;

/// Everything that a reader can ask, in one list.
async fn answers(house: &House) -> Vec<String> {
    let mut answers = Vec::new();
    for sql in [
        "SELECT count(*), min(position), max(position), count(DISTINCT message_id) FROM events",
        "SELECT name, unit, day, count(*) AS n FROM events GROUP BY name, unit, day ORDER BY name, unit, day LIMIT 200",
        "SELECT anchor, sum(property_int(properties, 'amount')) FROM events GROUP BY anchor ORDER BY anchor",
        "SELECT * FROM events WHERE anchor = 'idn_7' AND occurred_at >= '2026-10-01T00:00:00Z' ORDER BY position",
        "SELECT count(*) FROM events WHERE property(properties, 'unit_type') = '三居' AND position > 1500",
    ] {
        answers.extend(house.lines(sql).await);
    }
    let anchors = ["idn_7".to_owned(), "idn_21".to_owned()];
    let mut before = None;
    loop {
        let page = house.lake.events_of(&anchors, before, 25).await.expect("a timeline is read");
        let Some(last) = page.last() else { break };
        before = Some(last.position);
        answers.extend(page.iter().map(|row| format!("{row:?}")));
    }
    for order in [ScanOrder::Position, ScanOrder::Anchor] {
        answers.extend(scanned(house, order).await.iter().map(|row| format!("{row:?}")));
    }
    answers
}

async fn scanned(house: &House, order: ScanOrder) -> Vec<EventRow> {
    let scan = Scan {
        position_max: EVENTS - 100,
        occurred_from: START_MS - 60 * 86_400_000,
        occurred_until: START_MS,
        names: vec!["order_paid".to_owned(), "visit".to_owned()],
        order,
    };
    let batches: Vec<Vec<EventRow>> = house.lake.scan(scan).await.expect("a scan begins").try_collect().await.expect("a scan ends");
    batches.concat()
}

#[tokio::test]
async fn a_flush_changes_no_answer() {
    for_both_databases(|place| async {
        let house = House::new(place, |_| {}).await;
        house.receive(1..=EVENTS).await;
        let before = answers(&house).await;
        assert!(before[0] == format!("[{EVENTS},1,{EVENTS},{EVENTS}]"), "{}", before[0]);
        for to in [1, 1_700, EVENTS] {
            house.flush(to).await;
            assert!(answers(&house).await == before, "an answer changed with the flush up to {to}");
        }
        assert_eq!(house.catalogued().await, (3, 0));
    })
    .await;
}

#[tokio::test]
async fn what_is_read_is_what_was_flushed() {
    for_both_databases(|place| async {
        let house = House::new(place, |_| {}).await;
        house.receive(1..=EVENTS).await;
        house.flush(EVENTS).await;
        let timeline = house.lake.events_of(&["idn_7".to_owned()], Some(2_000), 10).await.expect("a timeline is read");
        let newest: Vec<EventRow> = (1..2_000).rev().map(event).filter(|row| row.anchor == "idn_7").take(10).collect();
        assert_eq!(timeline, newest);
        let mut expected: Vec<EventRow> = (1..=EVENTS - 100).map(event).collect();
        expected.retain(|row| {
            ["order_paid", "visit"].contains(&row.name.as_str()) && (START_MS - 60 * 86_400_000..START_MS).contains(&row.occurred_at)
        });
        assert_eq!(scanned(&house, ScanOrder::Position).await, expected);
        expected.sort_by(|a, b| (&a.anchor, a.occurred_at, &a.message_id).cmp(&(&b.anchor, b.occurred_at, &b.message_id)));
        assert_eq!(scanned(&house, ScanOrder::Anchor).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_flush_that_does_not_fit_changes_nothing() {
    for_both_databases(|place| async {
        let house = House::new(place, |_| {}).await;
        house.receive(1..=100).await;
        house.flush(50).await;
        let rows = || (51..=100).map(event).collect::<Vec<_>>();
        let stale = house.lake.flush(&house.fence, 40, 100, rows()).await;
        assert!(matches!(stale, Err(Error::Rows { .. })) || matches!(stale, Err(Error::Kernel(_))), "{stale:?}");
        let stale = house.lake.flush(&house.fence, 49, 100, rows()).await;
        assert!(matches!(stale, Err(Error::Kernel(heyuan_kernel::Error::Stale(_)))), "{stale:?}");
        assert!(matches!(house.lake.flush(&house.fence, 50, 99, rows()).await, Err(Error::Rows { .. })));
        assert!(matches!(house.lake.flush(&house.fence, 50, 50, Vec::new()).await, Err(Error::Rows { .. })));
        lease::release(&house.kernel.db, &house.fence).await.expect("the lease is given up");
        lease::acquire(&house.kernel.db, "processor", "another").await.expect("the lease is read").expect("it is free");
        let lost = house.lake.flush(&house.fence, 50, 100, rows()).await;
        assert!(matches!(lost, Err(Error::Kernel(heyuan_kernel::Error::LeaseLost(_)))), "{lost:?}");
        assert_eq!(house.lines("SELECT count(*), max(position) FROM events").await, ["[100,100]"]);
        assert_eq!((house.stored().len(), house.catalogued().await), (1, (1, 0)));
    })
    .await;
}

#[tokio::test]
async fn a_file_that_was_never_registered_counts_for_nothing_and_is_swept() {
    for_both_databases(|place| async {
        let house = House::new(place, |config| config.orphan_grace_ms = 0).await;
        house.receive(1..=200).await;
        house.flush(100).await;
        let registered = house.stored();
        // As a process leaves it that is killed between the file and its registration.
        let left = house.folder.join("0123456789abcdef.parquet");
        std::fs::copy(house.folder.join(&registered[0]), &left).expect("the file is copied");
        assert_eq!(house.lines("SELECT count(*), count(DISTINCT position) FROM events").await, ["[200,200]"]);
        assert_eq!(house.stored().len(), 2);
        house.settle("lake sweep").await;
        assert_eq!(house.stored(), registered);
        house.flush(200).await;
        assert_eq!(house.lines("SELECT count(*), count(DISTINCT position) FROM events").await, ["[200,200]"]);
    })
    .await;
}

#[tokio::test]
async fn compaction_changes_no_answer_and_replaced_files_outlive_their_readers() {
    for_both_databases(|place| async {
        let house = House::new(place, |config| {
            config.compaction_flushed_files = 3;
            config.compaction_files = 2;
            config.compaction_rows_min = 400;
            config.file_rows_max = 60;
            config.sweep_every_ms = 0;
        })
        .await;
        house.receive(1..=EVENTS).await;
        let before = answers(&house).await;
        for to in (100..=EVENTS).step_by(100) {
            house.flush(to).await;
            if to % 700 == 0 {
                house.settle("lake compaction").await;
            }
        }
        house.settle("lake compaction").await;
        assert!(answers(&house).await == before, "an answer changed with compaction");
        let (_, replaced) = house.catalogued().await;
        let text = "SELECT count(*) AS cut FROM lake_file WHERE replaced_at IS NULL AND bucket IS NOT NULL";
        let row = sql::one(house.kernel.db.reader(), text, []).await.expect("the catalogue is read").expect("a count has a row");
        assert!(sql::get::<i64>(&row, "cut").expect("a count") >= 32 && replaced > 0);

        // Within the grace replaced files stay, and while there is a pin, those that were replaced after it was made.
        assert_eq!(house.settle("lake sweep").await, 0);
        house.flush_more(EVENTS + 1, 2).await;
        let old = house.lake.pin("test", 100_000_000).await.expect("files are pinned");
        house.flush_more(EVENTS + 3, 1).await;
        assert!(house.settle("lake compaction").await > 0);
        house.clock.set(Timestamp::clamped(START_MS + 3_600_000));
        house.settle("lake sweep").await;
        let (current, pinned) = house.catalogued().await;
        assert_eq!(pinned, 3, "of all replaced files, those replaced after the pin stay");
        old.release().await.expect("the pin is released");
        house.settle("lake sweep").await;
        assert_eq!(house.catalogued().await, (current, 0));
        assert_eq!(i64::try_from(house.stored().len()).ok(), Some(current));
        assert_eq!(house.lines("SELECT count(*), count(DISTINCT position) FROM events").await, [format!("[{0},{0}]", EVENTS + 3)]);
    })
    .await;
}

impl House {
    /// Receives and flushes events one by one.
    async fn flush_more(&self, first: i64, count: i64) {
        for position in first..first + count {
            self.receive(position..=position).await;
            self.flush(position).await;
        }
    }
}
