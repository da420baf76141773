//! Purchases that are reported at once: posted together, and each as if it were alone.

use crate::world::{code, purchase, refund, world};
use futures::future::join_all;
use heyuan_harness::for_both_databases;
use heyuan_membership::{Report, TransactionView};
use std::collections::HashMap;

const MEMBERS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn purchases_at_once_each_end_as_if_alone() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.activate("bonus", "points 40").await;
        let mut members = Vec::new();
        for n in 0..MEMBERS {
            members.push(world.join(&format!("m{n}")).await);
        }
        let blocked = world.join("blocked").await;
        world.membership.block(&world.admin, &blocked, "asked to").await.expect("it is blocked");
        // Came before its purchase.
        world.report(&refund("r0", "t0", "mall-1", 400)).await.expect("it waits");
        let mut reports: Vec<Report> = Vec::new();
        for (n, member) in members.iter().enumerate() {
            reports.push(purchase(&format!("t{n}"), "mall-1", 1_000, member));
            // Two of one member, and one that lifts it.
            reports.push(purchase(&format!("u{n}"), "hotel-1", if n % 8 == 3 { 20_000_000 } else { 300 }, member));
        }
        reports.push(purchase("b1", "mall-1", 500, &blocked));
        // The same id of two members: one of them has it.
        reports.push(purchase("same", "mall-1", 700, &members[1]));
        reports.push(purchase("same", "mall-1", 900, &members[2]));
        // The same report twice, under two keys.
        reports.push(reports[5].clone());
        let keys: Vec<String> = (0..reports.len()).map(|n| format!("key-{n}")).collect();
        let asked = reports.iter().zip(&keys).map(|(report, key)| world.membership.report(&world.app, report, Some(key)));
        let answers = join_all(asked).await;

        let (mut refused, mut points) = (Vec::new(), HashMap::new());
        let mut posted: HashMap<(String, String), TransactionView> = HashMap::new();
        for (report, answer) in reports.iter().zip(answers) {
            match answer {
                Ok(view) => {
                    assert_eq!((&view.id, view.amount), (&report.id, report.amount));
                    drop(posted.insert((view.unit.to_string(), view.id.to_string()), view));
                }
                Err(error) => refused.push((report.id.to_string(), code(error))),
            }
        }
        refused.sort_unstable();
        assert_eq!(refused, [("b1".into(), "member_blocked"), ("same".into(), "transaction_id_reused")]);
        assert_eq!(posted.len(), MEMBERS * 2 + 1);
        let mut decisions = Vec::new();
        for view in posted.into_values() {
            let member = view.member.expect("a purchase has one");
            *points.entry(member).or_insert(0) += view.points;
            decisions.push(view.decision.expect("it is kept"));
        }
        // What the waiting refund took back of the first purchase, which earned 10 and 40.
        *points.get_mut(&members[0]).expect("it bought") -= 20;
        for member in &members {
            let view = world.membership.member(&world.app, member).await.expect("it is read");
            assert_eq!(view.points, points[member], "{member}");
            assert_eq!(view.points_owed, 0);
            let text = format!("SELECT COUNT(*) AS n FROM membership_member WHERE id = '{member}' AND tier = '{}'", view.tier);
            assert_eq!(world.count(&text).await, 1, "the stored tier is the one that counts");
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_member WHERE tier <> 'silver'").await, 3);
        for decision in decisions {
            assert!(world.membership.rerun(&world.admin, &decision).await.expect("it runs again").same);
        }
        let granted = (MEMBERS as i64 * 2 + 1) * 40;
        assert_eq!(world.count("SELECT points_spent AS n FROM membership_budget").await, granted);
        if database.is_postgres() {
            // The refund that waited is of one unit with its purchase anyway.
            let alone = MEMBERS as i64 * 2 + 1;
            let units = world.count("SELECT COUNT(DISTINCT CAST(xmin AS text)) AS n FROM membership_transaction").await;
            assert!(units < alone, "{units} units of work wrote what {alone} would have written alone");
        }
        world.sound().await;
    })
    .await;
}
