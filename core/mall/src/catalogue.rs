//! Merchants, their products, and the stock of each.

use crate::error::{Error, check_amount, corrupt};
use crate::mall::Mall;
use futures::FutureExt;
use heyuan_contract::{Fen, Line, MerchantId, OrgUnitId, ProductId, Ratio};
use heyuan_kernel::filter::Filter;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::{Actor, Problem, Scope, sql};
use serde::Serialize;

/// Longest name, category or reason, in bytes.
const TEXT_BYTES_MAX: usize = 200;
/// Dearest product, ten billion yuan: totals of an order then stay far from what 64 bits hold.
const PRICE_FEN_MAX: i64 = 1_000_000_000_000;
/// Most pieces of one product in stock, and the largest single change.
const STOCK_MAX: i64 = 1_000_000_000_000;
/// A voucher is valid for at most ten years.
const VOUCHER_DAYS_MAX: i64 = 3_660;
/// Days a voucher is valid when its product names none.
pub(crate) const VOUCHER_DAYS_DEFAULT: i64 = 365;

/// A seller within a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merchant {
    /// The group's own code.
    pub id: MerchantId,
    /// The name that shoppers see.
    pub name: String,
    /// Where it sells.
    pub unit: OrgUnitId,
    /// That unit's business line.
    pub line: Line,
    /// The part of a sale that the mall keeps.
    pub commission_rate: Ratio,
}

/// What [`Mall::put_merchant`] takes.
#[derive(Debug, Clone)]
pub struct PutMerchant {
    /// The name that shoppers see.
    pub name: String,
    /// Where it sells; it never changes.
    pub unit: OrgUnitId,
    /// The part of a sale that the mall keeps.
    pub commission_rate: Ratio,
}

/// What a product is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductKind {
    /// Handed over on payment.
    Goods,
    /// A right that is redeemed at a counter.
    Voucher,
}

impl ProductKind {
    /// The spelling in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProductKind::Goods => "goods",
            ProductKind::Voucher => "voucher",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<ProductKind, Error> {
        match text {
            "goods" => Ok(ProductKind::Goods),
            "voucher" => Ok(ProductKind::Voucher),
            other => Err(corrupt("product kind", other)),
        }
    }
}

/// Something that a merchant sells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// The merchant's own code, unique in the group.
    pub id: ProductId,
    /// Its seller.
    pub merchant: MerchantId,
    /// The seller's unit.
    pub unit: OrgUnitId,
    /// The name that shoppers see.
    pub name: String,
    /// The category by which rules speak of it.
    pub category: String,
    /// Goods or voucher.
    pub kind: ProductKind,
    /// The price of one piece.
    pub price: Fen,
    /// Days that a voucher of it is valid, the day of issue not counted.
    pub voucher_valid_days: Option<i64>,
    /// Pieces that can be ordered now.
    pub stock: i64,
}

/// What [`Mall::put_product`] takes; stock changes by [`Mall::change_stock`] alone.
#[derive(Debug, Clone)]
pub struct PutProduct {
    /// Its seller; it never changes.
    pub merchant: MerchantId,
    /// The name that shoppers see.
    pub name: String,
    /// The category by which rules speak of it.
    pub category: String,
    /// Goods or voucher; it never changes.
    pub kind: ProductKind,
    /// The price of one piece.
    pub price: Fen,
    /// Days that a voucher of it is valid; 365 when left out.
    pub voucher_valid_days: Option<i64>,
}

/// A delivery, a count or a loss.
#[derive(Debug, Clone, Serialize)]
pub struct StockChange {
    /// Pieces more, or with a minus fewer.
    pub change: i64,
    /// Why, without names of people.
    pub reason: String,
}

/// The stock after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockLevel {
    /// The product.
    pub product: ProductId,
    /// The change that was made.
    pub change: i64,
    /// Pieces that could be ordered right after it.
    pub stock: i64,
}

const MERCHANT: &str = "SELECT id, name, unit, line, commission_numerator, commission_denominator FROM mall_merchant";
const PRODUCT: &str = "SELECT id, merchant, unit, name, category, kind, price, voucher_valid_days, stock FROM mall_product";

impl Mall {
    /// Adds a merchant, or changes its name and commission rate; orders keep the rate under which they were placed.
    ///
    /// # Errors
    /// `invalid_request` for an unknown unit or one without a business line, `conflict` for another unit, `forbidden`.
    pub async fn put_merchant(&self, actor: &Actor, id: MerchantId, put: PutMerchant) -> Result<Merchant, Error> {
        actor.require(Scope::Admin)?;
        let unit = self.kernel.org.require("unit", &put.unit).await?;
        actor.require_unit(&put.unit)?;
        check_text("name", &put.name)?;
        if put.commission_rate.numerator() > put.commission_rate.denominator() {
            return Err(Problem::invalid("commission_rate", "expected a ratio of at most 1").into());
        }
        let Some(line) = unit.line else {
            return Err(Problem::invalid("unit", "expected a unit of a business line, such as a mall, and no city company").into());
        };
        let merchant = Merchant { id, name: put.name, unit: put.unit, line, commission_rate: put.commission_rate };
        let written = merchant.clone();
        let changed = self
            .kernel
            .db
            .write("put merchant", move |tx| {
                let merchant = written.clone();
                async move {
                    Ok::<u64, Error>(
                        sql::execute(
                            tx.conn(),
                            "INSERT INTO mall_merchant (id, name, unit, line, commission_numerator, commission_denominator)
                             VALUES ($1, $2, $3, $4, $5, $6)
                             ON CONFLICT (id) DO UPDATE SET name = excluded.name, commission_numerator = excluded.commission_numerator,
                               commission_denominator = excluded.commission_denominator
                             WHERE mall_merchant.unit = excluded.unit",
                            [
                                merchant.id.as_str().into(),
                                merchant.name.into(),
                                merchant.unit.as_str().into(),
                                merchant.line.as_str().into(),
                                merchant.commission_rate.numerator().into(),
                                merchant.commission_rate.denominator().into(),
                            ],
                        )
                        .await?,
                    )
                }
                .boxed()
            })
            .await?;
        if changed == 0 { Err(fixed("merchant", merchant.id.as_str(), "unit")) } else { Ok(merchant) }
    }

    /// A merchant within reach.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn merchant(&self, actor: &Actor, id: &MerchantId) -> Result<Merchant, Error> {
        self.require_shopper(actor).await?;
        let row = sql::one(self.kernel.db.near(), &format!("{MERCHANT} WHERE id = $1"), [id.as_str().into()]).await?;
        let merchant = row.map(|row| read_merchant(&row)).transpose()?;
        merchant.filter(|merchant| actor.reach().covers(&merchant.unit)).ok_or_else(|| Problem::not_found("merchant", id).into())
    }

    /// Merchants within reach, by id; up to one more than `limit`.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn merchants(&self, actor: &Actor, after: Option<String>, limit: u64) -> Result<Vec<Merchant>, Error> {
        self.require_shopper(actor).await?;
        let filter = Filter::everything().and_if("id", ">", after).within("unit", actor.reach());
        let (text, values) = filter.page(MERCHANT, "id", limit);
        sql::all(self.kernel.db.reader(), &text, values).await?.iter().map(read_merchant).collect()
    }

    /// Adds a product with nothing in stock, or changes its name, category, price and validity.
    ///
    /// # Errors
    /// `invalid_request` for an unknown merchant or figures out of range, `conflict` for another merchant or kind, `forbidden`.
    pub async fn put_product(&self, actor: &Actor, id: ProductId, put: PutProduct) -> Result<Product, Error> {
        actor.require(Scope::Admin)?;
        check_product(&put)?;
        let unknown = || Problem::invalid("merchant", "expected the id of a merchant that this key reaches");
        let merchant = self.merchant(actor, &put.merchant).await.map_err(|_| unknown())?;
        let key = id.clone();
        let changed = self
            .kernel
            .db
            .write("put product", move |tx| {
                let (id, put, unit) = (key.clone(), put.clone(), merchant.unit.clone());
                async move {
                    Ok::<u64, Error>(
                        sql::execute(
                            tx.conn(),
                            "INSERT INTO mall_product (id, merchant, unit, name, category, kind, price, voucher_valid_days, stock)
                             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)
                             ON CONFLICT (id) DO UPDATE SET name = excluded.name, category = excluded.category, price = excluded.price,
                               voucher_valid_days = excluded.voucher_valid_days
                             WHERE mall_product.merchant = excluded.merchant AND mall_product.kind = excluded.kind",
                            [
                                id.as_str().into(),
                                put.merchant.as_str().into(),
                                unit.as_str().into(),
                                put.name.into(),
                                put.category.into(),
                                put.kind.as_str().into(),
                                put.price.0.into(),
                                put.voucher_valid_days.into(),
                            ],
                        )
                        .await?,
                    )
                }
                .boxed()
            })
            .await?;
        if changed == 0 { Err(fixed("product", id.as_str(), "merchant or kind")) } else { self.product(actor, &id).await }
    }

    /// A product within reach.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn product(&self, actor: &Actor, id: &ProductId) -> Result<Product, Error> {
        self.require_shopper(actor).await?;
        let row = sql::one(self.kernel.db.near(), &format!("{PRODUCT} WHERE id = $1"), [id.as_str().into()]).await?;
        let product = row.map(|row| read_product(&row)).transpose()?;
        product.filter(|product| actor.reach().covers(&product.unit)).ok_or_else(|| Problem::not_found("product", id).into())
    }

    /// Products within reach, of one merchant if named, by id; up to one more than `limit`.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn products(
        &self,
        actor: &Actor,
        merchant: Option<MerchantId>,
        after: Option<String>,
        limit: u64,
    ) -> Result<Vec<Product>, Error> {
        self.require_shopper(actor).await?;
        let filter = Filter::everything().and_if("merchant", "=", merchant.map(String::from)).and_if("id", ">", after);
        let (text, values) = filter.within("unit", actor.reach()).page(PRODUCT, "id", limit);
        sql::all(self.kernel.db.reader(), &text, values).await?.iter().map(read_product).collect()
    }

    /// Adds to the stock of a product, or takes from it; never below nothing.
    ///
    /// # Errors
    /// `sold_out` when less is there than is taken, `not_found`, `invalid_request`, the ones of idempotency keys.
    pub async fn change_stock(
        &self,
        actor: &Actor,
        header: Option<&str>,
        id: &ProductId,
        change: StockChange,
    ) -> Result<StockLevel, Error> {
        actor.require(Scope::Admin)?;
        let key = IdempotencyKey::new(actor, "mall.stock", header, &(id, &change))?;
        check_text("reason", &change.reason)?;
        if change.change == 0 || !(-STOCK_MAX..=STOCK_MAX).contains(&change.change) {
            return Err(Problem::invalid("change", format!("expected 1 to {STOCK_MAX} pieces, or fewer by as many")).into());
        }
        if let Some(level) = self.stock_changed(&key).await? {
            return Ok(level);
        }
        self.product(actor, id).await?;
        match self.write_stock(actor.name(), &key, id, change).await {
            Err(Error::Kernel(error)) if error.is_duplicate() => {
                self.stock_changed(&key).await?.ok_or_else(|| corrupt("stock change", "it vanished"))
            }
            other => other,
        }
    }

    async fn stock_changed(&self, key: &IdempotencyKey) -> Result<Option<StockLevel>, Error> {
        let text = "SELECT digest, product, change, stock_after FROM mall_stock_change WHERE idempotency = $1";
        let Some(row) = sql::one(self.kernel.db.near(), text, [key.stored.clone().into()]).await? else { return Ok(None) };
        key.check(&sql::get::<String>(&row, "digest")?)?;
        let product: String = sql::get(&row, "product")?;
        let product = ProductId::new(product).map_err(|e| corrupt("product id", e))?;
        Ok(Some(StockLevel { product, change: sql::get(&row, "change")?, stock: sql::get(&row, "stock_after")? }))
    }

    async fn write_stock(&self, actor: &str, key: &IdempotencyKey, id: &ProductId, change: StockChange) -> Result<StockLevel, Error> {
        let (actor, key, id, now) = (actor.to_owned(), key.clone(), id.clone(), self.kernel.clock.now().ms());
        self.kernel
            .db
            .write("change stock", move |tx| {
                let (actor, key, id, change) = (actor.clone(), key.clone(), id.clone(), change.clone());
                async move {
                    let moved = sql::one(
                        tx.conn(),
                        "UPDATE mall_product SET stock = stock + $1 WHERE id = $2 AND stock + $1 >= 0 AND stock + $1 <= $3 RETURNING stock",
                        [change.change.into(), id.as_str().into(), STOCK_MAX.into()],
                    )
                    .await?;
                    let Some(row) = moved else {
                        return Err(if change.change < 0 {
                            Error::SoldOut { product: id, wanted: -change.change }
                        } else {
                            Problem::invalid("change", format!("a product has at most {STOCK_MAX} pieces in stock")).into()
                        });
                    };
                    let stock: i64 = sql::get(&row, "stock")?;
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO mall_stock_change (idempotency, digest, product, change, reason, stock_after, actor, changed_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                        [
                            key.stored.into(),
                            key.digest.into(),
                            id.as_str().into(),
                            change.change.into(),
                            change.reason.into(),
                            stock.into(),
                            actor.into(),
                            now.into(),
                        ],
                    )
                    .await?;
                    Ok(StockLevel { product: id, change: change.change, stock })
                }
                .boxed()
            })
            .await
    }
}

fn fixed(what: &str, id: &str, which: &str) -> Error {
    let words = format!("{what} {id} can't change its {which}: orders and books name it");
    Problem::new(heyuan_kernel::error::codes::CONFLICT, words).into()
}

pub(crate) fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    let fits = !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
    if fits { Ok(()) } else { Err(Problem::invalid(field, format!("expected 1 to {TEXT_BYTES_MAX} bytes of text"))) }
}

fn check_product(put: &PutProduct) -> Result<(), Problem> {
    check_text("name", &put.name)?;
    check_text("category", &put.category)?;
    check_amount("price", put.price, PRICE_FEN_MAX)?;
    match (put.kind, put.voucher_valid_days) {
        (ProductKind::Goods, Some(_)) => Err(Problem::invalid("voucher_valid_days", "only a product of kind voucher has it")),
        (ProductKind::Voucher, Some(days)) if !(1..=VOUCHER_DAYS_MAX).contains(&days) => {
            Err(Problem::invalid("voucher_valid_days", format!("expected 1 to {VOUCHER_DAYS_MAX} days")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn read_rate(row: &sql::Row) -> Result<Ratio, Error> {
    let numerator = sql::get(row, "commission_numerator")?;
    Ratio::new(numerator, sql::get(row, "commission_denominator")?).map_err(|e| corrupt("commission rate", e))
}

pub(crate) fn read_line(row: &sql::Row) -> Result<Line, Error> {
    let text: String = sql::get(row, "line")?;
    Line::parse(&text).ok_or_else(|| corrupt("line", text))
}

fn read_merchant(row: &sql::Row) -> Result<Merchant, Error> {
    let unit: String = sql::get(row, "unit")?;
    Ok(Merchant {
        id: MerchantId::new(sql::get::<String>(row, "id")?).map_err(|e| corrupt("merchant id", e))?,
        name: sql::get(row, "name")?,
        unit: OrgUnitId::new(unit).map_err(|e| corrupt("unit id", e))?,
        line: read_line(row)?,
        commission_rate: read_rate(row)?,
    })
}

pub(crate) fn read_product(row: &sql::Row) -> Result<Product, Error> {
    Ok(Product {
        id: ProductId::new(sql::get::<String>(row, "id")?).map_err(|e| corrupt("product id", e))?,
        merchant: MerchantId::new(sql::get::<String>(row, "merchant")?).map_err(|e| corrupt("merchant id", e))?,
        unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| corrupt("unit id", e))?,
        name: sql::get(row, "name")?,
        category: sql::get(row, "category")?,
        kind: ProductKind::parse(&sql::get::<String>(row, "kind")?)?,
        price: Fen(sql::get(row, "price")?),
        voucher_valid_days: sql::get(row, "voucher_valid_days")?,
        stock: sql::get(row, "stock")?,
    })
}
