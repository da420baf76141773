//! Event types that are declared by several at once: one wins, and nobody is told that another's declaration is theirs.

use crate::ground::Ground;
use futures::future::join_all;
use heyuan_cdp::{Cdp, Collect, EventType, Mode, Property, codes};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Problem, sql};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Types that are raced for: with so many, some declarations meet.
const ROUNDS: usize = 12;

fn properties(json: Value) -> BTreeMap<String, Property> {
    serde_json::from_value(json).expect("a declaration")
}

/// The wing twice, as two processes have it, each asked twice at the same time: the first pair says one thing, the second another.
async fn race(wings: &[Cdp; 2], name: &str, said: [&BTreeMap<String, Property>; 4]) -> Vec<Result<Arc<EventType>, Problem>> {
    let actor = Actor::system("test");
    let calls = said.into_iter().zip(wings.iter().cycle());
    join_all(calls.map(|(said, wing)| wing.event_types().put(&actor, name, Mode::Open, said.clone()))).await
}

async fn versions(ground: &Ground, name: &str) -> BTreeMap<i64, BTreeMap<String, Property>> {
    let text = "SELECT version, properties FROM cdp_event_type WHERE name = $1";
    let rows = sql::all(ground.kernel.db.reader(), text, [name.into()]).await.expect("the query works");
    let stored = rows.iter().map(|row| {
        let text: String = sql::get(row, "properties").expect("properties");
        (sql::get(row, "version").expect("a version"), serde_json::from_str(&text).expect("what was declared"))
    });
    stored.collect()
}

#[actix_web::test]
async fn of_declarations_that_race_one_wins() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let second = Cdp::open(ground.kernel.clone(), Collect::default(), database.data_dir()).await.expect("the wing opens twice");
        let wings = [ground.cdp.clone(), second];
        let one = properties(json!({ "floor": { "type": "integer" } }));
        let other = properties(json!({ "floor": { "type": "text" } }));
        let mut conflicts = 0;
        for round in 0..ROUNDS {
            let name = format!("lift_taken_{}", char::from(b'a' + u8::try_from(round).expect("few rounds")));
            let said = [&one, &one, &other, &other];
            let answers = race(&wings, &name, said).await;
            let stored = versions(&ground, &name).await;
            for (said, answer) in said.into_iter().zip(&answers) {
                match answer {
                    Ok(declared) => {
                        assert_eq!(&declared.properties, said);
                        assert_eq!(stored.get(&declared.version), Some(said), "{name}: version {} is another's", declared.version);
                    }
                    Err(problem) => {
                        assert_eq!(problem.code(), codes::EVENT_TYPE_CHANGED, "{name}: {problem:?}");
                        conflicts += 1;
                    }
                }
            }
            assert!(answers.iter().any(Result::is_ok), "{name}: nobody won");
            for wing in &wings {
                let listed =
                    wing.event_types().put(&Actor::system("test"), &name, Mode::Open, stored[&(stored.len() as i64)].clone()).await;
                assert_eq!(listed.expect("what is in force changes nothing").version, stored.len() as i64);
            }
            let again = race(&wings, &name, [&properties(json!({})); 4]).await;
            for answer in again {
                assert_eq!(answer.expect("all say the same").version, stored.len() as i64 + 1, "{name}");
            }
        }
        assert!(conflicts > 0, "no two declarations met");
    })
    .await;
}
