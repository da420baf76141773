//! The mall's use cases on both databases: stock, payment, vouchers and refunds, raced, repeated, forged and late.

use crate::world::{MINUTE, World, admin, app, app_of, cart, code, member, product, unit};
use futures::future::join_all;
use heyuan_contract::{DomainEvent, Fen, MemberId, OrderId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::Actor;
use heyuan_kernel::outbox::Envelope;
use heyuan_mall::{OrderList, ProductKind, Redeem, RefundRequest, StockChange, Voucher};

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_becomes_one_order_per_merchant_under_one_payment() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let placed = world.place(&[("book", 1), ("tea-voucher", 1), ("book", 2)], 499).await.expect("placed");
        let sold: Vec<(&str, i64, i64)> =
            placed.orders.iter().map(|order| (order.merchant.as_str(), order.parts[0].quantity, order.amount.0)).collect();
        // 4,999 fen less 499, prorated by largest remainder: 299 on the books, 200 on the tea.
        assert_eq!(sold, [("books", 3, 2701), ("tea", 1, 1799)]);
        assert_eq!(placed.payment.amount, Fen(4500));
        assert_eq!(world.stock("book").await, 97);
        let own = Actor::member(member());
        let listed = world.mall.orders(&own, OrderList::default(), None, 10).await.expect("listed");
        assert_eq!(listed, placed.orders);
        let stranger = Actor::member(MemberId::new("mbr_2").expect("a valid id"));
        assert!(world.mall.orders(&stranger, OrderList::default(), None, 10).await.expect("listed").is_empty());
        assert_eq!(code(world.mall.order(&stranger, &placed.orders[0].id).await), "not_found");
        assert_eq!(code(world.mall.order(&app_of("mall-cd"), &placed.orders[0].id).await), "not_found");
        assert_eq!(code(world.mall.payment(&app_of("mall-cd"), &placed.payment.id).await), "not_found");
        assert_eq!(code(world.mall.place(&own, Some("k"), cart(&[("book", 1)], 1)).await), "invalid_request");
        assert_eq!(code(world.mall.place(&app_of("mall-cd"), Some("k"), cart(&[("book", 1)], 0)).await), "invalid_request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn carts_that_can_not_be_are_refused_and_reserve_nothing() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let most = i64::MAX;
        for (lines, discount, expected) in [
            (vec![], 0, "invalid_request"),
            (vec![("book", 0)], 0, "invalid_request"),
            (vec![("book", -1)], 0, "invalid_request"),
            (vec![("book", most)], 0, "invalid_request"),
            (vec![("book", most), ("book", most)], 0, "invalid_request"),
            (vec![("book", 60), ("book", 60)], 0, "sold_out"),
            (vec![("pen", 1), ("book", 101)], 0, "sold_out"),
            (vec![("unknown", 1)], 0, "invalid_request"),
            (vec![("book", 1)], 1001, "invalid_request"),
            (vec![("book", 1)], -1, "invalid_request"),
        ] {
            assert_eq!(code(world.place(&lines, discount).await), expected, "{lines:?} less {discount}");
        }
        assert_eq!((world.stock("book").await, world.stock("pen").await), (100, 100));
        let change = StockChange { change: i64::MIN, reason: "r".into() };
        assert_eq!(code(world.mall.change_stock(&admin(), Some("k"), &product("book"), change).await), "invalid_request");
        let change = StockChange { change: -101, reason: "r".into() };
        assert_eq!(code(world.mall.change_stock(&admin(), Some("k"), &product("book"), change).await), "sold_out");
        assert_eq!(code(world.mall.place(&app(), None, cart(&[("book", 1)], 0)).await), "idempotency_key_missing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_answers_the_same_and_another_body_is_refused() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let place_book = async || world.mall.place(&app(), Some("same"), cart(&[("book", 1)], 0)).await;
        let answers = join_all((0..8).map(|_| place_book())).await;
        let first = answers[0].as_ref().expect("placed");
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|checkout| checkout == first)));
        assert_eq!(world.stock("book").await, 99);
        assert_eq!(code(world.mall.place(&app(), Some("same"), cart(&[("book", 2)], 0)).await), "idempotency_key_reused");
        let restock = async || {
            let change = StockChange { change: 5, reason: "delivery".into() };
            world.mall.change_stock(&admin(), Some("stock"), &product("pen"), change).await
        };
        assert_eq!(restock().await.expect("changed").stock, 105);
        assert_eq!(restock().await.expect("answered again").stock, 105);
        assert_eq!(world.stock("pen").await, 105);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_racing_orders_exactly_as_many_win_as_there_are_pieces() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        for (id, pieces, racers) in [("last", 1, 8), ("flash", 40, 160)] {
            world.product(id, "books", ProductKind::Goods, 100, pieces).await;
            let order = async || world.place(&[(id, 1)], 0).await;
            let answers = join_all((0..racers).map(|_| order())).await;
            let won = answers.iter().filter(|answer| answer.is_ok()).count();
            let lost = answers.into_iter().filter(Result::is_err).map(code).filter(|code| *code == "sold_out").count();
            assert_eq!((won, lost), (usize::try_from(pieces).expect("small"), racers - usize::try_from(pieces).expect("small")));
            assert_eq!(world.stock(id).await, 0);
            let reserved = format!("SELECT CAST(SUM(quantity) AS BIGINT) AS n FROM mall_order_line WHERE product = '{id}'");
            assert_eq!(world.number(&reserved).await, pieces);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_may_repeat_change_places_or_be_forged() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let placed = world.place(&[("book", 2), ("tea-voucher", 2)], 0).await.expect("placed");
        let (payment, amount) = (placed.payment.id.clone(), placed.payment.amount.0);
        let body = br#"{"event_id":"e0","kind":"payment.succeeded"}"#;
        for signature in [None, Some(""), Some("00"), Some("zz")] {
            assert_eq!(code(world.mall.receive(body, signature).await), "bad_signature");
        }
        assert_eq!(code(world.notify("e1", "payment.succeeded", &payment, amount - 1).await), "amount_mismatch");
        assert_eq!(code(world.notify("e1", "payment.succeeded", &payment, amount - 1).await), "amount_mismatch");
        assert_eq!(code(world.notify("e1", "payment.succeeded", &payment, amount).await), "event_reused");
        assert_eq!(world.payment_state(&payment).await, "created");
        world.notify("e2", "payment.succeeded", "pay_unknown", 5).await.expect("recorded");
        world.notify("e3", "refund.succeeded", "rfd_unknown", 5).await.expect("recorded");
        world.notify("e4", "payment.opened", &payment, amount).await.expect("recorded");
        let twice = join_all((0..6).map(|_| world.notify("e5", "payment.succeeded", &payment, amount))).await;
        assert!(twice.iter().all(Result::is_ok), "{twice:?}");
        world.notify("e6", "payment.succeeded", &payment, amount).await.expect("another event about the same charge");
        assert_eq!(world.payment_state(&payment).await, "paid");
        assert_eq!(world.told_of("order.paid.v1").await, 2);
        assert_eq!(vouchers(&world).await.len(), 2);
        assert_eq!(world.number("SELECT COUNT(*) AS n FROM mall_gateway_request").await, 0);
        // The member paid a second time by another charge: that money goes back.
        world.notify_charge("e7", "payment.succeeded", &payment, amount, "0002").await.expect("taken");
        assert_eq!(world.number("SELECT amount AS n FROM mall_gateway_request WHERE gateway_transaction = '0002'").await, amount);
        assert_eq!(world.told_of("order.paid.v1").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_notification_is_applied_when_its_request_broke_off() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let placed = world.place(&[("book", 1)], 0).await.expect("placed");
        let (id, amount) = (placed.payment.id.clone(), placed.payment.amount.0);
        let insert = format!(
            "INSERT INTO mall_notification (event_id, digest, kind, reference, gateway_transaction, amount, occurred_at, received_at)
             VALUES ('lost', 'd', 'payment.succeeded', '{id}', '0001', {amount}, {now}, {now})",
            now = crate::world::START
        );
        sea_orm::ConnectionTrait::execute_unprepared(world.kernel.db.reader(), &insert).await.expect("stored");
        world.pass(MINUTE);
        world.work("mall payment inbox").await;
        assert_eq!(world.payment_state(&id).await, "paid");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_order_frees_its_stock_once_and_late_money_finds_stock_or_goes_back() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let in_time = world.place(&[("robot", 1)], 0).await.expect("placed");
        world.pass(15 * MINUTE - 1);
        world.work("mall order expiry").await;
        assert_eq!(world.stock("robot").await, 0);
        world.pass(1);
        world.work("mall order expiry").await;
        world.work("mall order expiry").await;
        assert_eq!((world.stock("robot").await, world.payment_state(&in_time.payment.id).await), (1, "expired".into()));
        assert_eq!(code(world.mall.start_payment(&app(), &in_time.payment.id).await), "payment_closed");
        // Late, but the piece is still there: the order stands.
        world.notify("e1", "payment.succeeded", &in_time.payment.id, 50_000).await.expect("taken");
        assert_eq!((world.stock("robot").await, world.payment_state(&in_time.payment.id).await), (0, "paid".into()));
        // Late, and the piece is sold: the money goes back, once.
        world.product("lamp", "toys", ProductKind::Goods, 700, 1).await;
        let late = world.place(&[("lamp", 1)], 0).await.expect("placed");
        world.pass(15 * MINUTE);
        world.work("mall order expiry").await;
        world.buy(&[("lamp", 1)], 0).await;
        for event in ["e2", "e2", "e3"] {
            world.notify(event, "payment.succeeded", &late.payment.id, 700).await.expect("taken");
        }
        assert_eq!((world.stock("lamp").await, world.payment_state(&late.payment.id).await), (0, "returned".into()));
        assert_eq!(world.number("SELECT CAST(SUM(amount) AS BIGINT) AS n FROM mall_gateway_request").await, 700);
        assert_eq!(world.told_of("order.paid.v1").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_and_payment_race_and_stock_never_drifts() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let mut placed = Vec::new();
        for _ in 0..20 {
            placed.push(world.place(&[("pen", 1)], 0).await.expect("placed").payment.id);
        }
        world.pass(15 * MINUTE);
        let notify = async |id: &String| world.notify(&format!("e-{id}"), "payment.succeeded", id, 333).await;
        let pay = join_all(placed.iter().map(notify));
        let (paid, (), ()) = futures::join!(pay, world.work("mall order expiry"), world.work("mall order expiry"));
        assert!(paid.iter().all(Result::is_ok), "{paid:?}");
        assert_eq!(world.number("SELECT COUNT(*) AS n FROM mall_payment WHERE state = 'paid'").await, 20);
        assert_eq!(world.stock("pen").await, 80);
        assert_eq!(world.told_of("order.paid.v1").await, 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_is_redeemed_once_at_a_counter_of_its_unit() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        world.buy(&[("tea-voucher", 3)], 0).await;
        let vouchers = vouchers(&world).await;
        let shown = world.mall.vouchers(&admin(), &member(), None, 10).await.expect("listed");
        assert!(shown.iter().all(|voucher| voucher.code.starts_with("****") && voucher.code.len() == 8));
        let first = &vouchers[0];
        let spelled = format!("{}-{} {}", &first.code[..4].to_lowercase(), &first.code[4..9], &first.code[9..]);
        let redeem = |actor: Actor, key: &'static str, code: String, at: &'static str| {
            let mall = world.mall.clone();
            async move { mall.redeem(&actor, Some(key), Redeem { code, unit: unit(at), counter_reference: "till-1/7".into() }).await }
        };
        assert_eq!(code(redeem(app(), "k0", first.code.clone(), "mall-cd").await), "wrong_counter");
        assert_eq!(code(redeem(app_of("mall-cd"), "k0", first.code.clone(), "mall-cd").await), "not_found");
        assert_eq!(code(redeem(app(), "k0", "0000000000000000".into(), "mall-hz").await), "not_found");
        assert_eq!(code(redeem(app(), "k0", "?".into(), "mall-hz").await), "invalid_request");
        assert_eq!(code(redeem(admin(), "k0", first.code.clone(), "mall-hz").await), "forbidden");
        let offline = join_all((0..6).map(|_| redeem(app(), "k1", spelled.clone(), "mall-hz"))).await;
        let redeemed = offline[0].as_ref().expect("redeemed");
        assert_eq!(redeemed.state, "redeemed");
        assert!(offline.iter().all(|answer| answer.as_ref().is_ok_and(|voucher| voucher == redeemed)));
        assert_eq!(code(redeem(app(), "k1", vouchers[1].code.clone(), "mall-hz").await), "idempotency_key_reused");
        assert_eq!(code(redeem(app(), "k2", first.code.clone(), "mall-hz").await), "voucher_redeemed");
        let racers = ["r1", "r2", "r3", "r4", "r5", "r6"].map(|key| redeem(app(), key, vouchers[1].code.clone(), "mall-hz"));
        let raced = join_all(racers).await;
        assert_eq!(raced.iter().filter(|answer| answer.is_ok()).count(), 1);
        assert!(raced.into_iter().filter(Result::is_err).all(|answer| code(answer) == "voucher_redeemed"));
        assert_eq!(world.told_of("voucher.redeemed.v1").await, 2);
        world.pass(367 * 24 * 60 * MINUTE);
        assert_eq!(code(redeem(app(), "k3", vouchers[2].code.clone(), "mall-hz").await), "voucher_expired");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_voucher_is_issued_once() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let event = DomainEvent::VoucherGranted {
            member: member(),
            product: product("tea-voucher"),
            grant: "grant-1".into(),
            reason: "member day".into(),
            occurred_at: world.clock.now(),
        };
        let envelope = Envelope { position: 1, key: "k".into(), event, written_at: world.clock.now() };
        let reaction = world.mall.reactions().remove(0);
        for _ in 0..2 {
            let apply = std::sync::Arc::new(reaction.react(&envelope).await.expect("decided"));
            let write = world.kernel.db.write("grant", move |tx| {
                let apply = apply.clone();
                Box::pin(async move { apply(tx).await })
            });
            write.await.expect("applied");
        }
        assert_eq!(vouchers(&world).await.len(), 1);
        assert_eq!(world.stock("tea-voucher").await, 100);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_in_any_order_add_up_to_what_was_paid() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        for steps in [vec![1, 2, 4], vec![4, 2, 1], vec![7], vec![1, 1, 1, 1, 1, 1, 1]] {
            // 7 pens at 333 less 100: 2,231 fen, which 7 does not divide.
            let bought = world.buy(&[("pen", 7)], 100).await;
            let order = bought.orders[0].id.clone();
            let mut back = 0;
            for pieces in steps {
                back += refund(&world, &order, &[("pen", pieces)]).await.expect("refunded");
            }
            assert_eq!(back, 2231);
            assert_eq!(code(refund(&world, &order, &[("pen", 1)]).await), "refund_exceeds_order");
            assert_eq!(code(refund(&world, &order, &[]).await), "refund_exceeds_order");
        }
        assert_eq!(world.stock("pen").await, 100);
        let statement = world.mall.statement(&admin(), &"books".parse().expect("an id"), "2026-11").await.expect("a statement");
        assert_eq!((statement.sales_amount, statement.refunds_amount), (Fen(4 * 2231), Fen(4 * 2231)));
        assert_eq!((statement.commission, statement.payable, statement.balance), (Fen(0), Fen(0), Fen(0)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_gives_back_money_stock_and_shares_but_no_redeemed_voucher() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let unpaid = world.place(&[("book", 1)], 0).await.expect("placed");
        assert_eq!(code(refund(&world, &unpaid.orders[0].id, &[]).await), "order_not_paid");
        let bought = world.buy(&[("book", 3), ("tea-voucher", 2)], 0).await;
        let books = &bought.orders[0].id;
        let request = || RefundRequest { lines: vec![(product("book"), 1)], reason: "torn".into() };
        let once = async || world.mall.refund(&app(), Some("once"), books, request()).await;
        let same = join_all((0..6).map(|_| once())).await;
        let first = same[0].as_ref().expect("refunded");
        assert!(same.iter().all(|answer| answer.as_ref().is_ok_and(|refund| refund == first)), "{same:?}");
        assert_eq!((first.amount, world.stock("book").await), (Fen(1000), 97));
        assert_eq!(code(refund(&world, books, &[("pen", 1)]).await), "invalid_request");
        assert_eq!(code(world.mall.refund(&app_of("mall-cd"), Some("x"), books, request()).await), "not_found");
        let tea = &bought.orders[1].id;
        let used = Redeem { code: vouchers(&world).await[0].code.clone(), unit: unit("mall-hz"), counter_reference: "till-1/8".into() };
        world.mall.redeem(&app(), Some("used"), used).await.expect("redeemed");
        assert_eq!(code(refund(&world, tea, &[("tea-voucher", 2)]).await), "refund_exceeds_order");
        assert_eq!(refund(&world, tea, &[]).await.expect("the other voucher"), 1999);
        let states: Vec<String> = vouchers(&world).await.into_iter().map(|voucher| voucher.state).collect();
        assert_eq!(states.iter().filter(|state| *state == "redeemed").count(), 1);
        assert_eq!(states.iter().filter(|state| *state == "void").count(), 1);
        assert_eq!(world.told_of("order.refunded.v1").await, 2);
        // 8 % of the 2,000 that were kept; the merchant has the rest coming.
        let statement = world.mall.statement(&admin(), &"books".parse().expect("an id"), "2026-11").await.expect("a statement");
        assert_eq!((statement.commission, statement.payable, statement.balance), (Fen(160), Fen(1840), Fen(1840)));
        assert_eq!(world.number("SELECT CAST(SUM(amount) AS BIGINT) AS n FROM mall_gateway_request").await, 2999);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_and_a_redemption_of_one_voucher_never_both_win() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        for round in 0..6 {
            let bought = world.buy(&[("tea-voucher", 1)], 0).await;
            let order = bought.orders[0].id.clone();
            let issued: Vec<Voucher> =
                vouchers(&world).await.into_iter().filter(|voucher| voucher.order.as_ref() == Some(&order)).collect();
            let request = Redeem { code: issued[0].code.clone(), unit: unit("mall-hz"), counter_reference: "till".into() };
            let key = format!("race-{round}");
            let actor = app();
            let (refunded, redeemed) = futures::join!(refund(&world, &order, &[]), world.mall.redeem(&actor, Some(&key), request));
            assert!(refunded.is_ok() != redeemed.is_ok(), "refund {refunded:?}, redemption {redeemed:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_that_costs_nothing_is_paid_at_once() {
    for_both_databases(async |place| {
        let world = World::new(place).await;
        let placed = world.place(&[("book", 1)], 1000).await.expect("placed");
        assert_eq!((placed.payment.state.as_str(), placed.orders[0].state.as_str()), ("paid", "paid"));
        assert_eq!(refund(&world, &placed.orders[0].id, &[]).await.expect("refunded"), 0);
        assert_eq!(world.number("SELECT COUNT(*) AS n FROM mall_gateway_request").await, 0);
        assert_eq!(world.stock("book").await, 100);
    })
    .await;
}

async fn vouchers(world: &World) -> Vec<Voucher> {
    world.mall.vouchers(&Actor::member(member()), &member(), None, 100).await.expect("listed")
}

/// What a refund gave back, in fen; no lines for all that is left.
async fn refund(world: &World, order: &OrderId, lines: &[(&str, i64)]) -> Result<i64, heyuan_mall::Error> {
    let lines = lines.iter().map(|(id, pieces)| (product(id), *pieces)).collect();
    let request = RefundRequest { lines, reason: "changed my mind".into() };
    world.mall.refund(&app(), Some(&world.key()), order, request).await.map(|refund| refund.amount.0)
}
