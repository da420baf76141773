//! An order in the mall's app: paid, its voucher redeemed once, its goods given back.

use super::talk::{Key, words};
use super::{Tour, items, must, number, text};
use crate::demo::client::Call;
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};

/// The unit at whose shops the member buys.
const MALL: &str = "mall-hz";

/// What the order left behind, for the refund.
pub(super) struct Bought {
    order: String,
    goods: String,
    price_fen: i64,
    /// Pieces before the order.
    stock: i64,
    /// Points when the order had earned its own.
    points: i64,
}

impl Tour {
    pub(super) async fn order_and_redeem(&mut self) -> anyhow::Result<Bought> {
        self.talk.title(words("An order is paid, its voucher redeemed, once", "下单、支付、核销，只此一次"))?;
        let (goods, voucher) = self.choose().await?;
        let points_before = self.points().await?;
        let (goods_id, voucher_id) = (text(&goods, "id")?, text(&voucher, "id")?);
        let cart = json!({
            "member": self.member,
            "lines": [{ "product": goods_id, "quantity": 1 }, { "product": voucher_id, "quantity": 1 }],
        });
        let call = Call::json(Method::POST, "/v1/orders", "", &cart).once(format!("tour-cart-{}", self.fresh.mark));
        let placed = self.ask(Key::Member, call).await?;
        let order = text(&placed["orders"][0], "id")?;
        self.pay(&text(&placed["payment"], "id")?).await?;
        self.redeem(&order).await?;
        let points = self.points_when("the order earns points", |points| points > points_before).await?;
        self.talk.meaning(words(
            "Stock was reserved in the database, the gateway's signed notification paid the order, the mall's event earned points, and the voucher had its single, final use: the second counter is refused.",
            "库存在数据库中预留，网关的签名通知完成支付，商场事件带来积分；券只有一次最终核销，第二个核销点被拒绝。",
        ))?;
        Ok(Bought { order, goods: goods_id, price_fen: number(&goods["price"], "amount")?, stock: number(&goods, "stock")?, points })
    }

    /// Goods and a voucher of one shop, both in stock.
    async fn choose(&self) -> anyhow::Result<(Value, Value)> {
        let merchants = self.look(Key::App, "/v1/merchants?limit=200").await?;
        for merchant in items(&merchants).iter().filter(|merchant| merchant["unit"] == MALL) {
            let path = format!("/v1/products?merchant={}&limit=200", text(merchant, "id")?);
            let products = self.look(Key::App, path.as_str()).await?;
            // Dear enough to earn a point.
            let of_kind = |kind: &str| {
                let fits = |product: &&Value| {
                    product["kind"] == kind && product["stock"].as_i64() > Some(0) && product["price"]["amount"].as_i64() >= Some(1000)
                };
                items(&products).iter().find(fits).cloned()
            };
            if let (Some(goods), Some(voucher)) = (of_kind("goods"), of_kind("voucher")) {
                self.ask(Key::App, Call::get(path, "")).await?;
                return Ok((goods, voucher));
            }
        }
        bail!("no shop of {MALL} has goods and a voucher in stock; load the demo group first")
    }

    async fn pay(&self, payment: &str) -> anyhow::Result<()> {
        let start = Call { method: Method::POST, ..Call::get(format!("/v1/payments/{payment}:start"), "") };
        let started = self.ask(Key::Member, start).await?;
        let url = text(&started, "url")?;
        crate::cli::print(&format!("\ncurl -sS '{url}'"))?;
        self.talk.answer(&self.client.open(&url).await?)?;
        let call = Call::get(format!("/v1/payments/{payment}"), "");
        let paid = |payment: &Value| (payment["state"] == "paid").then(|| payment.clone());
        self.ask_until(Key::Member, call, paid, "the gateway's notification pays the order").await?;
        Ok(())
    }

    async fn redeem(&self, order: &str) -> anyhow::Result<()> {
        let list = Call::get(format!("/v1/vouchers?member={}", self.member), "");
        let of_order = |page: &Value| items(page).iter().find(|voucher| voucher["order"] == order).cloned();
        let page = self.ask_until(Key::Member, list, of_order, "the paid order issues its voucher").await?;
        let voucher = of_order(&page).context("the voucher vanished")?;
        let at_till = |till: u32| {
            let reference = format!("till-{till}/{}", self.fresh.mark);
            let body = json!({ "code": voucher["code"], "unit": voucher["unit"], "counter_reference": reference });
            Call::json(Method::POST, "/v1/vouchers:redeem", "", &body).once(format!("tour-redeem-{till}-{}", self.fresh.mark))
        };
        let redeemed = self.ask(Key::App, at_till(3)).await?;
        must(redeemed["state"] == "redeemed", "the voucher is redeemed")?;
        self.ask_in_vain(Key::App, at_till(4), "voucher_redeemed").await
    }

    pub(super) async fn refund(&mut self, bought: &Bought) -> anyhow::Result<()> {
        self.talk.title(words("The goods go back: money, stock and points with them", "退货：钱、库存、积分一并退回"))?;
        let body = json!({ "lines": [{ "product": bought.goods, "quantity": 1 }], "reason": "the wrong size" });
        let call = Call::json(Method::POST, format!("/v1/orders/{}/refunds", bought.order), "", &body);
        let refund = self.ask(Key::App, call.once(format!("tour-refund-{}", self.fresh.mark))).await?;
        must(number(&refund["amount"], "amount")? == bought.price_fen, "what was paid for the goods is given back")?;
        let order = self.look(Key::Member, format!("/v1/orders/{}", bought.order)).await?;
        must(order["state"] == "partly_refunded", "the voucher stays paid")?;
        let product = self.ask(Key::App, Call::get(format!("/v1/products/{}", bought.goods), "")).await?;
        must(number(&product, "stock")? >= bought.stock, "the piece is in stock again")?;
        let points = self.points_when("the refund takes its points back", |points| points < bought.points).await?;
        self.ask(Key::Member, Call::get(format!("/v1/members/{}/points", self.member), "")).await?;
        must(points > 0, "the member day's points stay")?;
        self.talk.meaning(words(
            "Points go back in proportion to what was kept, whatever the number and order of refunds; each entry of the book is numbered and never changes.",
            "积分按保留部分的比例退回，与退款次数和先后无关；账本每一笔都有编号，永不更改。",
        ))
    }

    async fn points(&self) -> anyhow::Result<i64> {
        number(&self.look(Key::Member, format!("/v1/members/{}", self.member)).await?, "points")
    }

    async fn points_when(&self, story: &str, as_told: impl Fn(i64) -> bool) -> anyhow::Result<i64> {
        let call = Call::get(format!("/v1/members/{}", self.member), "");
        let part = |member: &Value| as_told(member["points"].as_i64()?).then(|| member.clone());
        let member = self.ask_until(Key::Member, call, part, story).await?;
        number(&member, "points")
    }
}
