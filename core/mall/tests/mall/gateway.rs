//! The mall and the gateway's simulator over HTTP: notifications come twice, late, in another order or not at first; books agree.

use crate::world::{SECRET, World, app};
use actix_web::{App, HttpServer, web};
use heyuan_harness::{TestDatabase, until};
use heyuan_kernel::config::Secret;
use heyuan_mall::simulator::{Simulator, serve};
use heyuan_mall::{RefundRequest, Settings};
use std::net::TcpListener;
use std::time::Duration;
use utoipa_actix_web::AppExt;

/// Long beside the retries of a gateway that drops every third delivery.
const LIMIT: Duration = Duration::from_secs(60);

#[actix_web::test]
async fn books_agree_with_a_gateway_that_misbehaves() {
    let (mall_listener, gateway_listener) = (listener(), listener());
    let gateway_url = format!("http://{}", gateway_listener.local_addr().expect("an address"));
    let notify_url = format!("http://{}/v1/payments/notifications", mall_listener.local_addr().expect("an address"));
    let settings = Settings { gateway_url: Some(gateway_url.clone()), payment_secret: Some(Secret::new(SECRET)), ..Settings::default() };
    let world = World::with(TestDatabase::sqlite(), settings).await;
    let mall = world.mall.clone();
    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(mall.clone())).into_utoipa_app().configure(heyuan_mall::routes).split_for_parts().0
    });
    let server = server.workers(1).listen(mall_listener).expect("the mall listens").run();
    let gateway = serve(gateway_listener, Simulator::new(Secret::new(SECRET), notify_url)).expect("the gateway listens");
    let handles = [server.handle(), gateway.handle()];
    actix_web::rt::spawn(server);
    actix_web::rt::spawn(gateway);
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let wild = serde_json::json!({ "seed": 7, "duplicates": 500, "drops": 300, "limits": 200, "delay_ms_max": 40 });
    let set = http.put(format!("{gateway_url}/misbehaviour")).json(&wild).send().await.expect("an answer");
    assert_eq!(set.status().as_u16(), 200);
    let mut placed = Vec::new();
    for _ in 0..12 {
        placed.push(world.place(&[("book", 1), ("tea-voucher", 1)], 0).await.expect("placed"));
    }
    for checkout in &placed {
        let started = world.mall.start_payment(&app(), &checkout.payment.id).await.expect("started");
        let changed = http.get(started.url.replace("amount=2999", "amount=1")).send().await.expect("an answer");
        assert!([403, 429].contains(&changed.status().as_u16()), "an address changed on the way is refused");
        until("the gateway takes the money", LIMIT, async || {
            http.get(&started.url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
    }
    until("every payment is paid", LIMIT, async || {
        (world.number("SELECT COUNT(*) AS n FROM mall_payment WHERE state = 'paid'").await == 12).then_some(())
    })
    .await;
    for checkout in placed.iter().take(5) {
        let request = RefundRequest { lines: Vec::new(), reason: "closed".into() };
        world.mall.refund(&app(), Some(&world.key()), &checkout.orders[0].id, request).await.expect("refunded");
    }
    until("every refund is confirmed", LIMIT, async || {
        world.pass(crate::world::MINUTE);
        world.work("mall gateway requests").await;
        (world.number("SELECT COUNT(*) AS n FROM mall_gateway_request WHERE state = 'confirmed'").await == 5).then_some(())
    })
    .await;
    let state: serde_json::Value = http.get(format!("{gateway_url}/state")).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((state["taken_fen"].as_i64(), state["returned_fen"].as_i64()), (Some(12 * 2999), Some(5 * 1000)));
    assert_eq!(world.told_of("order.paid.v1").await, 24);
    for handle in handles {
        handle.stop(false).await;
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}
