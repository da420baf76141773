//! Vouchers: issued when an order is paid or a rule grants one, redeemed once at a counter of their unit.

use crate::catalogue::{ProductKind, VOUCHER_DAYS_DEFAULT, check_text, read_product};
use crate::error::{Error, corrupt};
use crate::mall::Mall;
use crate::records::{Order, id, time, time_if};
use futures::FutureExt;
use heyuan_contract::{DomainEvent, MemberId, MerchantId, OrderId, OrgUnitId, ProductId, Timestamp, VoucherId};
use heyuan_kernel::filter::Filter;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::secret::Key;
use heyuan_kernel::{Actor, Database, Error as KernelError, Kernel, Problem, Scope, Tx, sql};
use serde::Serialize;

/// Characters of a code: 5 bits each, 80 bits in all, so that codes can't be guessed.
const CODE_LENGTH: usize = 16;
/// Crockford's alphabet: nothing that is read as something else.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A right that is used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// `vch_…`
    pub id: VoucherId,
    /// The code to show at the counter; its start is hidden from keys that don't act for the member.
    pub code: String,
    /// Whose it is.
    pub member: MemberId,
    /// Who honours it.
    pub merchant: MerchantId,
    /// At whose counters.
    pub unit: OrgUnitId,
    /// What it is for.
    pub product: ProductId,
    /// The order that bought it; none when it was granted.
    pub order: Option<OrderId>,
    /// `issued`, `redeemed`, `void` or `expired`.
    pub state: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The first instant at which it is no longer valid.
    pub expires_at: Timestamp,
    /// When it was redeemed.
    pub redeemed_at: Option<Timestamp>,
    /// The counter's own mark of the redemption.
    pub counter_reference: Option<String>,
}

/// A redemption.
#[derive(Debug, Clone, Serialize)]
pub struct Redeem {
    /// As the member shows it; case, spaces and hyphens don't matter.
    pub code: String,
    /// The counter's unit.
    pub unit: OrgUnitId,
    /// The counter's own mark, such as the number of its receipt.
    pub counter_reference: String,
}

struct Stored {
    voucher: Voucher,
    digest: Option<String>,
}

const VOUCHER: &str = "SELECT id, code_sealed, member, merchant, unit, product, order_id, state, issued_at, expires_at, redeemed_at,
 counter_reference, digest FROM mall_voucher";

/// The unit at whose counters a voucher product is redeemed; nothing for a product that is not there or is something else. A product keeps
/// its kind and its seller for ever. Needs no more of the mall than its tables, so that other rooms may ask while the mall stands on them.
///
/// # Errors
/// The database's.
pub async fn voucher_unit(db: &Database, product: &ProductId) -> Result<Option<OrgUnitId>, Error> {
    let text = "SELECT unit FROM mall_product WHERE id = $1 AND kind = $2";
    let row = sql::one(db.near(), text, [product.as_str().into(), ProductKind::Voucher.as_str().into()]).await?;
    row.map(|row| id(&row, "unit")).transpose()
}

impl Mall {
    /// A member's vouchers within reach, oldest first; up to one more than `limit`.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn vouchers(&self, actor: &Actor, member: &MemberId, after: Option<String>, limit: u64) -> Result<Vec<Voucher>, Error> {
        if !actor.has(Scope::Admin) {
            actor.require_for_member(Scope::App, member)?;
        }
        self.require_shopper(actor).await?;
        let filter = Filter::everything().and("member", "=", member.as_str()).and_if("id", ">", after).within("unit", actor.reach());
        let (text, values) = filter.page(VOUCHER, "id", limit);
        let whole = actor.as_member().is_some() || actor.has(Scope::App);
        let rows = sql::all(self.kernel.db.reader(), &text, values).await?;
        rows.iter().map(|row| self.read_voucher(row, whole).map(|stored| stored.voucher)).collect()
    }

    /// Redeems a voucher, once. The same key answers the same again, also when the counter was offline in between.
    ///
    /// # Errors
    /// `voucher_redeemed`, `voucher_expired`, `voucher_void`, `wrong_counter`, `not_found` for an unknown code, `forbidden`.
    pub async fn redeem(&self, actor: &Actor, header: Option<&str>, request: Redeem) -> Result<Voucher, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "mall.redeem", header, &request)?;
        if let Some(voucher) = self.redeemed(&key).await? {
            return Ok(voucher);
        }
        actor.require_unit(&request.unit)?;
        check_text("counter_reference", &request.counter_reference)?;
        let hash = self.hash_of(&request.code)?;
        let written = self.kernel.db.settle(|| self.redeem_once(actor, &key, &request, &hash)).await;
        match written {
            Err(Error::Kernel(error)) if error.is_duplicate() => {
                self.redeemed(&key).await?.ok_or_else(|| corrupt("voucher", "it vanished"))
            }
            Err(Error::VoucherRedeemed(id)) => self.redeemed(&key).await?.ok_or(Error::VoucherRedeemed(id)),
            other => other,
        }
    }

    async fn redeemed(&self, key: &IdempotencyKey) -> Result<Option<Voucher>, Error> {
        let text = format!("{VOUCHER} WHERE redemption = $1");
        let Some(row) = sql::one(self.kernel.db.near(), &text, [key.stored.as_str().into()]).await? else { return Ok(None) };
        let stored = self.read_voucher(&row, false)?;
        key.check(stored.digest.as_deref().unwrap_or_default())?;
        Ok(Some(stored.voucher))
    }

    async fn redeem_once(&self, actor: &Actor, key: &IdempotencyKey, request: &Redeem, hash: &str) -> Result<Voucher, Error> {
        let row = sql::one(self.kernel.db.near(), &format!("{VOUCHER} WHERE code_hash = $1"), [hash.into()]).await?;
        let missing = || Error::from(Problem::not_found("voucher", "with this code").field("code"));
        let mut voucher = self.read_voucher(&row.ok_or_else(missing)?, false)?.voucher;
        if !actor.reach().covers(&voucher.unit) {
            return Err(missing());
        }
        if voucher.unit != request.unit {
            return Err(Error::WrongCounter(voucher.id));
        }
        match voucher.state.as_str() {
            "issued" => {}
            "redeemed" => return Err(Error::VoucherRedeemed(voucher.id)),
            "void" => return Err(Error::VoucherVoid(voucher.id)),
            _ => return Err(Error::VoucherExpired(voucher.id)),
        }
        let now = self.kernel.clock.now();
        voucher.state = "redeemed".into();
        voucher.redeemed_at = Some(now);
        voucher.counter_reference = Some(request.counter_reference.clone());
        let (key, written, unit) = (key.clone(), voucher.clone(), request.unit.clone());
        self.kernel
            .db
            .write("redeem voucher", move |tx| {
                let (key, voucher, unit) = (key.clone(), written.clone(), unit.clone());
                async move { write_redemption(tx, &key, voucher, unit, now).await }.boxed()
            })
            .await?;
        Ok(voucher)
    }

    /// Issues the vouchers of a paid order, one record a piece.
    pub(crate) async fn issue_for(&self, tx: &Tx, order: &Order, at: Timestamp) -> Result<(), Error> {
        for part in order.parts.iter().filter(|part| part.kind == ProductKind::Voucher) {
            for piece in 1..=part.quantity {
                let source = format!("order:{}:{}:{piece}", order.id, part.product);
                self.issue(tx, &part.product, &order.member, &source, Some(&order.id), at).await?;
            }
        }
        Ok(())
    }

    /// Issues a voucher unless its source has one already.
    pub(crate) async fn issue(
        &self,
        tx: &Tx,
        product: &ProductId,
        member: &MemberId,
        source: &str,
        order: Option<&OrderId>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let text = "SELECT id, merchant, unit, name, category, kind, price, voucher_valid_days, stock FROM mall_product WHERE id = $1";
        let row = sql::one(tx.conn(), text, [product.as_str().into()]).await?;
        let unknown = || Error::from(Problem::invalid("product", format!("there is no voucher product {product}")));
        let product = read_product(&row.ok_or_else(unknown)?)?;
        if product.kind != ProductKind::Voucher {
            return Err(unknown());
        }
        let days = i32::try_from(product.voucher_valid_days.unwrap_or(VOUCHER_DAYS_DEFAULT)).unwrap_or(i32::MAX);
        let expires_at = self.kernel.zone.day_start_after(at, days.saturating_add(1));
        let code = random_code();
        let id: VoucherId = Kernel::new_id("vch");
        sql::execute(
            tx.conn(),
            "INSERT INTO mall_voucher (id, source, code_hash, code_sealed, member, merchant, unit, product, order_id, state, issued_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'issued', $10, $11) ON CONFLICT (source) DO NOTHING",
            [
                id.as_str().into(),
                source.into(),
                self.hash_of(&code)?.into(),
                self.code_key.seal(code.as_bytes(), id.as_str().as_bytes()).into(),
                member.as_str().into(),
                product.merchant.as_str().into(),
                product.unit.as_str().into(),
                product.id.as_str().into(),
                order.map(|order| order.to_string()).into(),
                at.ms().into(),
                expires_at.ms().into(),
            ],
        )
        .await?;
        Ok(())
    }

    fn hash_of(&self, code: &str) -> Result<String, Error> {
        let plain: String = code.chars().filter(|c| !matches!(c, ' ' | '-')).map(|c| c.to_ascii_uppercase()).map(unmistaken).collect();
        if plain.len() != CODE_LENGTH || !plain.bytes().all(|b| ALPHABET.contains(&b)) {
            return Err(Problem::invalid("code", format!("expected the {CODE_LENGTH} letters and digits of a voucher")).into());
        }
        Ok(hex::encode(self.code_key.mac(&[b"voucher", plain.as_bytes()])))
    }

    fn read_voucher(&self, row: &sql::Row, whole: bool) -> Result<Stored, Error> {
        let voucher_id: VoucherId = id(row, "id")?;
        let code = self.code_key.open(&sql::get::<Vec<u8>>(row, "code_sealed")?, voucher_id.as_str().as_bytes());
        let code = code.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| corrupt("voucher code", "another key sealed it"))?;
        let shown = if whole { code } else { format!("****{}", &code[CODE_LENGTH - 4..]) };
        let expires_at = time(row, "expires_at")?;
        let stored: String = sql::get(row, "state")?;
        let over = stored == "issued" && expires_at <= self.kernel.clock.now();
        let order: Option<String> = sql::get(row, "order_id")?;
        let voucher = Voucher {
            id: voucher_id,
            code: shown,
            member: id(row, "member")?,
            merchant: id(row, "merchant")?,
            unit: id(row, "unit")?,
            product: id(row, "product")?,
            order: order.map(OrderId::new).transpose().map_err(|e| corrupt("order id", e))?,
            state: if over { "expired".into() } else { stored },
            issued_at: time(row, "issued_at")?,
            expires_at,
            redeemed_at: time_if(row, "redeemed_at")?,
            counter_reference: sql::get(row, "counter_reference")?,
        };
        Ok(Stored { voucher, digest: sql::get(row, "digest")? })
    }
}

async fn write_redemption(tx: &Tx, key: &IdempotencyKey, voucher: Voucher, unit: OrgUnitId, now: Timestamp) -> Result<(), Error> {
    let used = sql::execute(
        tx.conn(),
        "UPDATE mall_voucher SET state = 'redeemed', redeemed_at = $1, redeemed_unit = $2, counter_reference = $3, redemption = $4, digest = $5
         WHERE id = $6 AND state = 'issued'",
        [
            now.ms().into(),
            unit.as_str().into(),
            voucher.counter_reference.into(),
            key.stored.as_str().into(),
            key.digest.as_str().into(),
            voucher.id.as_str().into(),
        ],
    )
    .await?;
    if used == 0 {
        return Err(Error::Kernel(KernelError::Stale("the voucher")));
    }
    let event = DomainEvent::VoucherRedeemed {
        voucher: voucher.id.clone(),
        member: voucher.member,
        merchant: voucher.merchant,
        unit,
        product: voucher.product,
        occurred_at: now,
    };
    tx.emit(voucher.id.as_str(), &event).await?;
    Ok(())
}

/// What a reader of a printed code takes for another character.
fn unmistaken(c: char) -> char {
    match c {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    }
}

fn random_code() -> String {
    let random = Key::random();
    random.bytes().iter().take(CODE_LENGTH).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}
