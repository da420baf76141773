//! Events are seen once, in order, never past one that can still commit; a bad one is parked with its key.

use crate::tenant::{event, mark, marks, open, other_event};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::DomainEvent;
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::lease::{self, Fence};
use heyuan_kernel::outbox::{self, Envelope};
use heyuan_kernel::processor::{Progress, Task};
use heyuan_kernel::pump::{Apply, Pump, Reaction};
use heyuan_kernel::{Database, Error, Kernel, Problem, Tx, sql};
use sea_orm::TransactionTrait;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Marks what it sees; refuses the numbers that it is told to.
#[derive(Default)]
struct Marker {
    refuses: Mutex<BTreeSet<u64>>,
    /// How many events each group had that was prepared.
    prepared: Mutex<Vec<usize>>,
}

impl Reaction for Marker {
    fn consumer(&self) -> &'static str {
        "test marker"
    }

    fn wants(&self, name: &str) -> bool {
        name == "segment.redefined.v1"
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        async move {
            let DomainEvent::SegmentRedefined { entered, .. } = &envelope.event else { return Ok(heyuan_kernel::pump::nothing()) };
            let number = *entered;
            if self.refuses.lock().expect("no test panics while it holds this").contains(&number) {
                return Err(Problem::invalid("number", "refused by the test"));
            }
            let apply: Apply = Box::new(move |tx| async move { mark(tx, &format!("{number:03}"), 1).await }.boxed());
            Ok(apply)
        }
        .boxed()
    }

    fn prepare<'a>(&'a self, _: &'a Tx, group: &'a [Envelope]) -> BoxFuture<'a, Result<(), Error>> {
        self.prepared.lock().expect("free").push(group.len());
        async { Ok(()) }.boxed()
    }
}

#[tokio::test]
async fn a_group_is_prepared_before_it_is_applied_and_one_event_is_not() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let fence = fence(&kernel).await;
        let marker = Arc::new(Marker::default());
        let pump = Pump::new(kernel.db.clone(), marker.clone());
        let mut numbers = 0..;
        for (keys, expected) in [(vec!["a", "b", "c"], vec![3]), (vec!["a"], vec![3]), (vec!["b", "c"], vec![3, 2])] {
            for (key, number) in keys.into_iter().zip(numbers.by_ref()) {
                emit(&kernel.db, key, event(number)).await;
            }
            while outbox::sequence(&kernel.db, &fence).await.expect("rows are numbered") > 0 {}
            pump.step(&fence).await.expect("the batch is applied");
            assert_eq!(*marker.prepared.lock().expect("free"), expected);
        }
    })
    .await;
}

async fn emit(db: &Database, key: &'static str, event: DomainEvent) {
    let emitted: Result<(), Error> = db
        .write("emit", move |tx| {
            let event = event.clone();
            async move { tx.emit(key, &event).await }.boxed()
        })
        .await;
    emitted.expect("the event is written");
}

async fn fence(kernel: &Kernel) -> Fence {
    lease::acquire(&kernel.db, "processor", "test").await.expect("the lease is read").expect("nobody else holds it")
}

async fn seen(db: &Database) -> Vec<String> {
    marks(db).await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn consumers_see_every_event_once_and_bad_ones_are_parked_with_their_key() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let fence = fence(&kernel).await;
        for number in 0..6 {
            emit(&kernel.db, if number % 2 == 0 { "even" } else { "odd" }, event(number)).await;
        }
        emit(&kernel.db, "even", other_event()).await;
        let marker = Arc::new(Marker::default());
        marker.refuses.lock().expect("free").insert(2);
        let pump = Pump::new(kernel.db.clone(), marker.clone());
        while outbox::sequence(&kernel.db, &fence).await.expect("rows are numbered") > 0 {}
        pump.step(&fence).await.expect("the batch is applied");
        assert_eq!(seen(&kernel.db).await, ["000", "001", "003", "005"], "4 waits behind 2, its key's parked event");
        assert_eq!(outbox::consumer_position(kernel.db.reader(), "test marker").await.expect("read"), 7);
        marker.refuses.lock().expect("free").clear();
        assert_eq!(pump.retry_parked().await.expect("they are tried again"), 2);
        assert_eq!(pump.retry_parked().await.expect("nothing is left"), 0);
        assert_eq!(seen(&kernel.db).await, ["000", "001", "002", "003", "004", "005"]);
        assert_eq!(outbox::sweep(&kernel.db, &["test marker"]).await.expect("swept"), 7);
    })
    .await;
}

#[tokio::test]
async fn events_that_a_consumer_does_not_want_cost_it_no_commit_each() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let fence = fence(&kernel).await;
        let pump = Pump::new(kernel.db.clone(), Arc::new(Marker::default()));
        let step = async || {
            while outbox::sequence(&kernel.db, &fence).await.expect("rows are numbered") > 0 {}
            while pump.step(&fence).await.expect("the batch is applied") == Progress::Busy {}
            outbox::consumer_position(kernel.db.reader(), "test marker").await.expect("read")
        };
        emit(&kernel.db, "k", other_event()).await;
        assert_eq!(step().await, 0, "one that nobody wants is passed by in memory");
        emit(&kernel.db, "k", event(1)).await;
        assert_eq!(step().await, 2, "a wanted one takes the position along");
        assert_eq!(seen(&kernel.db).await, ["001"]);
        let flood = kernel.db.write("test flood", |tx| {
            async move {
                for _ in 0..1_000 {
                    tx.emit("k", &other_event()).await?;
                }
                Ok::<_, Error>(())
            }
            .boxed()
        });
        flood.await.expect("the events are written");
        assert_eq!(step().await, 1_002, "many that nobody wants are written once, so that they can be swept");
        pump.begin_term();
        assert_eq!(step().await, 1_002);
        assert_eq!(seen(&kernel.db).await, ["001"], "nothing is applied twice");
    })
    .await;
}

#[tokio::test]
async fn a_reader_never_passes_a_row_that_can_still_commit() {
    let database = TestDatabase::postgres().await;
    let kernel = open(&database).await;
    let fence = fence(&kernel).await;
    // An older row in a transaction that is still open, then a younger one that is committed.
    let open_transaction = kernel.db.reader().begin().await.expect("a transaction begins");
    let text = "INSERT INTO kernel_outbox (event_key, name, body, written_at) VALUES ('k', $1, $2, 0)";
    let body = serde_json::to_string(&event(1)).expect("an event is JSON");
    sql::execute(&open_transaction, text, [event(1).name().into(), body.into()]).await.expect("the older row is written");
    emit(&kernel.db, "k", event(2)).await;
    outbox::sequence(&kernel.db, &fence).await.expect("rows are numbered");
    let first = outbox::read_after(&kernel.db, 0, 10, |_| true).await.expect("read").events;
    assert_eq!(first.iter().map(|envelope| (envelope.position, envelope.event.clone())).collect::<Vec<_>>(), [(1, event(2))]);
    open_transaction.commit().await.expect("the older row commits");
    outbox::sequence(&kernel.db, &fence).await.expect("rows are numbered");
    let second = outbox::read_after(&kernel.db, 1, 10, |_| true).await.expect("read").events;
    assert_eq!(second.iter().map(|envelope| (envelope.position, envelope.event.clone())).collect::<Vec<_>>(), [(2, event(1))]);
}

#[tokio::test]
async fn a_processor_that_lost_its_lease_writes_nothing() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let old = fence(&kernel).await;
        assert_eq!(lease::acquire(&kernel.db, "processor", "other").await.expect("read"), None, "it has not run out");
        lease::release(&kernel.db, &old).await.expect("it is given up");
        let new = lease::acquire(&kernel.db, "processor", "other").await.expect("read").expect("it is free");
        assert_ne!(old, new);
        emit(&kernel.db, "k", event(1)).await;
        let late = outbox::sequence(&kernel.db, &old).await;
        assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
        assert_eq!(outbox::sequence(&kernel.db, &new).await.expect("the holder may"), 1);
    })
    .await;
}
