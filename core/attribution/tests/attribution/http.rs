//! Attribution's routes: what a request spells, what an answer spells, and who is refused.

use crate::world::{World, ad};
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, web};
use heyuan_harness::TestDatabase;
use heyuan_kernel::Scope;
use heyuan_kernel::keys::{self, Credentials};
use serde_json::{Value, json};
use utoipa_actix_web::AppExt;

#[actix_web::test]
async fn a_walk_from_a_click_to_the_cost_of_a_contract() {
    let world = World::new(TestDatabase::sqlite()).await;
    let kernel = &world.kernel;
    let credentials = Credentials::new(kernel.db.clone(), kernel.org.clone(), kernel.keys.clone(), world.clock.clone());
    let key = keys::create(&kernel.db, &kernel.org, &[Scope::Admin, Scope::App], None).await.expect("a key");
    let ingest = keys::create(&kernel.db, &kernel.org, &[Scope::Ingest], None).await.expect("a key");
    let (app, document) = App::new()
        .app_data(web::Data::new(world.attribution.clone()))
        .app_data(web::Data::new(credentials))
        .into_utoipa_app()
        .configure(heyuan_attribution::routes)
        .split_for_parts();
    let app = init_service(app).await;
    let send = async |request: TestRequest, key: &str| {
        let request = request.insert_header(("Authorization", format!("Bearer {key}"))).insert_header(("Idempotency-Key", "k"));
        let answer = call_service(&app, request.to_request()).await;
        (answer.status(), read_body_json::<Value, _>(answer).await)
    };
    let file = "日期,账户,计划ID,计划名称,创意ID,展现,点击,消费\n2026-11-01,a,901,江畔,1,10,2,99.99\n2026-11-31,a,901,江畔,1,10,2,1\n";
    let gbk = encoding_rs::GBK.encode(file).0.into_owned();
    let import = |platform: &str| TestRequest::post().uri(&format!("/v1/spend/imports?platform={platform}&unit=group"));
    let request = import("baidu").insert_header(("Content-Type", "text/csv; charset=GBK")).set_payload(gbk.clone());
    let (status, answer) = send(request, &key).await;
    assert_eq!((status, &answer["rows_accepted"]), (StatusCode::OK, &json!(1)));
    assert_eq!((&answer["errors"][0]["row"], &answer["errors"][0]["field"]), (&json!(3), &json!("day")));
    let plan = TestRequest::put().uri("/v1/spend/plans/baidu/901").set_json(json!({ "unit": "river" }));
    assert_eq!(send(plan, &key).await.0, StatusCode::OK);
    world.touched("m1", "13800001234", 1, ad("baidu", "901", Some("bd-1"))).await;
    let lead = json!({
        "id": "lead-1", "unit": "river", "identifiers": [{ "kind": "phone", "value": "13800001234" }],
        "submitted_at": "2026-11-03T10:00:00+08:00", "click_id": "bd-1",
    });
    let (status, answer) = send(TestRequest::post().uri("/v1/leads").set_json(&lead), &key).await;
    assert_eq!((status, &answer["stage"], answer.to_string().contains("13800001234")), (StatusCode::OK, &json!("lead"), false));
    for (stage, day) in [("visited", 5), ("contracted", 9)] {
        let body = json!({ "stage": stage, "occurred_at": format!("2026-11-{day:02}T10:00:00+08:00") });
        let (status, answer) = send(TestRequest::post().uri("/v1/leads/lead-1/stages").set_json(body), &key).await;
        assert_eq!((status, &answer["stage"]), (StatusCode::OK, &json!(stage)));
    }
    let path = "/v1/reports/full-chain?from=2026-11-01&to=2026-11-30&model=linear&group_by=plan";
    let (status, report) = send(TestRequest::get().uri(&format!("{path}&min_sample=1")), &key).await;
    let row = &report["rows"][0];
    assert_eq!(
        (status, &row["key"], &row["leads"], &row["net_contracts"]),
        (StatusCode::OK, &json!("baidu/901"), &json!(1.0), &json!(1.0))
    );
    assert_eq!(row["cost_per_net_contract"]["cost"], json!({ "amount": 9999, "currency": "CNY" }));
    assert_eq!(row["visit_rate"], json!({ "numerator": 1, "denominator": 1 }));
    assert_eq!(report["conventions"]["time_zone"], "Asia/Shanghai");
    let (_, report) = send(TestRequest::get().uri(path), &key).await;
    assert_eq!(report["totals"]["cost_per_lead"], json!({ "cost": null, "reason": "small_sample" }));
    let refused = [
        (import("weibo"), &key, "invalid_request"),
        (import("baidu").set_payload("a,b\n"), &key, "unknown_header"),
        (import("baidu").insert_header(("Content-Type", "text/csv; charset=utf-7")).set_payload(gbk), &key, "invalid_request"),
        (import("baidu"), &ingest, "forbidden"),
        (TestRequest::post().uri("/v1/leads").set_json(&lead), &ingest, "forbidden"),
        (TestRequest::get().uri(path), &ingest, "forbidden"),
        (TestRequest::get().uri("/v1/reports/full-chain?from=2026-11-01&to=never"), &key, "invalid_request"),
        (TestRequest::get().uri("/v1/reports/full-chain?from=2026-11-01&to=2026-11-02&model=magic"), &key, "invalid_request"),
        (TestRequest::get().uri("/v1/leads/none"), &key, "not_found"),
    ];
    for (request, key, expected) in refused {
        let (status, answer) = send(request, key).await;
        assert!(status.is_client_error(), "{answer}");
        assert_eq!(answer["code"], expected, "{answer}");
    }
    let document = serde_json::to_value(&document).expect("JSON");
    assert_eq!(document["paths"].as_object().map(serde_json::Map::len), Some(6));
}
