//! The API page and the OpenAPI document.

use actix_web::{HttpResponse, get, web};

/// The page that reads `/openapi.json`; it needs nothing from any other host.
const PAGE: &str = include_str!("page.html");

/// `/docs`
#[get("/docs")]
pub(crate) async fn docs() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE)
}

/// `/openapi.json`
#[get("/openapi.json")]
pub(crate) async fn document(document: web::Data<String>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(document.as_str().to_owned())
}
