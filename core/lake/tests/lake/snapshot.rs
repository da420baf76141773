//! While events arrive, are flushed and are compacted, every query sees each of them exactly once.

use crate::house::House;
use heyuan_harness::for_both_databases;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const EVENTS: i64 = 4_000;
const STEP: i64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_stay_exact_while_events_move() {
    for_both_databases(|place| async {
        let house = House::new(place, |config| {
            config.compaction_flushed_files = 2;
            config.compaction_files = 2;
            config.compaction_rows_min = 300;
        })
        .await;
        let (received, over) = (AtomicI64::new(0), AtomicBool::new(false));
        let moving = async {
            for last in (STEP..=EVENTS).step_by(usize::try_from(STEP).unwrap_or(1)) {
                house.receive(last - STEP + 1..=last).await;
                received.store(last, Ordering::SeqCst);
                if last % (4 * STEP) == 0 {
                    house.flush(last - STEP / 2).await;
                }
                if last % (10 * STEP) == 0 {
                    house.settle("lake compaction").await;
                }
            }
            over.store(true, Ordering::SeqCst);
        };
        let asking = async {
            let mut asked = 0;
            while !over.load(Ordering::SeqCst) {
                let least = received.load(Ordering::SeqCst);
                let answer = house.ask("SELECT count(*), count(DISTINCT position), max(position) FROM events").await;
                let numbers: Vec<i64> = answer.rows[0].iter().map(|value| value.as_i64().unwrap_or(0)).collect();
                let most = received.load(Ordering::SeqCst) + STEP;
                assert!(numbers.iter().all(|number| *number == numbers[0]), "an event is missing or there twice: {numbers:?}");
                assert!((least..=most).contains(&numbers[0]), "{} events are seen of {least} to {most}", numbers[0]);
                asked += 1;
            }
            asked
        };
        let ((), asked) = futures::join!(moving, asking);
        assert!(asked > 3, "only {asked} queries ran meanwhile");
    })
    .await;
}
