//! Spend files: broken rows, encodings, imports again, units.

use crate::world::{World, admin, app, code, key_of, november, unit};
use heyuan_attribution::{GroupBy, PlanUnit, Platform, ReportQuery};
use heyuan_contract::Fen;
use heyuan_harness::for_both_databases;

const BAIDU: &str = "日期,账户,计划ID,计划名称,创意ID,展现,点击,消费\r\n\
    2026-11-01,合院,901,钱塘-常规,31,100,5,12.50\r\n\
    2026-11-01,合院,902,钱塘-开盘,32,100,5,a lot\r\n\
    2026-11-02,合院,901,钱塘-常规,31,80,4,7.50\r\n";

async fn spent(world: &World, group_by: GroupBy) -> Vec<(String, i64)> {
    let report = world.report(ReportQuery { group_by, ..november() }).await;
    assert_eq!(report.totals.spend, Fen(report.rows.iter().map(|row| row.spend.0).sum()));
    report.rows.into_iter().map(|row| (row.key, row.spend.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gbk_file_with_a_broken_row_counts_without_it_and_counts_once() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let gbk = encoding_rs::GBK.encode(BAIDU).0.into_owned();
        let first = world.import_bytes(&admin(), Platform::Baidu, "group", gbk).await.expect("imported");
        assert_eq!((first.rows_accepted, first.rows_replaced, first.rows_refused), (2, 0, 1));
        assert_eq!((first.errors[0].row, first.errors[0].field), (3, "spend"));
        let mended = BAIDU.replace("a lot", "\"1,000.01\"").replace("12.50", "12.51");
        let again = world.import(Platform::Baidu, "group", &mended).await.expect("imported");
        assert_eq!((again.rows_accepted, again.rows_replaced, again.rows_refused), (3, 2, 0));
        assert_eq!(spent(&world, GroupBy::Plan).await, [("baidu/901".into(), 2001), ("baidu/902".into(), 100_001)]);
        assert_eq!(spent(&world, GroupBy::Day).await, [("2026-11-01".into(), 101_252), ("2026-11-02".into(), 750)]);
        let report = world.report(ReportQuery { group_by: GroupBy::Plan, ..november() }).await;
        assert_eq!(report.rows[0].label.as_deref(), Some("钱塘-常规"));
        assert_eq!(world.number("SELECT COUNT(*) AS n FROM attribution_import").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_have_units_and_keys_see_their_own() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.import(Platform::Baidu, "group", &BAIDU.replace("a lot", "5")).await.expect("imported");
        let put = |plan: &str, at: &str| PlanUnit { platform: Platform::Baidu, plan: plan.into(), unit: unit(at) };
        assert_eq!(code(world.attribution.put_plan(&app(), put("901", "river")).await), "forbidden");
        assert_eq!(code(world.attribution.put_plan(&key_of("hill"), put("901", "hill")).await), "forbidden");
        assert_eq!(code(world.attribution.put_plan(&admin(), put("", "river")).await), "invalid_request");
        world.attribution.put_plan(&admin(), put("901", "river")).await.expect("put");
        assert_eq!(spent(&world, GroupBy::Unit).await, [("group".into(), 500), ("river".into(), 2000)]);
        // A file imported later follows the plan's unit; a key of another unit can't take the plan's days over.
        world.import(Platform::Baidu, "group", BAIDU).await.expect("imported");
        assert_eq!(spent(&world, GroupBy::Unit).await, [("group".into(), 500), ("river".into(), 2000)]);
        let foreign = world.import_bytes(&key_of("hill"), Platform::Baidu, "hill", BAIDU.as_bytes().to_vec()).await.expect("read");
        assert_eq!((foreign.rows_accepted, foreign.rows_refused), (0, 3));
        let own = world.attribution.full_chain(&key_of("river"), ReportQuery { group_by: GroupBy::Unit, ..november() }).await;
        assert_eq!(own.expect("a report").totals.spend, Fen(2000));
        assert_eq!(code(world.import_bytes(&key_of("hill"), Platform::Baidu, "river", Vec::new()).await), "forbidden");
        assert_eq!(code(world.import_bytes(&app(), Platform::Baidu, "river", Vec::new()).await), "forbidden");
        assert_eq!(code(world.import(Platform::Baidu, "river", "").await), "unknown_header");
        assert_eq!(code(world.import(Platform::Baidu, "nowhere", BAIDU).await), "invalid_request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_written_in_steps() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let mut text = "时间-天,账户ID,广告计划ID,广告计划名称,创意ID,展示数,点击数,消耗\n".to_owned();
        for row in 0..3_500 {
            text.push_str(&format!("2026-11-{:02},17,{},计划,{row},10,1,0.01\n", row % 30 + 1, row % 40));
        }
        let imported = world.import(Platform::OceanEngine, "river", &text).await.expect("imported");
        assert_eq!((imported.rows_accepted, imported.rows_replaced), (3_500, 0));
        let again = world.import(Platform::OceanEngine, "river", &text).await.expect("imported");
        assert_eq!((again.rows_accepted, again.rows_replaced), (3_500, 3_500));
        assert_eq!(spent(&world, GroupBy::Platform).await, [("ocean_engine".into(), 3_500)]);
    })
    .await;
}
