//! Orders that points pay in part or whole: set aside when they are placed, told when they are paid, free again when they are not.

use crate::world::{MINUTE, POINTS, World, admin, app, cart, code, product};
use futures::future::join_all;
use heyuan_contract::{DomainEvent, Fen, OrderPoints, Points};
use heyuan_harness::for_both_databases;
use heyuan_kernel::Problem;
use heyuan_kernel::config::Secret;
use heyuan_mall::{Checkout, PlaceOrder, RefundRequest, Settings};

impl World {
    async fn place_with(&self, lines: &[(&str, i64)], points: i64, key: &str) -> Result<Checkout, Problem> {
        Ok(self.mall.place(&app(), Some(key), PlaceOrder { points, ..cart(lines, 0) }).await?)
    }

    /// What the events of this name say of points, by order.
    async fn points_told(&self, name: &str) -> Vec<(String, i64)> {
        let told = self.told().await;
        let points = |envelope: &heyuan_kernel::outbox::Envelope| match &envelope.event {
            DomainEvent::OrderPaid { order, points: Some(OrderPoints { points, .. }), .. }
            | DomainEvent::OrderExpired { order, points: Some(OrderPoints { points, .. }), .. }
            | DomainEvent::OrderRefunded { order, points: Some(points), .. } => Some((order.to_string(), points.0)),
            _ => None,
        };
        told.iter().filter(|envelope| envelope.event.name() == name).filter_map(points).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_pay_their_part_of_each_order_and_the_gateway_the_rest() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        // 3 books of 10 yuan and a tea of 19.99: 49.99 yuan, of which 1,000 points pay 10.
        let placed = world.place_with(&[("book", 3), ("tea-voucher", 1)], 1_000, "c1").await.expect("placed");
        let parts: Vec<_> = placed.orders.iter().map(|order| (order.amount.0, order.by_points.points, order.by_points.fen.0)).collect();
        assert_eq!(parts, [(2_400, 600, 600), (1_599, 400, 400)]);
        assert_eq!((placed.payment.amount, placed.payment.by_points.points), (Fen(3_999), 1_000));
        assert_eq!(world.members.aside(), 1_000);
        world.notify("e1", "payment.succeeded", &placed.payment.id, 3_999).await.expect("the payment is taken");
        let mut told = world.points_told("order.paid.v1").await;
        let mut expected: Vec<_> = placed.orders.iter().map(|order| (order.id.to_string(), order.by_points.points)).collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
        // The merchant gets its share of the whole price, whoever paid it: 30 yuan less 8 %.
        let statement = world.mall.statement(&admin(), &"books".parse().expect("an id"), "2026-11").await.expect("it is read");
        assert_eq!((statement.sales_amount, statement.payable), (Fen(3_000), Fen(2_760)));
        // What goes back adds up to the point and the fen, however it is split.
        let order = &placed.orders[0].id;
        let (mut points, mut fen) = (0, 0);
        for (key, pieces) in [("r1", 1), ("r2", 2)] {
            let request = RefundRequest { lines: vec![(product("book"), pieces)], reason: "wrong".into() };
            let refund = world.mall.refund(&app(), Some(key), order, request.clone()).await.expect("refunded");
            assert_eq!(world.mall.refund(&app(), Some(key), order, request).await.expect("answered again"), refund);
            (points, fen) = (points + refund.by_points.points, fen + refund.amount.0);
        }
        assert_eq!((points, fen), (600, 2_400));
        assert_eq!(world.points_told("order.refunded.v1").await.iter().map(|(_, points)| points).sum::<i64>(), 600);
        let statement = world.mall.statement(&admin(), &"books".parse().expect("an id"), "2026-11").await.expect("it is read");
        assert_eq!((statement.refunds_amount, statement.payable, statement.balance), (Fen(3_000), Fen(0), Fen(0)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_that_points_pay_wholly_is_paid_at_once() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let answers = join_all((0..6).map(|_| world.place_with(&[("book", 2)], 2_000, "whole"))).await;
        let first = answers[0].as_ref().expect("placed");
        assert!(answers.iter().all(|answer| answer.as_ref() == Ok(first)), "{answers:?}");
        assert_eq!((first.payment.state.as_str(), first.payment.amount), ("paid", Fen(0)));
        assert_eq!(world.points_told("order.paid.v1").await, [(first.orders[0].id.to_string(), 2_000)]);
        assert_eq!(world.members.aside(), 2_000, "set aside once");
        let whole = RefundRequest { lines: vec![], reason: "wrong".into() };
        let refund = world.mall.refund(&app(), Some("r"), &first.orders[0].id, whole).await.expect("refunded");
        assert_eq!((refund.amount, refund.by_points.points), (Fen(0), 2_000));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_paid_sets_its_points_free() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        for (lines, points, expected) in [
            (vec![("book", 1)], -1, "invalid_request"),
            (vec![("book", 1)], 1_001, "invalid_request"),
            (vec![("book", 60)], POINTS + 1, "invalid_request"),
            (vec![("robot", 1), ("book", 101)], 1_000, "sold_out"),
        ] {
            assert_eq!(code(world.place_with(&lines, points, &world.key()).await), expected, "{lines:?} with {points}");
        }
        assert_eq!(world.members.aside(), 0, "nothing stays set aside for a cart that is not there");
        let placed = world.place_with(&[("book", 5)], 1_500, "late").await.expect("placed");
        world.pass(16 * MINUTE);
        world.work("mall order expiry").await;
        assert_eq!(world.points_told("order.expired.v1").await, [(placed.orders[0].id.to_string(), 1_500)]);
        // The money that comes too late goes back, since the points are no longer set aside.
        world.notify("e1", "payment.succeeded", &placed.payment.id, 3_500).await.expect("recorded");
        assert_eq!(world.payment_state(&placed.payment.id).await, "returned");
        assert_eq!(world.stock("book").await, 100);
        assert_eq!(world.points_told("order.paid.v1").await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mall_may_take_no_points_or_more_of_them_for_a_yuan() {
    for_both_databases(async |place| {
        let settings = |points_a_yuan| Settings { payment_secret: Some(Secret::new("s")), points_a_yuan, ..Settings::default() };
        let world = World::with(place, settings(250)).await;
        assert_eq!(code(world.place_with(&[("book", 1)], 1, "odd").await), "invalid_request", "not a whole fen");
        let placed = world.place_with(&[("book", 1), ("pen", 1)], 1_000, "even").await.expect("placed");
        let parts: Vec<_> = placed.orders[0].parts.iter().map(|part| (part.by_points.points, part.by_points.fen.0)).collect();
        assert_eq!((parts.as_slice(), placed.payment.amount), ([(750, 300), (250, 100)].as_slice(), Fen(933)));
        assert_eq!(placed.orders[0].by_points.points, Points(1_000).0);
    })
    .await;
}
