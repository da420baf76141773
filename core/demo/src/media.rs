//! Bought traffic: platforms, plans and creatives, the clicks they bring, and the report files the platforms export.

use std::path::Path;

use crate::Error;
use crate::calendar::{Calendar, Rhythm};
use crate::draw::{Draw, Purpose};
use crate::message::yuan;
use crate::world::{MALLS, PROJECTS};

/// How a session came about. Direct sessions have none.
#[derive(Clone)]
pub(crate) struct Touch {
    pub(crate) source: &'static str,
    pub(crate) medium: &'static str,
    /// Carries UTM parameters; organic search has only a referrer.
    pub(crate) tagged: bool,
    pub(crate) plan_id: Option<String>,
    pub(crate) creative_id: Option<String>,
    /// The name of the click id; empty where there is none.
    pub(crate) parameter: &'static str,
    pub(crate) click_id: Option<String>,
    pub(crate) referrer: Option<&'static str>,
}

impl Touch {
    pub(crate) fn organic() -> Self {
        Self { tagged: false, referrer: Some("https://www.baidu.com/"), ..Self::own("baidu", "organic", None) }
    }

    /// From an own channel or another line of the group.
    pub(crate) fn own(source: &'static str, medium: &'static str, campaign: Option<&str>) -> Self {
        let plan_id = campaign.map(str::to_owned);
        Self { source, medium, tagged: true, plan_id, creative_id: None, parameter: "", click_id: None, referrer: None }
    }

    pub(crate) fn is_bought(&self) -> bool {
        self.click_id.is_some()
    }
}

struct Platform {
    source: &'static str,
    file: &'static str,
    parameter: &'static str,
    referrer: &'static str,
    account: String,
    cost_per_click_fen: (i64, i64),
    impressions_per_click: (i64, i64),
    share: u32,
    plans: Vec<Plan>,
}

struct Plan {
    id: String,
    name: String,
    unit: &'static str,
    from: u32,
    until: u32,
    creatives: Vec<String>,
    /// Clicks that reached our apps, per creative and day.
    clicks: Vec<u32>,
}

pub(crate) struct Media {
    draw: Draw,
    days: u32,
    platforms: [Platform; 3],
    pub(crate) clicks: u64,
    pub(crate) spend_fen: i64,
}

impl Media {
    pub(crate) fn new(seed: u64, calendar: &Calendar) -> Self {
        let mut draw = Draw::new(seed, Purpose::Advertising);
        let mut platforms = [
            platform("oceanengine", "ocean_engine", "clickid", "https://www.toutiao.com/", draw.digits(16), (600, 1_300), (45, 90), 45),
            platform("tencent", "tencent_ads", "gdt_vid", "https://mp.weixin.qq.com/", draw.digits(8), (700, 1_500), (60, 120), 35),
            platform(
                "baidu",
                "baidu",
                "bd_vid",
                "https://www.baidu.com/",
                format!("baidu-合院{}", draw.digits(3)),
                (1_700, 3_900),
                (12, 30),
                20,
            ),
        ];
        for (index, platform) in platforms.iter_mut().enumerate() {
            for project in &PROJECTS {
                platform.plans.push(plan(
                    &mut draw,
                    index,
                    project.unit,
                    format!("{}-常规", project.name),
                    (0, calendar.days),
                    calendar.days,
                ));
                let (from, until) = *draw.pick(&[(0, 60), (25, 80), (45, 100)]);
                let window = (calendar.days * from / 100, (calendar.days * until).div_ceil(100));
                platform.plans.push(plan(&mut draw, index, project.unit, format!("{}-开盘冲刺", project.name), window, calendar.days));
            }
            if platform.parameter != "bd_vid" {
                for unit in MALLS {
                    let name = if unit == MALLS[0] { "杭州合院里-会员拉新" } else { "成都合院里-会员拉新" };
                    platform.plans.push(plan(&mut draw, index, unit, name.to_owned(), (0, calendar.days), calendar.days));
                }
            }
        }
        Self { draw, days: calendar.days, platforms, clicks: 0, spend_fen: 0 }
    }

    /// A click on an advertisement for a unit on a day; `None` where no plan runs.
    pub(crate) fn click(&mut self, unit: &str, day: u32) -> Option<Touch> {
        let shares = self.platforms.each_ref().map(|platform| platform.share);
        let platform = &mut self.platforms[self.draw.weighted(&shares)];
        let running = |plan: &Plan| plan.unit == unit && (plan.from..plan.until).contains(&day);
        let count = platform.plans.iter().filter(|plan| running(plan)).count();
        if count == 0 {
            return None;
        }
        let place = self.draw.index(count);
        let plan = platform.plans.iter_mut().filter(|plan| running(plan)).nth(place)?;
        let creative = self.draw.index(plan.creatives.len());
        plan.clicks[creative * self.days as usize + day as usize] += 1;
        self.clicks += 1;
        let click_id = match platform.parameter {
            "clickid" => format!("E{}", self.draw.token(43)),
            "gdt_vid" => format!("wx0{}", self.draw.token(22).to_lowercase()),
            _ => self.draw.digits(19),
        };
        Some(Touch {
            source: platform.source,
            medium: "cpc",
            tagged: true,
            plan_id: Some(plan.id.clone()),
            creative_id: Some(plan.creatives[creative].clone()),
            parameter: platform.parameter,
            click_id: Some(click_id),
            referrer: Some(platform.referrer),
        })
    }

    /// Writes `spend/<platform>.csv`; gives their names and rows.
    pub(crate) fn write_reports(&mut self, folder: &Path, calendar: &Calendar) -> Result<Vec<(String, u64)>, Error> {
        let mut written = Vec::new();
        for index in 0..self.platforms.len() {
            let mut rows = self.report(index, calendar);
            rows.insert(0, header(self.platforms[index].source));
            let name = format!("{}.csv", self.platforms[index].file);
            let path = folder.join(&name);
            let text = encode(self.platforms[index].source, &rows).map_err(Error::writing(&path))?;
            std::fs::write(&path, text).map_err(Error::writing(&path))?;
            written.push((name, rows.len() as u64 - 1));
        }
        Ok(written)
    }

    fn report(&mut self, index: usize, calendar: &Calendar) -> Vec<Vec<String>> {
        let (draw, platform) = (&mut self.draw, &self.platforms[index]);
        let mut rows = Vec::new();
        for day in 0..self.days {
            let season = calendar.season(Rhythm::Home, day) as i64;
            for plan in platform.plans.iter().filter(|plan| (plan.from..plan.until).contains(&day)) {
                for (creative, creative_id) in plan.creatives.iter().enumerate() {
                    let reached = i64::from(plan.clicks[creative * self.days as usize + day as usize]);
                    // Most who click leave before the page has loaded; the platform bills them all.
                    let clicks = reached + reached * draw.between(2_200, 4_200) / 1000 + draw.between(0, 4) * season / 1000;
                    let impressions =
                        clicks * draw.between(platform.impressions_per_click.0, platform.impressions_per_click.1) + draw.between(20, 400);
                    let (low, high) = platform.cost_per_click_fen;
                    let spend_fen = (0..clicks).map(|_| draw.between(low, high)).sum::<i64>();
                    self.spend_fen += spend_fen;
                    rows.push(vec![
                        calendar.date(day),
                        platform.account.clone(),
                        plan.id.clone(),
                        plan.name.clone(),
                        creative_id.clone(),
                        impressions.to_string(),
                        clicks.to_string(),
                        yuan(spend_fen),
                    ]);
                }
            }
        }
        rows
    }
}

#[expect(clippy::too_many_arguments, reason = "a table of constants, one row a platform")]
fn platform(
    source: &'static str,
    file: &'static str,
    parameter: &'static str,
    referrer: &'static str,
    account: String,
    cost_per_click_fen: (i64, i64),
    impressions_per_click: (i64, i64),
    share: u32,
) -> Platform {
    Platform { source, file, parameter, referrer, account, cost_per_click_fen, impressions_per_click, share, plans: Vec::new() }
}

fn plan(draw: &mut Draw, platform: usize, unit: &'static str, name: String, (from, until): (u32, u32), days: u32) -> Plan {
    // The platforms' ids differ in length.
    let creatives: Vec<String> = (0..2).map(|_| draw.digits([16, 11, 10][platform])).collect();
    let clicks = vec![0; creatives.len() * days as usize];
    Plan { id: draw.digits([16, 10, 9][platform]), name, unit, from, until, creatives, clicks }
}

fn header(source: &str) -> Vec<String> {
    let names = match source {
        "oceanengine" => ["时间-天", "账户ID", "广告计划ID", "广告计划名称", "创意ID", "展示数", "点击数", "消耗"],
        "tencent" => ["日期", "账户ID", "广告ID", "广告名称", "创意ID", "曝光量", "点击量", "花费"],
        _ => ["日期", "账户", "计划ID", "计划名称", "创意ID", "展现", "点击", "消费"],
    };
    names.map(str::to_owned).to_vec()
}

/// As each platform's download button does it: a byte order mark, plain UTF-8, or GBK.
fn encode(source: &str, rows: &[Vec<String>]) -> std::io::Result<Vec<u8>> {
    let terminator = if source == "tencent" { csv::Terminator::Any(b'\n') } else { csv::Terminator::CRLF };
    let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
    for row in rows {
        writer.write_record(row)?;
    }
    let text = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(match source {
        "oceanengine" => [b"\xef\xbb\xbf".as_slice(), &text].concat(),
        "tencent" => text,
        _ => encoding_rs::GBK.encode(&String::from_utf8_lossy(&text)).0.into_owned(),
    })
}
