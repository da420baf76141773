//! A shop at work while its tenant is in trouble: what it sells, reports and redeems, and what must add up afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heyuan_harness::{Answer, Caller, Tenant, until};
use reqwest::{Client, Method};
use serde_json::{Value, json};

const UNIT: &str = "mall-1";
const OPENING_STOCK: i64 = 1_000_000;
/// Of an article, of a voucher and of a sale at the till.
const PRICE_FEN: i64 = 1_000;
/// What retail gives for it: a point a yuan.
const POINTS: i64 = 10;
const SETTLED_LIMIT: Duration = Duration::from_secs(60);
const PAGE: usize = 200;

/// A mall with one shop, one member and a till.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    app: Caller,
    member: String,
    /// Holds the member's token.
    phone: Caller,
    /// What opens the gateway's page: past any proxy of the machine's settings, since it is on 127.0.0.1.
    browser: Client,
    /// Pieces of vouchers that were bought beforehand.
    vouchers: i64,
}

/// A request that moves money, points or stock, under its key, and what was answered, if anything was.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    path: &'static str,
    key: String,
    body: Value,
    pub(crate) answer: Option<Value>,
}

/// Whether an answer asks to come again with the same request.
pub(crate) fn comes_again(answer: &Answer) -> bool {
    [429, 503].contains(&answer.status) || (answer.status == 409 && answer.problem(409) == "in_progress")
}

fn money(fen: i64) -> Value {
    json!({ "amount": fen, "currency": "CNY" })
}

impl Shop {
    /// Opens it in an empty tenant.
    pub(crate) async fn open(tenant: &Tenant) -> Self {
        let admin = tenant.caller("admin,app");
        let unit = |id: &str, parent: Value, kind: &str, line: Value| json!({ "id": id, "parent": parent, "name": id, "kind": kind, "line": line });
        let units = [unit("group", Value::Null, "group", Value::Null), unit(UNIT, json!("group"), "mall", json!("mall"))];
        admin.put("/v1/org-units", &json!({ "units": units })).await.expect_status(204);
        admin.put("/v1/merchants/books", &json!({ "name": "合院书店", "unit": UNIT })).await.expect(200);
        for (product, kind) in [("tea", "goods"), ("coupon", "voucher")] {
            let body = json!({ "merchant": "books", "name": product, "category": "retail", "kind": kind, "price": money(PRICE_FEN) });
            admin.put(&format!("/v1/products/{product}"), &body).await.expect(200);
            let stock = json!({ "change": OPENING_STOCK, "reason": "opening" });
            admin.post_once(&format!("/v1/products/{product}/stock"), &format!("opening-{product}"), &stock).await.expect(200);
        }
        let identifiers = json!([{ "type": "phone", "value": "13912345678", "verified": true }]);
        let joined = admin.post("/v1/members", &json!({ "unit": UNIT, "identifiers": identifiers })).await.expect(201);
        let text = |name: &str| joined[name].as_str().expect("a member has an id and a token").to_owned();
        let browser = Client::builder().no_proxy().build().expect("the client needs nothing from outside");
        Self { app: tenant.caller("app"), member: text("id"), phone: tenant.caller_with(&text("token")), browser, vouchers: 0 }
    }

    pub(crate) fn member(&self) -> &str {
        &self.member
    }

    /// The same shop, calling another process of the tenant.
    pub(crate) fn at(&self, tenant: &Tenant) -> Self {
        Self { app: tenant.caller_with(self.app.key()), phone: tenant.caller_with(self.phone.key()), ..self.clone() }
    }

    /// Whether the process that it calls knows its unit by now: another one may have been told.
    pub(crate) async fn is_known(&self) -> bool {
        self.app.get("/v1/org-units").await.text().contains(UNIT)
    }

    fn asked(&self, path: &'static str, key: String, body: Value) -> Asked {
        Asked { path, key, body, answer: None }
    }

    /// A sale at the till, reported by the mall.
    pub(crate) fn sale(&self, id: String) -> Asked {
        let (occurred_at, amount) = ("2026-11-20T10:00:00+08:00", money(PRICE_FEN));
        let body =
            json!({ "id": id, "unit": UNIT, "kind": "purchase", "occurred_at": occurred_at, "amount": amount, "member": self.member });
        self.asked("/v1/transactions", id, body)
    }

    /// An order of one piece.
    pub(crate) fn order(&self, key: String) -> Asked {
        let body = json!({ "member": self.member, "lines": [{ "product": "tea", "quantity": 1 }] });
        self.asked("/v1/orders", key, body)
    }

    /// A voucher handed in at the counter.
    pub(crate) fn redemption(&self, code: &str) -> Asked {
        let key = format!("counter-{code}");
        let body = json!({ "code": code, "unit": UNIT, "counter_reference": format!("till-1/{}", &code[..8]) });
        self.asked("/v1/vouchers:redeem", key, body)
    }

    /// Buys this many vouchers and answers their codes once the gateway has told of the payment.
    pub(crate) async fn buy_vouchers(&mut self, pieces: usize) -> Vec<String> {
        let body = json!({ "member": self.member, "lines": [{ "product": "coupon", "quantity": pieces }] });
        let mut order = self.asked("/v1/orders", format!("vouchers-{}", self.vouchers), body);
        self.again(&mut order).await;
        assert!(self.pay(&order).await, "the gateway takes the money");
        let before = usize::try_from(self.vouchers).expect("a count");
        self.vouchers += i64::try_from(pieces).expect("few");
        let codes = until("the vouchers are issued", SETTLED_LIMIT, || async {
            let vouchers = self.items(&self.phone, &format!("/v1/vouchers?member={}", self.member)).await;
            (vouchers.len() == before + pieces).then_some(vouchers)
        })
        .await;
        let codes = codes.iter().map(|voucher| voucher["code"].as_str().expect("a voucher has a code").to_owned());
        codes.collect()
    }

    /// Starts an order's payment and opens the gateway's page; answers whether the gateway took the money.
    async fn pay(&self, order: &Asked) -> bool {
        let Some(payment) = order.answer.as_ref().and_then(|answer| answer["payment"]["id"].as_str()) else { return false };
        let Ok(started) = Answer::try_of(self.phone.request(Method::POST, &format!("/v1/payments/{payment}:start"))).await else {
            return false;
        };
        match started.status {
            200 => {}
            // Paid already: an earlier notification was faster.
            409 => return started.problem(409) == "payment_closed",
            _ => return false,
        }
        let url = started.json()["url"].as_str().expect("a started payment has an address").to_owned();
        self.browser.get(url).send().await.is_ok_and(|page| page.status().is_success())
    }

    /// Sends one request after the other until the server is gone or there is none left; orders are paid as well. The last one
    /// may have no answer.
    pub(crate) async fn work_until_the_end(self, requests: impl Iterator<Item = Asked>, answered: Arc<AtomicUsize>) -> Vec<Asked> {
        let mut done = Vec::new();
        for mut asked in requests {
            let answer = loop {
                let request = self.app.request(Method::POST, asked.path).header("Idempotency-Key", &asked.key).json(&asked.body);
                match Answer::try_of(request).await {
                    Ok(answer) if comes_again(&answer) => {}
                    Ok(answer) => break Some(answer.expect(200)),
                    Err(_) => break None,
                }
            };
            let ends = answer.is_none();
            asked.answer = answer;
            self.pay(&asked).await;
            done.push(asked);
            if ends {
                break;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        done
    }

    /// Sends sales and orders in turn, each until it is done, while the database goes away and comes back; ends after one that was
    /// put off. Every answer is success or asks to come again.
    pub(crate) async fn work_through_an_outage(&self, prefix: &str, answered: &AtomicUsize, put_off: &AtomicUsize) -> Vec<Asked> {
        let mut done = Vec::new();
        for number in 0.. {
            let id = format!("{prefix}-{number}");
            let mut asked = if number % 2 == 0 { self.sale(id) } else { self.order(id) };
            let tries = AtomicUsize::new(0);
            let answer = until("the database is back", SETTLED_LIMIT, || async {
                let answer = self.app.post_once(asked.path, &asked.key, &asked.body).await;
                if comes_again(&answer) {
                    if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                        put_off.fetch_add(1, Ordering::Relaxed);
                    }
                    return None;
                }
                Some(answer)
            })
            .await;
            asked.answer = Some(answer.expect(200));
            done.push(asked);
            answered.fetch_add(1, Ordering::Relaxed);
            if tries.load(Ordering::Relaxed) > 0 {
                break;
            }
        }
        done
    }

    /// Sends a request again under its key: what was acknowledged before is answered as it was.
    pub(crate) async fn again(&self, asked: &mut Asked) {
        let answer = until(&format!("{} answers again", asked.path), SETTLED_LIMIT, || async {
            let answer = self.app.post_once(asked.path, &asked.key, &asked.body).await;
            (!comes_again(&answer)).then_some(answer)
        })
        .await
        .expect(200);
        match &asked.answer {
            Some(before) => assert_eq!(immutable(&answer), immutable(before), "{} under {}", asked.path, asked.key),
            None => asked.answer = Some(answer),
        }
    }

    /// Repeats all of it, so that what had no answer has one, and pays every order.
    pub(crate) async fn all_again(&self, asked: &mut [Asked]) {
        for one in asked {
            self.again(one).await;
            if one.path == "/v1/orders" {
                until("the gateway takes the money", SETTLED_LIMIT, || async { self.pay(one).await.then_some(()) }).await;
            }
        }
    }

    /// Holds that stock, points and redemptions are what all of these requests make, each counted once.
    pub(crate) async fn adds_up(&self, asked: &[Asked]) {
        let count = |path: &str| i64::try_from(asked.iter().filter(|one| one.path == path).count()).expect("few");
        let (sales, orders, redemptions) = (count("/v1/transactions"), count("/v1/orders"), count("/v1/vouchers:redeem"));
        let points = POINTS * (sales + orders + self.vouchers);
        until(&format!("{points} points are there"), SETTLED_LIMIT, || async {
            let member = self.phone.get(&format!("/v1/members/{}", self.member)).await.expect(200);
            let now = member["points"].as_i64().expect("a member has points");
            assert!(now <= points, "{now} points, but {sales} sales and {orders} orders earn {points}");
            (now == points).then_some(())
        })
        .await;
        let mut earned = BTreeMap::<String, i64>::new();
        for entry in self.items(&self.phone, &format!("/v1/members/{}/points", self.member)).await {
            assert_eq!(entry["kind"], "earn", "{entry}");
            *earned.entry(entry["reference"].as_str().expect("an entry has a reference").to_owned()).or_default() += 1;
        }
        let twice: Vec<_> = earned.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "earned more than once: {twice:?}");
        for id in asked.iter().filter(|one| one.path == "/v1/transactions").map(|one| &one.key) {
            assert!(earned.contains_key(&format!("{UNIT}/{id}")), "{id} was acknowledged and earned nothing");
        }
        for (product, sold) in [("tea", orders), ("coupon", self.vouchers)] {
            let stock = self.app.get(&format!("/v1/products/{product}")).await.expect(200)["stock"].as_i64();
            assert_eq!(stock, Some(OPENING_STOCK - sold), "the stock of {product} after {sold} sold");
        }
        let vouchers = self.items(&self.phone, &format!("/v1/vouchers?member={}", self.member)).await;
        assert_eq!(i64::try_from(vouchers.len()), Ok(self.vouchers));
        let redeemed: BTreeSet<_> =
            vouchers.iter().filter(|voucher| voucher["state"] == "redeemed").map(|voucher| voucher["id"].to_string()).collect();
        let acknowledged = asked.iter().filter(|one| one.path == "/v1/vouchers:redeem");
        let acknowledged: BTreeSet<_> = acknowledged.filter_map(|one| Some(one.answer.as_ref()?["id"].to_string())).collect();
        assert_eq!(redeemed, acknowledged, "{redemptions} redemptions");
    }

    /// Every item of a list.
    async fn items(&self, caller: &Caller, path: &str) -> Vec<Value> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = caller.get(&format!("{path}{sign}limit={PAGE}{cursor}")).await.expect(200);
            found.extend(page["items"].as_array().cloned().expect("a page has items"));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }
}

/// An answer without what may change after it: whether an order has been paid by now.
fn immutable(answer: &Value) -> Value {
    let mut answer = answer.clone();
    let orders = answer.get_mut("orders").and_then(Value::as_array_mut).map(std::mem::take);
    let payment = answer.get_mut("payment").map(Value::take);
    let still = |mut part: Value| {
        if let Some(fields) = part.as_object_mut() {
            fields.retain(|name, _| !["state", "paid_at"].contains(&name.as_str()));
        }
        part
    };
    json!({ "orders": orders.map(|orders| orders.into_iter().map(still).collect::<Vec<_>>()), "payment": payment.map(still), "rest": answer })
}
