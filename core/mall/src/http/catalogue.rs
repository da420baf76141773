//! Merchants, products and stock over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::{MoneyBody, RatioBody};
use crate::catalogue::{Merchant, Product, ProductKind, PutMerchant, PutProduct, StockChange};
use crate::error::Error;
use crate::mall::Mall;
use crate::settlement::Statement;
use actix_web::{HttpRequest, get, post, put, web};
use heyuan_contract::{MerchantId, OrgUnitId, ProductId, Ratio};
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A merchant to put.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutMerchantBody {
    /// The name that shoppers see.
    #[schema(examples("合院书店"))]
    name: String,
    /// The unit where it sells, such as a mall; it never changes.
    #[schema(value_type = String, examples("mall-hz"))]
    unit: OrgUnitId,
    /// The part of a sale that the mall keeps, at most 1; 0 when left out.
    commission_rate: Option<RatioBody>,
}

/// A merchant (商户).
#[derive(Debug, Serialize, ToSchema)]
struct MerchantBody {
    /// The group's own code.
    id: String,
    /// The name that shoppers see.
    name: String,
    /// The unit where it sells.
    unit: String,
    /// That unit's business line.
    line: String,
    /// The part of a sale that the mall keeps.
    commission_rate: RatioBody,
}

impl From<Merchant> for MerchantBody {
    fn from(merchant: Merchant) -> MerchantBody {
        MerchantBody {
            id: merchant.id.into(),
            name: merchant.name,
            unit: merchant.unit.into(),
            line: merchant.line.as_str().into(),
            commission_rate: merchant.commission_rate.into(),
        }
    }
}

/// What a product is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KindBody {
    /// Handed over on payment.
    Goods,
    /// A right that is redeemed at a counter.
    Voucher,
}

impl From<KindBody> for ProductKind {
    fn from(kind: KindBody) -> ProductKind {
        match kind {
            KindBody::Goods => ProductKind::Goods,
            KindBody::Voucher => ProductKind::Voucher,
        }
    }
}

/// A product to put.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutProductBody {
    /// Its seller; it never changes.
    #[schema(value_type = String, examples("books"))]
    merchant: MerchantId,
    /// The name that shoppers see.
    name: String,
    /// The category by which rules speak of it.
    #[schema(examples("retail"))]
    category: String,
    /// Goods or voucher; it never changes.
    kind: KindBody,
    /// The price of one piece.
    price: MoneyBody,
    /// Days that a voucher of it is valid, 1 to 3660; 365 when left out.
    voucher_valid_days: Option<i64>,
}

/// A product.
#[derive(Debug, Serialize, ToSchema)]
struct ProductBody {
    /// The merchant's own code, unique in the group.
    id: String,
    /// Its seller.
    merchant: String,
    /// The seller's unit.
    unit: String,
    /// The name that shoppers see.
    name: String,
    /// The category by which rules speak of it.
    category: String,
    /// Goods or voucher.
    kind: KindBody,
    /// The price of one piece.
    price: MoneyBody,
    /// Days that a voucher of it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    voucher_valid_days: Option<i64>,
    /// Pieces that can be ordered now.
    stock: i64,
}

impl From<Product> for ProductBody {
    fn from(product: Product) -> ProductBody {
        ProductBody {
            id: product.id.into(),
            merchant: product.merchant.into(),
            unit: product.unit.into(),
            name: product.name,
            category: product.category,
            kind: match product.kind {
                ProductKind::Goods => KindBody::Goods,
                ProductKind::Voucher => KindBody::Voucher,
            },
            price: product.price.into(),
            voucher_valid_days: product.voucher_valid_days,
            stock: product.stock,
        }
    }
}

/// A change of stock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StockChangeBody {
    /// Pieces more, or with a minus fewer.
    #[schema(examples(100))]
    change: i64,
    /// Why, without names of people.
    #[schema(examples("delivery 2026-11-01"))]
    reason: String,
}

/// The stock after a change.
#[derive(Debug, Serialize, ToSchema)]
struct StockLevelBody {
    /// The product.
    product: String,
    /// The change that was made.
    change: i64,
    /// Pieces that could be ordered right after it.
    stock: i64,
}

/// A merchant's month (分账对账单).
#[derive(Debug, Serialize, ToSchema)]
struct StatementBody {
    /// The merchant.
    merchant: String,
    /// The month, in the tenant's time zone.
    #[schema(examples("2026-11"))]
    period: String,
    /// Orders paid.
    sales: i64,
    /// What was paid for them.
    sales_amount: MoneyBody,
    /// Refunds made.
    refunds: i64,
    /// What was given back.
    refunds_amount: MoneyBody,
    /// What the mall keeps, after refunds.
    commission: MoneyBody,
    /// Sales less refunds less commission.
    payable: MoneyBody,
    /// What the merchant has coming in all, as the ledger holds it now.
    balance: MoneyBody,
}

impl From<Statement> for StatementBody {
    fn from(statement: Statement) -> StatementBody {
        StatementBody {
            merchant: statement.merchant.into(),
            period: statement.period,
            sales: statement.sales,
            sales_amount: statement.sales_amount.into(),
            refunds: statement.refunds,
            refunds_amount: statement.refunds_amount.into(),
            commission: statement.commission.into(),
            payable: statement.payable.into(),
            balance: statement.balance.into(),
        }
    }
}

/// Which products.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ProductQuery {
    /// Of this merchant alone.
    #[param(value_type = Option<String>)]
    merchant: Option<MerchantId>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// 1 to 200 items; 50 when left out.
    limit: Option<u64>,
}

/// Which month.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatementQuery {
    /// A month such as `2026-11`.
    period: String,
}

/// Adds a merchant or changes its name and commission rate.
#[utoipa::path(
    tag = "mall", summary = "Put a merchant", request_body = PutMerchantBody, security(("key" = [])),
    params(("id" = String, Path, description = "The group's own code")),
    responses(
        (status = 200, body = MerchantBody),
        Invalid, Unwelcome, Conflicting,
    )
)]
#[put("/v1/merchants/{id}")]
pub(super) async fn put_merchant(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
    body: Body<PutMerchantBody>,
) -> Result<web::Json<MerchantBody>, Problem> {
    let Body(body) = body;
    let rate = body.commission_rate.unwrap_or(RatioBody { numerator: 0, denominator: 1 });
    let commission_rate = Ratio::new(rate.numerator, rate.denominator).map_err(|e| Problem::invalid("commission_rate", e.to_string()))?;
    let put = PutMerchant { name: body.name, unit: body.unit, commission_rate };
    Ok(web::Json(mall.put_merchant(&actor, path_id(id)?, put).await?.into()))
}

/// Lists merchants by id.
#[utoipa::path(
    tag = "mall", summary = "List merchants", params(PageQuery), security(("key" = [])),
    responses(
        (status = 200, body = Page<MerchantBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/merchants")]
pub(super) async fn list_merchants(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<MerchantBody>>, Problem> {
    let limit = page.limit()?;
    let merchants = mall.merchants(&actor, page.after()?, limit).await?;
    Ok(web::Json(Page::of(merchants.into_iter().map(MerchantBody::from).collect(), limit, |merchant| merchant.id.clone())))
}

/// Reads a merchant.
#[utoipa::path(
    tag = "mall", summary = "Read a merchant", security(("key" = [])),
    params(("id" = String, Path, description = "The merchant")),
    responses(
        (status = 200, body = MerchantBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/merchants/{id}")]
pub(super) async fn get_merchant(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
) -> Result<web::Json<MerchantBody>, Problem> {
    Ok(web::Json(mall.merchant(&actor, &path_id(id)?).await?.into()))
}

/// Reads what a merchant has coming for a month: sales, refunds, the mall's commission.
#[utoipa::path(
    tag = "mall", summary = "Read a merchant's statement", security(("key" = [])),
    params(("id" = String, Path, description = "The merchant"), StatementQuery),
    responses(
        (status = 200, body = StatementBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/merchants/{id}/statement")]
pub(super) async fn get_statement(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
    query: web::Query<StatementQuery>,
) -> Result<web::Json<StatementBody>, Problem> {
    Ok(web::Json(mall.statement(&actor, &path_id(id)?, &query.period).await?.into()))
}

/// Adds a product with nothing in stock, or changes its name, category, price and validity.
#[utoipa::path(
    tag = "mall", summary = "Put a product", request_body = PutProductBody, security(("key" = [])),
    params(("id" = String, Path, description = "The merchant's own code, unique in the group")),
    responses(
        (status = 200, body = ProductBody),
        Invalid, Unwelcome, Conflicting,
    )
)]
#[put("/v1/products/{id}")]
pub(super) async fn put_product(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
    body: Body<PutProductBody>,
) -> Result<web::Json<ProductBody>, Problem> {
    let Body(body) = body;
    let put = PutProduct {
        merchant: body.merchant,
        name: body.name,
        category: body.category,
        kind: body.kind.into(),
        price: body.price.fen("price")?,
        voucher_valid_days: body.voucher_valid_days,
    };
    Ok(web::Json(mall.put_product(&actor, path_id(id)?, put).await?.into()))
}

/// Lists products by id.
#[utoipa::path(
    tag = "mall", summary = "List products", params(ProductQuery), security(("key" = [])),
    responses(
        (status = 200, body = Page<ProductBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/products")]
pub(super) async fn list_products(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    query: web::Query<ProductQuery>,
) -> Result<web::Json<Page<ProductBody>>, Problem> {
    let ProductQuery { merchant, cursor, limit } = query.into_inner();
    let page = PageQuery { cursor, limit };
    let limit = page.limit()?;
    let products = mall.products(&actor, merchant, page.after()?, limit).await?;
    Ok(web::Json(Page::of(products.into_iter().map(ProductBody::from).collect(), limit, |product| product.id.clone())))
}

/// Reads a product with its stock.
#[utoipa::path(
    tag = "mall", summary = "Read a product", security(("key" = [])),
    params(("id" = String, Path, description = "The product")),
    responses(
        (status = 200, body = ProductBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/products/{id}")]
pub(super) async fn get_product(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
) -> Result<web::Json<ProductBody>, Problem> {
    Ok(web::Json(mall.product(&actor, &path_id(id)?).await?.into()))
}

/// Adds to a product's stock or takes from it; never below nothing.
#[utoipa::path(
    tag = "mall", summary = "Change the stock of a product", request_body = StockChangeBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The product"),
        ("Idempotency-Key" = String, Header, description = "Fresh per change; the same one on a retry"),
    ),
    responses(
        (status = 200, body = StockLevelBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/products/{id}/stock")]
pub(super) async fn change_stock(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    mall: web::Data<Mall>,
    id: web::Path<String>,
    body: Body<StockChangeBody>,
) -> Result<web::Json<StockLevelBody>, Problem> {
    let id: ProductId = path_id(id)?;
    let change = StockChange { change: body.0.change, reason: body.0.reason };
    let level = mall.change_stock(&actor, idempotency_header(&request), &id, change).await?;
    Ok(web::Json(StockLevelBody { product: level.product.into(), change: level.change, stock: level.stock }))
}

/// The identifier in the path; one that no object can have finds none.
pub(super) fn path_id<T>(id: web::Path<String>) -> Result<T, Error>
where
    T: std::str::FromStr<Err = heyuan_contract::InvalidId>,
{
    id.into_inner().parse().map_err(|e: heyuan_contract::InvalidId| Problem::invalid("id", e.to_string()).into())
}
