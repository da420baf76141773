//! The full-chain report: credit along paths of merged customers, bases, windows, nulls, and totals that equal their rows.

use crate::world::{DAY, START, World, ad, app, at, code, key_of, lead, november};
use heyuan_attribution::{Basis, Cost, Counts, FullChain, GroupBy, MILLION, Model, Platform, ReportQuery};
use heyuan_contract::{Fen, LeadStage, Timestamp, Touch};
use heyuan_harness::for_both_databases;
use heyuan_kernel::lease;
use heyuan_kernel::processor::Progress;

fn leads_of(report: &FullChain) -> Vec<(&str, i64)> {
    report.rows.iter().map(|row| (row.key.as_str(), row.counts.leads)).collect()
}

fn check_totals(report: &FullChain) {
    let sum = |part: fn(&Counts) -> i64| report.rows.iter().map(|row| part(&row.counts)).sum::<i64>();
    let totals = &report.totals.counts;
    let parts = [
        (totals.leads, sum(|c| c.leads)),
        (totals.invited, sum(|c| c.invited)),
        (totals.visited, sum(|c| c.visited)),
        (totals.subscribed, sum(|c| c.subscribed)),
        (totals.contracted, sum(|c| c.contracted)),
        (totals.cancelled, sum(|c| c.cancelled)),
        (totals.net_contracts, sum(|c| c.net_contracts)),
    ];
    for (total, sum) in parts {
        assert_eq!(total, sum);
        assert_eq!(total % MILLION, 0, "a total is a number of whole results");
    }
    assert_eq!(report.totals.spend.0, report.rows.iter().map(|row| row.spend.0).sum::<i64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_credit_the_touches_of_all_anchors_of_a_customer() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.touched("m1", "device", 1, ad("baidu", "901", None)).await;
        world.touched("m2", "openid", 2, ad("ocean_engine", "17", None)).await;
        world.touched("m3", "phone", 3, Touch { source: Some("direct".into()), ..Touch::default() }).await;
        world.touched("m4", "openid", 5, ad("tencent_ads", "5", None)).await;
        world.touched("m5", "stranger", 3, ad("tencent_ads", "5", None)).await;
        world.lead("l", "phone", 4, None).await;
        // Before the merge only what the phone itself did counts.
        let alone = world.report(ReportQuery { model: Model::First, ..november() }).await;
        assert_eq!(leads_of(&alone), [("direct", MILLION)]);
        world.same_customer("cus_1", &["device", "openid", "phone"]);
        for (model, expected) in [
            (Model::First, vec![("baidu", MILLION)]),
            (Model::Last, vec![("direct", MILLION)]),
            (Model::LastNonDirect, vec![("ocean_engine", MILLION)]),
            (Model::Linear, vec![("baidu", 333_334), ("direct", 333_333), ("ocean_engine", 333_333)]),
        ] {
            let report = world.report(ReportQuery { model, ..november() }).await;
            assert_eq!(leads_of(&report), expected, "{model:?}");
            check_totals(&report);
        }
        let narrow = world.report(ReportQuery { model: Model::First, window_days: 2, ..november() }).await;
        assert_eq!(leads_of(&narrow), [("direct", MILLION)], "the touch exactly two days before is out");
        let plans = world.report(ReportQuery { model: Model::First, group_by: GroupBy::Plan, ..november() }).await;
        assert_eq!(leads_of(&plans), [("baidu/901", MILLION)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_click_that_a_lead_names_ties_it_to_its_touch() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        // The click was seen on a device that was never joined to the phone.
        world.touched("m1", "device", 1, ad("baidu", "901", Some("bd-1"))).await;
        world.touched("m2", "p1", 2, ad("ocean_engine", "17", None)).await;
        world.lead("l1", "p1", 3, Some("bd-1")).await;
        assert_eq!(leads_of(&world.report(november()).await), [("baidu", MILLION)]);
        let linear = ReportQuery { model: Model::Linear, ..november() };
        assert_eq!(leads_of(&world.report(linear.clone()).await), [("baidu", 500_000), ("ocean_engine", 500_000)]);
        // Joined, the touch counts once.
        world.same_customer("cus_1", &["device", "p1"]);
        assert_eq!(leads_of(&world.report(linear.clone()).await), [("baidu", 500_000), ("ocean_engine", 500_000)]);
        // The visit was never seen: what the form told stands in.
        let mut told = lead("l2", "p2", 3, Some("gdt-1"));
        told.touch = Some(ad("tencent_ads", "5", Some("gdt-1")));
        world.attribution.submit_lead(&app(), Some("k2"), told).await.expect("submitted");
        assert_eq!(leads_of(&world.report(november()).await), [("baidu", MILLION), ("tencent_ads", MILLION)]);
        check_totals(&world.report(linear).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spend_without_results_and_results_without_spend_both_appear() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let file = "日期,账户,计划ID,创意ID,展现,点击,消费\n2026-11-01,a,901,1,1,1,30.00\n2026-11-02,a,902,1,1,1,10.01\n2026-12-01,a,902,1,1,1,9\n";
        world.import(Platform::Baidu, "river", file).await.expect("imported");
        for (index, day) in [2, 3, 4].into_iter().enumerate() {
            let phone = format!("p{index}");
            world.touched(&format!("m{index}"), &phone, 1, ad("baidu", "901", None)).await;
            world.lead(&format!("l{index}"), &phone, day, None).await;
        }
        world.lead("walk-in", "p9", 5, None).await;
        world.advance("l0", LeadStage::Visited, 6, None).await.expect("advanced");
        world.advance("l0", LeadStage::Contracted, 9, None).await.expect("advanced");
        world.advance("l1", LeadStage::Contracted, 9, None).await.expect("advanced");
        world.advance("l1", LeadStage::Cancelled, 40, None).await.expect("advanced");
        let report = world.report(ReportQuery { group_by: GroupBy::Plan, ..november() }).await;
        let rows: Vec<(&str, i64, i64)> = report.rows.iter().map(|row| (row.key.as_str(), row.spend.0, row.counts.leads)).collect();
        assert_eq!(rows, [("baidu/901", 3000, 3 * MILLION), ("baidu/902", 1001, 0), ("direct", 0, MILLION)]);
        check_totals(&report);
        let bought = &report.rows[0];
        assert_eq!((bought.cost_per_lead(1), bought.cost_per_lead(4)), (Cost::Known(Fen(1000)), Cost::Withheld("small_sample")));
        assert_eq!((bought.cost_per_visit(1), bought.cost_per_net_contract(1)), (Cost::Known(Fen(3000)), Cost::Known(Fen(1500))));
        assert_eq!(report.rows[1].cost_per_lead(1), Cost::Withheld("no_result"));
        // By cohort the cancellation in December takes its contract back; by event date it is December's.
        let cohort = world.report(ReportQuery { basis: Basis::Cohort, ..november() }).await;
        assert_eq!((cohort.totals.counts.contracted, cohort.totals.counts.net_contracts), (2 * MILLION, MILLION));
        assert_eq!(report.totals.counts.net_contracts, 2 * MILLION);
        let december = ReportQuery { from: "2026-12-01".parse().expect("a day"), to: "2026-12-31".parse().expect("a day"), ..november() };
        let december = world.report(december).await;
        assert_eq!((december.totals.spend, december.totals.counts.net_contracts), (Fen(900), -MILLION));
        for group_by in GroupBy::ALL {
            for basis in [Basis::Event, Basis::Cohort] {
                let cut = world.report(ReportQuery { group_by, basis, ..november() }).await;
                check_totals(&cut);
                assert_eq!(cut.totals.counts.leads, 4 * MILLION, "{group_by:?} {basis:?}");
            }
        }
        let of_hill = world.attribution.full_chain(&key_of("hill"), november()).await.expect("a report");
        assert!(of_hill.rows.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_the_tenants_and_figures_out_of_range_are_refused() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.lead("l", "p", 0, None).await;
        let by_day = world.report(ReportQuery { group_by: GroupBy::Day, ..november() }).await;
        assert_eq!(leads_of(&by_day), [("2026-11-01", MILLION)], "midnight in Shanghai is the day before in London");
        let day = |text: &str| text.parse().expect("a day");
        for query in [
            ReportQuery { from: day("2026-12-01"), ..november() },
            ReportQuery { from: day("2020-01-01"), ..november() },
            ReportQuery { to: day("9999-12-31"), ..november() },
            ReportQuery { window_days: 0, ..november() },
            ReportQuery { window_days: 366, ..november() },
            ReportQuery { min_sample: 0, ..november() },
        ] {
            assert_eq!(
                code(world.attribution.full_chain(&crate::world::admin(), query.clone()).await.map(|_| ())),
                "invalid_request",
                "{query:?}"
            );
        }
        assert_eq!(code(world.attribution.full_chain(&app(), november()).await.map(|_| ())), "forbidden");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_touchpoints_are_let_go() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.touched("old", "p", 0, ad("baidu", "901", None)).await;
        world.touched("young", "p", 2, ad("baidu", "901", None)).await;
        world.clock.set(Timestamp::clamped(START + 801 * DAY));
        let fence = lease::acquire(&world.kernel.db, "processor", "test").await.expect("read").expect("free");
        let task = world.attribution.tasks().remove(0);
        while task.step(&fence).await.expect("a step") == Progress::Busy {}
        assert_eq!(world.number("SELECT COUNT(*) AS n FROM attribution_touch").await, 1);
        assert_eq!(at(2).ms(), world.number("SELECT MIN(occurred_at) AS n FROM attribution_touch").await);
    })
    .await;
}
