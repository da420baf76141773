//! The mall's routes: what a request spells, what an answer spells, and who is refused.

use crate::world::World;
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, web};
use futures::FutureExt;
use heyuan_contract::{MemberId, OrgUnitId};
use heyuan_harness::TestDatabase;
use heyuan_kernel::Scope;
use heyuan_kernel::keys::{self, Credentials};
use serde_json::{Value, json};
use utoipa_actix_web::AppExt;

/// A token of a session of this member.
async fn token(world: &World, credentials: &Credentials, member: &str) -> String {
    let (credentials, member) = (credentials.clone(), MemberId::new(member).expect("a valid id"));
    let opened = world.kernel.db.write("open a session", move |tx| {
        let (credentials, member) = (credentials.clone(), member.clone());
        async move { credentials.open_session(tx, &member, "mall", &OrgUnitId::new("mall-1").expect("a valid id")).await }.boxed()
    });
    opened.await.expect("it is opened").access
}

#[actix_web::test]
async fn a_walk_from_a_product_to_a_refund() {
    let world = World::new(TestDatabase::sqlite()).await;
    let kernel = &world.kernel;
    let credentials = Credentials::new(kernel.db.clone(), kernel.org.clone(), kernel.keys.clone(), world.clock.clone());
    let admin = keys::create(&kernel.db, &kernel.org, &[Scope::Admin, Scope::App], None).await.expect("a key");
    let (token, left) = (token(&world, &credentials, "mbr_1").await, token(&world, &credentials, "left_1").await);
    let (app, document) = App::new()
        .app_data(web::Data::new(world.mall.clone()))
        .app_data(web::Data::new(credentials))
        .into_utoipa_app()
        .configure(heyuan_mall::routes)
        .split_for_parts();
    let app = init_service(app).await;
    let call = async |method: &str, path: &str, key: Option<&str>, body: Value| {
        let method = method.parse().expect("a method");
        let mut request = TestRequest::default().method(method).uri(path).insert_header(("Idempotency-Key", format!("key-of-{path}")));
        if let Some(key) = key {
            request = request.insert_header(("Authorization", format!("Bearer {key}")));
        }
        let answer = call_service(&app, request.set_json(body).to_request()).await;
        let status = answer.status();
        (status, if status == StatusCode::NO_CONTENT { Value::Null } else { read_body_json::<Value, _>(answer).await })
    };
    let money = |fen: i64| json!({ "amount": fen, "currency": "CNY" });
    let product = json!({ "merchant": "books", "name": "A mug", "category": "retail", "kind": "goods", "price": money(990) });
    let (status, answer) = call("PUT", "/v1/products/mug", Some(&admin), product.clone()).await;
    assert_eq!((status, &answer["price"], &answer["stock"]), (StatusCode::OK, &money(990), &json!(0)));
    let (status, answer) = call("POST", "/v1/products/mug/stock", Some(&admin), json!({ "change": 9, "reason": "delivery" })).await;
    assert_eq!((status, &answer["stock"]), (StatusCode::OK, &json!(9)));
    let cart = json!({ "member": "mbr_1", "lines": [{ "product": "mug", "quantity": 2 }] });
    let (status, placed) = call("POST", "/v1/orders", Some(&token), cart.clone()).await;
    assert_eq!((status, &placed["payment"]["amount"], &placed["orders"][0]["state"]), (StatusCode::OK, &money(1980), &json!("unpaid")));
    let (payment, order) = (placed["payment"]["id"].as_str().expect("an id"), placed["orders"][0]["id"].as_str().expect("an id"));
    let (status, answer) = call("POST", &format!("/v1/payments/{payment}:start"), Some(&token), Value::Null).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("no_payment_gateway")));
    let (status, answer) = call("POST", "/v1/payments/notifications", None, json!({})).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("bad_signature")));
    world.notify("e1", "payment.succeeded", payment, 1980).await.expect("paid");
    let refund = json!({ "lines": [{ "product": "mug", "quantity": 1 }], "reason": "broken" });
    let (status, answer) = call("POST", &format!("/v1/orders/{order}/refunds"), Some(&admin), refund.clone()).await;
    assert_eq!((status, &answer["amount"]), (StatusCode::OK, &money(990)));
    let (_, answer) = call("GET", &format!("/v1/orders/{order}"), Some(&token), Value::Null).await;
    assert_eq!((&answer["state"], &answer["refunded"]), (&json!("partly_refunded"), &money(990)));
    let (_, answer) = call("GET", "/v1/merchants/books/statement?period=2026-11", Some(&admin), Value::Null).await;
    assert_eq!((&answer["payable"], &answer["commission"]), (&money(911), &money(79)));
    for (method, path, key, body, expected) in [
        ("POST", "/v1/orders", Some(&left), json!({ "member": "left_1", "lines": cart["lines"] }), "forbidden"),
        ("GET", "/v1/orders", Some(&left), Value::Null, "forbidden"),
        ("GET", "/v1/vouchers?member=left_1", Some(&left), Value::Null, "forbidden"),
        ("GET", "/v1/products", Some(&left), Value::Null, "forbidden"),
        ("POST", "/v1/orders", None, cart.clone(), "unauthenticated"),
        ("PUT", "/v1/products/mug", Some(&token), product.clone(), "forbidden"),
        ("POST", "/v1/products/mug/stock", Some(&token), json!({ "change": 1, "reason": "r" }), "forbidden"),
        ("GET", "/v1/vouchers?member=mbr_2", Some(&token), Value::Null, "forbidden"),
        ("GET", "/v1/orders?member=mbr_2", Some(&token), Value::Null, "forbidden"),
        ("GET", "/v1/orders/ord_none", Some(&token), Value::Null, "not_found"),
        ("GET", "/v1/orders/%20", Some(&token), Value::Null, "invalid_request"),
        ("POST", "/v1/orders", Some(&admin), json!({ "member": "mbr_1", "lines": [], "extra": 1 }), "invalid_request"),
        ("POST", &format!("/v1/orders/{order}/refunds"), Some(&admin), json!({ "reason": "neither" }), "invalid_request"),
        ("GET", "/v1/merchants/books/statement?period=2026-13", Some(&admin), Value::Null, "invalid_request"),
    ] {
        let (status, answer) = call(method, path, key.map(String::as_str), body).await;
        assert!(status.is_client_error(), "{method} {path}");
        assert_eq!(answer["code"], expected, "{method} {path}: {answer}");
    }
    let document = serde_json::to_value(&document).expect("JSON");
    assert!(document["paths"]["/v1/payments/{id}:start"]["post"]["responses"]["409"].is_object());
    assert_eq!(document["paths"].as_object().map(serde_json::Map::len), Some(14));
}
