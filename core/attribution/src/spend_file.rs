//! Spend files as the platforms export them: their encodings, headers and figures, read exactly; a broken row harms no other.

use crate::error::Error;
use heyuan_contract::Fen;
use heyuan_kernel::table::{self, Heading, Row, RowError, Table};
use jiff::civil::Date;
use std::collections::HashMap;

/// Rows of one file.
pub(crate) const ROWS_MAX: usize = 200_000;
/// Errors told in one answer; the count is always whole.
const ERRORS_TOLD_MAX: usize = 1_000;
/// What stands in the first cell of a row of totals, which is no row of spend.
const TOTALS: [&str; 4] = ["合计", "总计", "汇总", "total"];

/// An advertising platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// 巨量引擎
    OceanEngine,
    /// 腾讯广告
    TencentAds,
    /// 百度营销
    Baidu,
}

impl Platform {
    /// Every platform.
    pub const ALL: [Platform; 3] = [Platform::OceanEngine, Platform::TencentAds, Platform::Baidu];

    /// The spelling in requests, tables and touches.
    pub const fn as_str(self) -> &'static str {
        match self {
            Platform::OceanEngine => "ocean_engine",
            Platform::TencentAds => "tencent_ads",
            Platform::Baidu => "baidu",
        }
    }

    /// The platform with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<Platform> {
        Platform::ALL.into_iter().find(|platform| platform.as_str() == text)
    }

    /// What the platform calls a column, its own name first.
    const fn names(self, column: Column) -> &'static [&'static str] {
        match (self, column) {
            (Platform::OceanEngine, Column::Day) => &["时间-天", "日期", "date", "stat_datetime", "day"],
            (_, Column::Day) => &["日期", "时间", "date", "day"],
            (Platform::Baidu, Column::Account) => &["账户", "账户ID", "account", "account_id"],
            (_, Column::Account) => &["账户ID", "广告主ID", "账户", "account_id", "advertiser_id", "account"],
            (Platform::OceanEngine, Column::Plan) => &["广告计划ID", "计划ID", "ad_id", "plan_id", "plan"],
            (Platform::TencentAds, Column::Plan) => &["广告ID", "adgroup_id", "plan_id", "plan"],
            (Platform::Baidu, Column::Plan) => &["计划ID", "推广计划ID", "campaign_id", "plan_id", "plan"],
            (Platform::OceanEngine, Column::PlanName) => &["广告计划名称", "计划名称", "ad_name", "plan_name"],
            (Platform::TencentAds, Column::PlanName) => &["广告名称", "adgroup_name", "plan_name"],
            (Platform::Baidu, Column::PlanName) => &["计划名称", "推广计划", "campaign_name", "plan_name"],
            (_, Column::Creative) => &["创意ID", "创意", "creative_id", "creative"],
            (Platform::OceanEngine, Column::Impressions) => &["展示数", "show", "impressions"],
            (Platform::TencentAds, Column::Impressions) => &["曝光量", "view_count", "impressions"],
            (Platform::Baidu, Column::Impressions) => &["展现", "展现量", "impression", "impressions"],
            (Platform::OceanEngine, Column::Clicks) => &["点击数", "click", "clicks"],
            (Platform::TencentAds, Column::Clicks) => &["点击量", "valid_click_count", "clicks"],
            (Platform::Baidu, Column::Clicks) => &["点击", "点击量", "click", "clicks"],
            (Platform::OceanEngine, Column::Spend) => &["消耗", "总花费", "cost", "stat_cost", "spend"],
            (Platform::TencentAds, Column::Spend) => &["花费", "消耗", "cost", "spend"],
            (Platform::Baidu, Column::Spend) => &["消费", "消费(元)", "cost", "spend"],
        }
    }
}

/// What a row may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Day,
    Account,
    Plan,
    PlanName,
    Creative,
    Impressions,
    Clicks,
    Spend,
}

impl Column {
    const ALL: [Column; 8] = [
        Column::Day,
        Column::Account,
        Column::Plan,
        Column::PlanName,
        Column::Creative,
        Column::Impressions,
        Column::Clicks,
        Column::Spend,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Column::Day => "day",
            Column::Account => "account",
            Column::Plan => "plan",
            Column::PlanName => "plan_name",
            Column::Creative => "creative",
            Column::Impressions => "impressions",
            Column::Clicks => "clicks",
            Column::Spend => "spend",
        }
    }

    /// Without these a row says nothing.
    const fn is_needed(self) -> bool {
        matches!(self, Column::Day | Column::Plan | Column::Spend)
    }
}

/// A row of spend: a creative's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendRow {
    /// In the tenant's time zone, `2026-11-01`.
    pub day: String,
    /// The advertiser's account; empty when the file has none.
    pub account: String,
    /// The plan's id.
    pub plan: String,
    /// The plan's name; empty when the file has none.
    pub plan_name: String,
    /// The creative's id; empty when the file has none.
    pub creative: String,
    /// How often it was shown.
    pub impressions: i64,
    /// How often it was clicked.
    pub clicks: i64,
    /// What was charged.
    pub amount: Fen,
}

/// A file as read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpendFile {
    /// The rows that could be read, with their line.
    pub rows: Vec<(u64, SpendRow)>,
    /// The first thousand errors.
    pub errors: Vec<RowError>,
    /// All rows left out.
    pub refused: u64,
}

impl SpendFile {
    pub(crate) fn refuse(&mut self, error: RowError) {
        self.refused += 1;
        if self.errors.len() < ERRORS_TOLD_MAX {
            self.errors.push(error);
        }
    }
}

/// Reads a file. The encoding is the declared one, else UTF-8 when its header reads as such, else GBK.
///
/// # Errors
/// `unknown_header`, `too_many_rows`, `invalid_request` for an encoding that we don't know.
pub fn parse(platform: Platform, bytes: &[u8], charset: Option<&str>) -> Result<SpendFile, Error> {
    let text = table::decode(bytes, charset)?;
    let headings = Column::ALL.map(|column| Heading { field: column.as_str(), names: platform.names(column), needed: column.is_needed() });
    let rows = Table::open(&text, headings.to_vec(), &TOTALS).map_err(|missing| Error::UnknownHeader {
        platform: platform.as_str(),
        wanted: missing.field,
        names: missing.names.join(", "),
    })?;
    let mut file = SpendFile::default();
    let mut seen: HashMap<(String, String, String, String), u64> = HashMap::new();
    for row in rows {
        match row.and_then(|row| Ok((row.number(), read_row(&row)?))) {
            Err(error) => file.refuse(error),
            Ok((line, row)) => {
                let key = (row.day.clone(), row.account.clone(), row.plan.clone(), row.creative.clone());
                if let Some(earlier) = seen.get(&key) {
                    let detail = format!("row {earlier} has the same day, account, plan and creative; send one row for them");
                    file.refuse(RowError { row: line, field: "row", detail });
                    continue;
                }
                seen.insert(key, line);
                file.rows.push((line, row));
            }
        }
        if file.rows.len() > ROWS_MAX {
            return Err(Error::TooManyRows { what: "a spend file", most: ROWS_MAX, instead: "split it by days" });
        }
    }
    Ok(file)
}

type Wrong = (&'static str, String);

fn read_row(row: &Row) -> Result<SpendRow, RowError> {
    let cell = |column: Column| row.cell(column.as_str());
    let name = |column: Column| cell(column).to_owned();
    let told = |(field, detail): Wrong| row.wrong(field, detail);
    Ok(SpendRow {
        day: day(cell(Column::Day)).map_err(told)?,
        account: name(Column::Account),
        plan: name(Column::Plan),
        plan_name: name(Column::PlanName),
        creative: name(Column::Creative),
        impressions: count(Column::Impressions, cell(Column::Impressions)).map_err(told)?,
        clicks: count(Column::Clicks, cell(Column::Clicks)).map_err(told)?,
        amount: amount(cell(Column::Spend)).map_err(told)?,
    })
}

/// `2026-11-01`, `2026/11/1`, `20261101`, or the first of these with a time behind it.
fn day(text: &str) -> Result<String, Wrong> {
    let date_part = text.split([' ', 'T']).next().unwrap_or_default();
    let numbers: Vec<&str> = if date_part.len() == 8 && date_part.bytes().all(|b| b.is_ascii_digit()) {
        vec![&date_part[..4], &date_part[4..6], &date_part[6..]]
    } else {
        date_part.split(['-', '/']).collect()
    };
    let wrong = || ("day", "expected a day such as 2026-11-01, in the tenant's time zone".to_owned());
    let [year, month, day] = numbers.as_slice() else { return Err(wrong()) };
    let number = |part: &str| part.parse::<i16>().ok().filter(|number| *number > 0);
    let narrow = |part: &str| number(part).and_then(|number| i8::try_from(number).ok());
    let date = number(year).zip(narrow(month)).zip(narrow(day)).and_then(|((year, month), day)| Date::new(year, month, day).ok());
    date.filter(|date| (2000..=2999).contains(&date.year())).map(|date| date.to_string()).ok_or_else(wrong)
}

fn count(column: Column, text: &str) -> Result<i64, Wrong> {
    if text.is_empty() || text == "-" {
        return Ok(0);
    }
    let plain = without_separators(text);
    let number = plain.as_deref().and_then(|text| text.parse::<i64>().ok()).filter(|number| (0..=1_000_000_000_000).contains(number));
    number.ok_or_else(|| (column.as_str(), "expected a whole number, 0 or more".to_owned()))
}

/// Decimal yuan, exactly.
fn amount(text: &str) -> Result<Fen, Wrong> {
    let wrong = |detail: String| ("spend", detail);
    let plain = without_separators(text.trim_start_matches(['¥', '￥'])).ok_or_else(|| wrong("expected yuan such as 1234.56".into()))?;
    let fen = Fen::from_yuan(&plain).map_err(|e| wrong(format!("expected yuan such as 1234.56: {e}")))?;
    if (0..=100_000_000_000_000).contains(&fen.0) { Ok(fen) } else { Err(wrong("expected 0 yuan or more, below a trillion".into())) }
}

/// Takes out commas that part thousands; `None` when they stand anywhere else.
fn without_separators(text: &str) -> Option<String> {
    if !text.contains(',') {
        return Some(text.to_owned());
    }
    let whole = text.split('.').next().unwrap_or_default();
    let mut groups = whole.split(',');
    let fits = groups.next().is_some_and(|group| (1..=3).contains(&group.len())) && groups.all(|group| group.len() == 3);
    let after = text.len() > whole.len() && text[whole.len()..].contains(',');
    (fits && !after).then(|| text.replace(',', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_exactly_or_refused() {
        for (text, expected) in [
            ("12.5", Some(1250)),
            ("1,234.56", Some(123_456)),
            ("￥0.07", Some(7)),
            ("12,34.5", None),
            ("1.2,3", None),
            ("1.234", None),
            ("-1", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(amount(text).ok().map(|fen| fen.0), expected, "{text}");
        }
        for (text, expected) in [
            ("2026-11-01", Some("2026-11-01")),
            ("2026/11/1", Some("2026-11-01")),
            ("20261101", Some("2026-11-01")),
            ("2026-11-01 00:00:00", Some("2026-11-01")),
            ("2026-02-30", None),
            ("0026-11-01", None),
            ("昨天", None),
            ("", None),
        ] {
            assert_eq!(day(text).ok().as_deref(), expected, "{text}");
        }
        assert_eq!(count(Column::Clicks, "1,000").ok(), Some(1000));
        assert_eq!(count(Column::Clicks, "-").ok(), Some(0));
        assert!(count(Column::Clicks, "many").is_err());
    }

    const BAIDU: &str = "日期,账户,计划ID,计划名称,创意ID,展现,点击,消费\r\n\
        2026-11-01,合院,901,钱塘-常规,31,100,5,12.50\r\n\
        2026-11-01,合院,902,钱塘-开盘,32,100,5,twelve\r\n\
        2026-11-01,合院,903,锦江,33,100,5\r\n\
        2026-11-01,合院,901,钱塘-常规,31,9,9,9.00\r\n\
        2026-11-02,合院,901,钱塘-常规,31,80,4,\"1,000.07\"\r\n\
        合计,,,,,,,1012.57\r\n";

    type Rows = Vec<(u64, i64)>;
    type Faults = Vec<(u64, &'static str)>;

    fn told(file: &SpendFile) -> (Rows, Faults) {
        let rows = file.rows.iter().map(|(line, row)| (*line, row.amount.0)).collect();
        (rows, file.errors.iter().map(|error| (error.row, error.field)).collect())
    }

    #[test]
    fn broken_rows_are_told_by_number_and_field_and_harm_no_other() {
        let expected = (vec![(2, 1250), (6, 100_007)], vec![(3, "spend"), (4, "row"), (5, "row")]);
        let gbk = encoding_rs::GBK.encode(BAIDU).0.into_owned();
        let with_mark = [b"\xef\xbb\xbf".as_slice(), BAIDU.as_bytes()].concat();
        let cases = [(BAIDU.as_bytes().to_vec(), None), (gbk.clone(), None), (gbk, Some("gb2312")), (with_mark, None)];
        for (bytes, charset) in cases {
            let file = parse(Platform::Baidu, &bytes, charset).expect("a readable file");
            assert_eq!(told(&file), expected, "{charset:?}");
            assert_eq!(file.rows[0].1.plan_name, "钱塘-常规");
        }
    }

    #[test]
    fn a_broken_character_costs_its_own_row() {
        let gbk = encoding_rs::GBK.encode(BAIDU).0.into_owned();
        let at = gbk.windows(3).position(|bytes| bytes == b"901").expect("the plan stands there") + 4;
        let mut broken = gbk;
        broken[at] = 0xff;
        let file = parse(Platform::Baidu, &broken, None).expect("a readable file");
        assert_eq!(told(&file).1.first(), Some(&(2, "plan_name")));
        assert_eq!(file.rows.len(), 2, "the repeat of the broken row takes its place");
        assert!(parse(Platform::Baidu, BAIDU.as_bytes(), Some("utf-16")).is_err());
    }

    #[test]
    fn another_header_is_refused_with_the_names_that_would_do() {
        let error = parse(Platform::TencentAds, BAIDU.as_bytes(), None).expect_err("a file of Baidu");
        assert!(error.to_string().contains("广告ID"), "{error}");
        assert!(parse(Platform::Baidu, b"", None).is_err());
        let english = "date,campaign_id,cost\n2026-11-01,901,12.50\n";
        assert_eq!(parse(Platform::Baidu, english.as_bytes(), None).map(|file| file.rows.len()).ok(), Some(1));
    }
}
