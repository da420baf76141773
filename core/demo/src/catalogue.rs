//! What the two malls sell: merchants, goods with stock and price, and vouchers.

use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::draw::{Draw, Purpose};
use crate::world::MALLS;

#[derive(Serialize)]
pub(crate) struct Catalogue {
    merchants: Vec<Merchant>,
    pub(crate) products: Vec<Product>,
    pub(crate) vouchers: Vec<Voucher>,
}

#[derive(Serialize)]
struct Merchant {
    id: String,
    unit: &'static str,
    name: String,
    category: &'static str,
    /// Of each sale, what the mall keeps.
    commission_per_mille: i64,
}

#[derive(Serialize)]
pub(crate) struct Product {
    pub(crate) sku: String,
    pub(crate) merchant_id: String,
    pub(crate) unit: &'static str,
    pub(crate) name: String,
    pub(crate) category: &'static str,
    pub(crate) price_fen: i64,
    pub(crate) stock: i64,
}

#[derive(Serialize)]
pub(crate) struct Voucher {
    pub(crate) sku: String,
    pub(crate) merchant_id: String,
    pub(crate) unit: &'static str,
    pub(crate) name: String,
    pub(crate) category: &'static str,
    pub(crate) price_fen: i64,
    pub(crate) face_value_fen: i64,
    pub(crate) stock: i64,
    pub(crate) valid_days: i64,
}

/// Goods and their price in yuan.
type Goods = &'static [(&'static str, i64)];

/// Category, name of the merchant and what it sells.
const SHOPS: [(&str, &str, Goods); 8] = [
    ("dining", "院子小馆", &[("双人套餐", 168), ("四人套餐", 328), ("东坡肉", 68), ("龙井虾仁", 98), ("家宴礼盒", 588)]),
    ("cafe", "檐下咖啡", &[("拿铁", 28), ("手冲", 38), ("咖啡豆 250 克", 98), ("下午茶双人", 128)]),
    ("fashion", "素染", &[("亚麻衬衫", 399), ("羊毛大衣", 1899), ("围巾", 269), ("连衣裙", 699)]),
    ("beauty", "花间集", &[("面霜", 468), ("口红", 259), ("护肤套装", 1080), ("香水", 788)]),
    ("children", "小庭院", &[("积木", 199), ("绘本套装", 158), ("亲子乐园次卡", 98), ("童装", 229)]),
    ("electronics", "灯下数码", &[("耳机", 899), ("扫地机器人", 2999), ("台灯", 359), ("手机壳", 79)]),
    ("grocery", "合院市集", &[("时令水果", 69), ("有机蔬菜箱", 99), ("牛奶一箱", 79), ("大米 5 公斤", 88), ("粮油礼盒", 239)]),
    ("leisure", "云台影院", &[("电影票", 45), ("双人观影套餐", 128), ("健身月卡", 399), ("瑜伽体验", 88)]),
];

impl Catalogue {
    pub(crate) fn new(seed: u64) -> Self {
        // Its own place in the stream, away from tablets and advisers.
        let mut draw = Draw::new(!seed, Purpose::Catalogue);
        let mut catalogue = Self { merchants: Vec::new(), products: Vec::new(), vouchers: Vec::new() };
        for unit in MALLS {
            for (category, name, goods) in SHOPS {
                catalogue.open_shop(&mut draw, unit, category, name, goods);
            }
        }
        catalogue
    }

    fn open_shop(&mut self, draw: &mut Draw, unit: &'static str, category: &'static str, name: &str, goods: Goods) {
        let id = format!("m-{}", draw.hexadecimal(10));
        for (label, yuan) in goods {
            self.products.push(Product {
                sku: format!("sku-{}", draw.hexadecimal(10)),
                merchant_id: id.clone(),
                unit,
                name: (*label).to_owned(),
                category,
                price_fen: yuan * 100 + 10 * draw.between(-9, 9),
                stock: draw.between(40, 5_000),
            });
        }
        let face_value_fen = *draw.pick(&[5_000, 10_000, 20_000]);
        self.vouchers.push(Voucher {
            sku: format!("vou-{}", draw.hexadecimal(10)),
            merchant_id: id.clone(),
            unit,
            name: format!("{name} {} 元代金券", face_value_fen / 100),
            category,
            price_fen: face_value_fen * draw.between(78, 92) / 100,
            face_value_fen,
            stock: draw.between(500, 20_000),
            valid_days: 90,
        });
        let commission_per_mille = draw.between(50, 150);
        self.merchants.push(Merchant { id, unit, name: name.to_owned(), category, commission_per_mille });
    }

    /// Writes `catalogue.json`.
    pub(crate) fn write(&self, path: &Path) -> Result<u64, Error> {
        crate::output::write_document(path, self)?;
        Ok((self.merchants.len() + self.products.len() + self.vouchers.len()) as u64)
    }

    pub(crate) fn product(&self, draw: &mut Draw, mall: usize) -> &Product {
        let half = self.products.len() / MALLS.len();
        // The square of an even draw: the first goods of the list sell best.
        let place = draw.below(half as u64) * draw.below(half as u64) / half as u64;
        let products = &self.products[mall * half..(mall + 1) * half];
        // Spread the favourites over all shops instead of the first one.
        &products[(place as usize * 7 + 3) % half]
    }

    pub(crate) fn voucher(&self, draw: &mut Draw, mall: usize) -> &Voucher {
        let half = self.vouchers.len() / MALLS.len();
        &self.vouchers[mall * half + draw.index(half)]
    }
}
