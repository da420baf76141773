//! Features, tags, segments, audiences, portraits and profiles over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::audience::AudienceView;
use super::catalogue::TagCase;
use super::define::{FeatureView, TagView};
use super::portrait::{PortraitRequest, PortraitView};
use super::profile::ProfileView;
use super::segment::{SegmentDefinition, SegmentView};
use super::value::{Number, Value, from_json};
use super::{Know, parse};
use actix_web::{get, post, put, web};
use heyuan_contract::{CustomerId, SegmentId};
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::time::parse_rfc3339;
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

/// Adds the routes of this part; they take the facade as `web::Data<Know>`.
pub fn routes(config: &mut ServiceConfig) {
    config.service(put_feature).service(list_features).service(get_feature).service(put_tag).service(list_tags).service(get_tag);
    config.service(put_segment).service(list_segments).service(get_segment).service(list_members);
    config.service(count_audience).service(draw_portrait).service(get_profile).service(get_features_of);
}

/// A feature to declare.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FeatureBody {
    /// Its definition.
    #[schema(examples("sum(unit_viewed.dwell_ms where unit_type = '3b2l-120') over 30d"))]
    expression: String,
}

/// A tag rule to write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TagBody {
    /// The first case whose condition holds gives the value; none holding, the customer has no such tag.
    cases: Vec<CaseBody>,
}

/// One case of a tag rule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CaseBody {
    /// The tag's value.
    #[schema(examples("high"))]
    value: String,
    /// The condition.
    #[schema(value_type = Object, examples(json!({"all": [{"feature": "unit_views_7d", "at_least": 3}, {"not": {"feature": "city", "is": "广州"}}]})))]
    when: serde_json::Value,
}

/// A segment to define.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SegmentBody {
    /// The name people know.
    #[schema(examples("高意向客户"))]
    name: String,
    /// Who belongs to it.
    #[schema(value_type = Object, examples(json!({"tag": "high_intent", "is": "high"})))]
    predicate: serde_json::Value,
    /// For what it is used, such as `marketing`: customers without consent for it are left out.
    purpose: Option<String>,
}

/// An audience to count.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AudienceBody {
    /// Who belongs to it.
    #[schema(value_type = Object, examples(json!({"all": [{"feature": "age", "at_least": 30, "below": 45}, {"not": {"tag": "high_intent", "exists": true}}]})))]
    predicate: serde_json::Value,
    /// For what it would be used: customers without consent for it are left out.
    purpose: Option<String>,
}

/// A portrait to draw.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PortraitBody {
    /// Whose.
    #[schema(value_type = String, examples("ready-to-buy"))]
    segment: SegmentId,
    /// Beside whom; everybody when left out.
    #[schema(value_type = Option<String>)]
    against: Option<SegmentId>,
    /// 1 to 20 features.
    features: Vec<PortraitFeatureBody>,
}

/// A feature of a portrait.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PortraitFeatureBody {
    /// The feature, or `tag.…`.
    #[schema(examples("age"))]
    feature: String,
    /// Where its buckets begin, ascending, for a number; round ones when left out.
    #[serde(default)]
    #[schema(value_type = Vec<i64>)]
    edges: Vec<serde_json::Value>,
}

/// Which features, and as of when.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FeaturesQuery {
    /// Declared names or expressions, separated by semicolons.
    names: String,
    /// As of this instant; now when left out.
    as_of: Option<String>,
    /// As of this position; the latest when left out.
    position: Option<i64>,
}

/// Values of features.
#[derive(Debug, Serialize, ToSchema)]
struct FeatureValuesBody {
    /// In the order asked for.
    values: Vec<FeatureValueBody>,
    /// As of when.
    #[schema(value_type = String, format = DateTime)]
    as_of: Rfc3339,
    /// The events that were taken into account.
    position: i64,
}

/// A feature's value.
#[derive(Debug, Serialize, ToSchema)]
struct FeatureValueBody {
    /// As asked for.
    name: String,
    /// Absent when the customer has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    value: Option<Value>,
}

/// A list without pages: there are few.
#[derive(Debug, Serialize, ToSchema)]
struct FeatureList {
    /// By name.
    items: Vec<FeatureView>,
}

/// A list without pages: there are few.
#[derive(Debug, Serialize, ToSchema)]
struct TagList {
    /// By name.
    items: Vec<TagView>,
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
struct MemberPage {
    /// Customers.
    #[schema(value_type = Vec<String>)]
    items: Vec<CustomerId>,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn segment_id(text: &str) -> Result<SegmentId, Problem> {
    SegmentId::new(text).map_err(|error| Problem::invalid("id", error.to_string()))
}

fn customer_id(text: &str) -> Result<CustomerId, Problem> {
    CustomerId::new(text).map_err(|error| Problem::invalid("id", error.to_string()))
}

#[utoipa::path(
    tag = "know",
    summary = "Declare a feature",
    description = "A feature is read by rules, segments and plugins under its name or its expression. `profile.age`, `tag.high_intent`, `member.tier`, `points`; or count, sum, min, max, last and seconds_since over an event: `count(unit_viewed) over 7d`, `sum(order_paid.amount where line = 'mall') over 90d`. Windows move a minute up to 24 h, an hour up to 31 d, a day beyond, in the tenant's zone. History is read for a feature that is declared while events flow.",
    params(("name" = String, Path, description = "a-z 0-9 _")),
    request_body = FeatureBody,
    responses((status = 200, body = FeatureView), Invalid, Unwelcome, Conflicting),
    security(("key" = []))
)]
#[put("/v1/features/{name}")]
async fn put_feature(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    name: web::Path<String>,
    Body(body): Body<FeatureBody>,
) -> Result<web::Json<FeatureView>, Problem> {
    Ok(web::Json(know.put_feature(&actor, &name, &body.expression).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "List the declared features",
    responses((status = 200, body = FeatureList), Unwelcome),
    security(("key" = []))
)]
#[get("/v1/features")]
async fn list_features(Authenticated(actor): Authenticated, know: web::Data<Know>) -> Result<web::Json<FeatureList>, Problem> {
    Ok(web::Json(FeatureList { items: know.features(&actor).await? }))
}

#[utoipa::path(
    tag = "know",
    summary = "Look up a declared feature",
    params(("name" = String, Path)),
    responses((status = 200, body = FeatureView), Unwelcome, Missing),
    security(("key" = []))
)]
#[get("/v1/features/{name}")]
async fn get_feature(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    name: web::Path<String>,
) -> Result<web::Json<FeatureView>, Problem> {
    Ok(web::Json(know.feature(&actor, &name).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "Write a tag rule",
    description = "Customers are looked at anew in steps; each change of a tag is told with the cause `redefined`.",
    params(("name" = String, Path, description = "a-z 0-9 _")),
    request_body = TagBody,
    responses((status = 200, body = TagView), Invalid, Unwelcome, Conflicting),
    security(("key" = []))
)]
#[put("/v1/tags/{name}")]
async fn put_tag(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    name: web::Path<String>,
    Body(body): Body<TagBody>,
) -> Result<web::Json<TagView>, Problem> {
    let cases = body.cases.into_iter().map(|case| TagCase { value: case.value, when: case.when }).collect();
    Ok(web::Json(know.put_tag(&actor, &name, cases).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "List the tags",
    responses((status = 200, body = TagList), Unwelcome),
    security(("key" = []))
)]
#[get("/v1/tags")]
async fn list_tags(Authenticated(actor): Authenticated, know: web::Data<Know>) -> Result<web::Json<TagList>, Problem> {
    Ok(web::Json(TagList { items: know.tags(&actor).await? }))
}

#[utoipa::path(
    tag = "know",
    summary = "Look up a tag",
    params(("name" = String, Path)),
    responses((status = 200, body = TagView), Unwelcome, Missing),
    security(("key" = []))
)]
#[get("/v1/tags/{name}")]
async fn get_tag(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    name: web::Path<String>,
) -> Result<web::Json<TagView>, Problem> {
    Ok(web::Json(know.tag(&actor, &name).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "Define a segment",
    description = "The segment belongs to the key's unit. Defined anew, its changes are written in steps and told by one `segment.redefined.v1` with counts.",
    params(("id" = String, Path)),
    request_body = SegmentBody,
    responses((status = 200, body = SegmentView), Invalid, Unwelcome, Missing, Conflicting),
    security(("key" = []))
)]
#[put("/v1/segments/{id}")]
async fn put_segment(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    id: web::Path<String>,
    Body(body): Body<SegmentBody>,
) -> Result<web::Json<SegmentView>, Problem> {
    let definition = SegmentDefinition { name: body.name, predicate: body.predicate, purpose: body.purpose };
    Ok(web::Json(know.put_segment(&actor, &segment_id(&id)?, definition).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "List segments",
    params(PageQuery),
    responses((status = 200, body = Page<SegmentView>), Invalid, Unwelcome),
    security(("key" = []))
)]
#[get("/v1/segments")]
async fn list_segments(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<SegmentView>>, Problem> {
    let limit = page.limit()?;
    let items = know.segments(&actor, page.after()?, usize::try_from(limit).unwrap_or(0) + 1).await?;
    Ok(web::Json(Page::of(items, limit, |segment| segment.id.clone())))
}

#[utoipa::path(
    tag = "know",
    summary = "Look up a segment and its count",
    params(("id" = String, Path)),
    responses((status = 200, body = SegmentView), Invalid, Unwelcome, Missing),
    security(("key" = []))
)]
#[get("/v1/segments/{id}")]
async fn get_segment(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    id: web::Path<String>,
) -> Result<web::Json<SegmentView>, Problem> {
    Ok(web::Json(know.segment(&actor, &segment_id(&id)?).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "List the members of a segment",
    params(("id" = String, Path), PageQuery),
    responses((status = 200, body = MemberPage), Invalid, Unwelcome, Missing),
    security(("key" = []))
)]
#[get("/v1/segments/{id}/members")]
async fn list_members(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<MemberPage>, Problem> {
    let limit = page.limit()?;
    let members = know.members(&actor, &segment_id(&id)?, page.after()?, limit).await?;
    let page = Page::of(members, limit, CustomerId::to_string);
    Ok(web::Json(MemberPage { items: page.items, next: page.next }))
}

#[utoipa::path(
    tag = "know",
    summary = "Count an audience",
    request_body = AudienceBody,
    responses((status = 200, body = AudienceView), Invalid, Unwelcome),
    security(("key" = []))
)]
#[post("/v1/audiences:count")]
async fn count_audience(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    Body(body): Body<AudienceBody>,
) -> Result<web::Json<AudienceView>, Problem> {
    Ok(web::Json(know.count_audience(&actor, &body.predicate, body.purpose.as_deref()).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "Draw a portrait of a segment",
    request_body = PortraitBody,
    responses((status = 200, body = PortraitView), Invalid, Unwelcome, Missing),
    security(("key" = []))
)]
#[post("/v1/portraits")]
async fn draw_portrait(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    Body(body): Body<PortraitBody>,
) -> Result<web::Json<PortraitView>, Problem> {
    let edge = |index: usize, json: &serde_json::Value| -> Result<Number, Problem> {
        from_json(json)
            .and_then(|value| value.number())
            .ok_or_else(|| Problem::invalid(&format!("features[{index}].edges"), "expected numbers"))
    };
    let mut features = Vec::with_capacity(body.features.len());
    for (index, feature) in body.features.into_iter().enumerate() {
        let edges = feature.edges.iter().map(|json| edge(index, json)).collect::<Result<_, _>>()?;
        features.push((feature.feature, edges));
    }
    let request = PortraitRequest { segment: body.segment, against: body.against, features };
    Ok(web::Json(know.portrait(&actor, &request).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "Everything that is known of a customer",
    description = "Declared features, tags with since when, by which version and why, and segments, as of one position.",
    params(("id" = String, Path, description = "Any id that the customer ever had")),
    responses((status = 200, body = ProfileView), Invalid, Unwelcome, Missing),
    security(("key" = []))
)]
#[get("/v1/customers/{id}/profile")]
async fn get_profile(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    id: web::Path<String>,
) -> Result<web::Json<ProfileView>, Problem> {
    Ok(web::Json(know.profile(&actor, &customer_id(&id)?).await?))
}

#[utoipa::path(
    tag = "know",
    summary = "Features of a customer as of an instant and a position",
    description = "From the stream for now, from history for the past: both give the same answer.",
    params(("id" = String, Path), FeaturesQuery),
    responses((status = 200, body = FeatureValuesBody), Invalid, Unwelcome, Missing),
    security(("key" = []))
)]
#[get("/v1/customers/{id}/features")]
async fn get_features_of(
    Authenticated(actor): Authenticated,
    know: web::Data<Know>,
    id: web::Path<String>,
    query: web::Query<FeaturesQuery>,
) -> Result<web::Json<FeatureValuesBody>, Problem> {
    // The profile's checks stand before any look at features.
    let customer = know.profile(&actor, &customer_id(&id)?).await?.customer;
    let names: Vec<String> = query.names.split(';').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names.len() > 50 || names.iter().any(|name| name.len() > parse::EXPRESSION_BYTES_MAX) {
        return Err(Problem::invalid("names", "expected 1 to 50 names of features, separated by semicolons"));
    }
    let at = query.as_of.as_deref().map(|text| {
        parse_rfc3339(text)
            .ok_or_else(|| Problem::invalid("as_of", "expected an RFC 3339 time with an offset, such as 2026-11-01T08:30:00+08:00"))
    });
    let found = know.features_at(&customer, &names, at.transpose()?, query.position.map(|position| position.max(0))).await?;
    let values = names.into_iter().zip(found.values).map(|(name, value)| FeatureValueBody { name, value }).collect();
    Ok(web::Json(FeatureValuesBody { values, as_of: Rfc3339(found.at), position: found.position }))
}
