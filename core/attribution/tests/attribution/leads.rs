//! Leads: repeated, advanced in any order, cancelled, erased.

use crate::world::{World, ad, app, at, code, key_of, lead, november, unit};
use heyuan_attribution::{Advance, LeadList};
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Fen, LeadId, LeadStage};
use heyuan_harness::for_both_databases;

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_is_taken_once_and_holds_no_phone() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let submit =
            async |key: &str, id: &str, day| world.attribution.submit_lead(&app(), Some(key), lead(id, "13800001234", day, None)).await;
        let answers = futures::future::join_all((0..6).map(|_| submit("k1", "lead-1", 3))).await;
        let first = answers[0].as_ref().expect("submitted");
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|lead| lead == first)), "{answers:?}");
        assert_eq!(&submit("k2", "lead-1", 3).await.expect("the same lead by another key"), first);
        assert_eq!(code(submit("k1", "lead-1", 4).await), "idempotency_key_reused");
        assert_eq!(code(submit("k3", "lead-1", 4).await), "lead_exists");
        assert_eq!(world.told_of("lead.advanced.v1").await, 1);
        assert_eq!(code(world.attribution.lead(&key_of("hill"), &first.id).await), "not_found");
        let of_hill = world.attribution.leads(&key_of("hill"), LeadList::default(), None, 10).await.expect("listed");
        assert!(of_hill.is_empty());
        assert_eq!(world.attribution.leads(&key_of("river"), LeadList::default(), None, 10).await.expect("listed").len(), 1);
        let mut elsewhere = lead("lead-2", "13800001234", 3, None);
        elsewhere.unit = unit("river");
        assert_eq!(code(world.attribution.submit_lead(&key_of("hill"), Some("k4"), elsewhere).await), "forbidden");
        let columns = "COALESCE(touch, '') || digest || idempotency || COALESCE(click_id, '')";
        let held = format!("SELECT COUNT(*) AS n FROM attribution_lead WHERE {columns} LIKE '%13800001234%'");
        assert_eq!(world.number(&held).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_may_be_skipped_told_late_and_repeated() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.lead("l", "1", 1, None).await;
        assert_eq!(code(world.advance("l", LeadStage::Lead, 2, None).await), "invalid_request");
        assert_eq!(code(world.advance("l", LeadStage::Visited, 0, None).await), "invalid_request");
        assert_eq!(code(world.advance("l", LeadStage::Cancelled, 2, None).await), "nothing_to_cancel");
        assert_eq!(code(world.advance("none", LeadStage::Visited, 2, None).await), "not_found");
        world.advance("l", LeadStage::Visited, 3, None).await.expect("advanced");
        let late = world.advance("l", LeadStage::Invited, 2, None).await.expect("told late");
        assert_eq!(late.stage, LeadStage::Visited);
        let again = world.advance("l", LeadStage::Invited, 2, None).await.expect("answered again");
        assert_eq!((again.reached.len(), &again), (2, &late));
        assert_eq!(code(world.advance("l", LeadStage::Invited, 3, None).await), "stage_recorded");
        // A subscription that is given up is no contract that is taken back.
        world.advance("l", LeadStage::Subscribed, 4, None).await.expect("advanced");
        world.advance("l", LeadStage::Cancelled, 5, None).await.expect("cancelled");
        let counts = world.report(november()).await.totals.counts;
        assert_eq!((counts.subscribed, counts.cancelled, counts.net_contracts), (1_000_000, 1_000_000, 0));
        assert_eq!(world.told_of("lead.advanced.v1").await, 5);
        let broke = Advance { stage: LeadStage::Contracted, occurred_at: at(6), amount: Some(Fen(-1)), contract: None };
        assert_eq!(code(world.attribution.advance_lead(&app(), &LeadId::new("l").expect("an id"), broke).await), "invalid_request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_may_sign_twice_and_take_one_contract_back() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.lead("l", "1", 1, None).await;
        for contract in ["c1", "c2"] {
            world.advance("l", LeadStage::Contracted, 5, Some(contract)).await.expect("signed");
        }
        world.advance("l", LeadStage::Cancelled, 6, Some("c1")).await.expect("cancelled");
        assert_eq!(code(world.advance("l", LeadStage::Cancelled, 6, Some("c3")).await), "nothing_to_cancel");
        let counts = world.report(november()).await.totals.counts;
        assert_eq!((counts.contracted, counts.cancelled, counts.net_contracts), (2_000_000, 1_000_000, 1_000_000));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_leaves_anonymous_counts() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.touched("m1", "13800001234", 1, ad("baidu", "901", Some("click-1"))).await;
        world.lead("l", "13800001234", 2, Some("click-1")).await;
        assert_eq!(world.report(november()).await.rows[0].key, "baidu");
        let anchor = AnchorId::new("a-13800001234").expect("a valid id");
        let customer = CustomerId::new("cus_1").expect("a valid id");
        world.hear(DomainEvent::CustomerErased { customer, anchors: vec![anchor], occurred_at: at(3) }).await;
        let left = "SELECT (SELECT COUNT(*) FROM attribution_touch WHERE anchor IS NOT NULL OR click_id IS NOT NULL)
                      + (SELECT COUNT(*) FROM attribution_lead WHERE anchor IS NOT NULL OR click_id IS NOT NULL OR touch IS NOT NULL) AS n";
        assert_eq!(world.number(left).await, 0);
        assert_eq!(world.report(november()).await.totals.counts.leads, 1_000_000);
        world.advance("l", LeadStage::Visited, 4, None).await.expect("a visit of nobody known");
        assert_eq!(world.told_of("lead.advanced.v1").await, 1);
    })
    .await;
}
