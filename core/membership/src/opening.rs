//! Files of opening balances: columns under their own or mapped names, figures read exactly, a broken row told and harming no other.

use crate::customers::Identifier;
use crate::error::Error;
use crate::fraction::gcd;
use heyuan_contract::{Line, MemberId, Ratio, Timestamp, TransactionId};
use heyuan_kernel::table::{self, Heading, Row, RowError, Table};
use heyuan_kernel::time::parse_day;
use heyuan_kernel::{Problem, Zone};
use serde::Serialize;
use std::collections::HashMap;

/// Rows of one file: what is read and answered within one request.
const ROWS_MAX: usize = 200_000;
/// Most points, or growth, of one row.
const AMOUNT_MAX: i64 = 1_000_000_000;
/// Most fen that a point may cost.
const COST_FEN_MAX: i64 = 10_000;
/// Largest denominator of a cost: what sums of it stay exact with.
const COST_DENOMINATOR_MAX: i64 = 1_000_000;
/// How far ahead points may expire, in days.
const EXPIRES_DAYS_MAX: i32 = 50 * 366;

/// A column by its own name, and what else files call it.
const COLUMNS: [(&str, &[&str], bool); 11] = [
    ("member", &["member", "会员", "会员号"], false),
    ("phone", &["phone", "手机", "手机号"], false),
    ("openid", &["openid"], false),
    ("app", &["app", "小程序"], false),
    ("line", &["line", "业态", "发行方"], false),
    ("points", &["points", "积分"], true),
    ("cost_fen", &["cost_fen", "单位成本(分)"], false),
    ("expires_on", &["expires_on", "到期日"], false),
    ("growth", &["growth", "成长值"], false),
    ("earned_on", &["earned_on", "获得日"], false),
    ("external_id", &["external_id", "流水号"], false),
];

/// Whose balance it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Whom {
    /// A member by its id.
    Member(MemberId),
    /// The member behind an identifier.
    Identifier(Identifier),
}

/// A row that could be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OpeningRow {
    /// The line in the file, the header being 1.
    pub(crate) number: u64,
    pub(crate) whom: Whom,
    pub(crate) balance: Balance,
    /// The row's own name in the unit, if it has one.
    pub(crate) external_id: Option<TransactionId>,
}

/// What is taken over, and what a repeated row must have in common.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Balance {
    pub(crate) line: Line,
    pub(crate) points: i64,
    pub(crate) cost: Ratio,
    pub(crate) expires_at: Timestamp,
    pub(crate) growth: i64,
    /// When the growth was earned.
    pub(crate) earned_at: Option<Timestamp>,
}

/// What a file is read with.
pub(crate) struct Reading<'a> {
    /// Pairs of a column's own name and what the file calls it: `points:剩余积分,phone:手机号码`.
    pub(crate) mapping: &'a str,
    pub(crate) charset: Option<&'a str>,
    /// The line of rows that name none, and the only one that they may name.
    pub(crate) line: Option<Line>,
    pub(crate) zone: &'a Zone,
    pub(crate) now: Timestamp,
}

/// Reads a file: each row, or what is wrong with it, in the file's order.
pub(crate) fn parse(bytes: &[u8], reading: &Reading<'_>) -> Result<Vec<Result<OpeningRow, RowError>>, Error> {
    let text = table::decode(bytes, reading.charset)?;
    let text = mapped(text, reading.mapping)?;
    let headings = COLUMNS.map(|(field, names, needed)| Heading { field, names, needed });
    let table = Table::open(&text, headings.to_vec(), &["合计", "总计", "total"]).map_err(|missing| {
        let names = missing.names.join(", ");
        Problem::invalid("header", format!("the column {} is missing; it may be called {names}, or be named by mapping", missing.field))
    })?;
    let mut rows = Vec::new();
    let mut seen: HashMap<TransactionId, u64> = HashMap::new();
    for row in table {
        if rows.len() == ROWS_MAX {
            return Err(Problem::invalid("body", format!("expected at most {ROWS_MAX} rows; split the file")).into());
        }
        rows.push(row.and_then(|row| read(&row, reading)).and_then(|read| first_of_its_name(&mut seen, read)));
    }
    Ok(rows)
}

fn first_of_its_name(seen: &mut HashMap<TransactionId, u64>, row: OpeningRow) -> Result<OpeningRow, RowError> {
    let earlier = row.external_id.clone().and_then(|id| seen.insert(id, row.number));
    match earlier {
        None => Ok(row),
        Some(earlier) => {
            let detail = format!("row {earlier} has the same external_id; give each row its own");
            Err(RowError { row: row.number, field: "external_id", detail })
        }
    }
}

/// The text with the header's cells renamed to the columns that they are mapped to.
fn mapped(text: String, mapping: &str) -> Result<String, Problem> {
    if mapping.is_empty() {
        return Ok(text);
    }
    let (header, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let mut cells: Vec<String> = header.split(',').map(|cell| cell.trim().trim_matches('"').to_owned()).collect();
    for pair in mapping.split(',') {
        let known = pair.split_once(':').filter(|(field, _)| COLUMNS.iter().any(|(name, ..)| name == field));
        let Some((field, name)) = known else {
            let fields = COLUMNS.map(|(name, ..)| name).join(", ");
            return Err(Problem::invalid(
                "mapping",
                format!("expected pairs such as points:剩余积分, with one of {fields} before the colon"),
            ));
        };
        let Some(place) = cells.iter().position(|cell| cell == name.trim()) else {
            return Err(Problem::invalid("mapping", format!("the file has no column with the name that {field} is mapped to")));
        };
        cells.iter_mut().filter(|cell| cell.eq_ignore_ascii_case(field)).for_each(String::clear);
        field.clone_into(&mut cells[place]);
    }
    Ok(format!("{}\n{rest}", cells.join(",")))
}

fn read(row: &Row, reading: &Reading<'_>) -> Result<OpeningRow, RowError> {
    let whom = whom(row)?;
    let line = line(row, reading.line)?;
    let points = amount(row, "points")?;
    let growth = amount(row, "growth")?;
    if points + growth == 0 {
        return Err(row.wrong("points", "expected points or growth above 0"));
    }
    let balance = Balance {
        line,
        points,
        cost: if points > 0 { cost(row)? } else { free(row)? },
        expires_at: if points > 0 { expiry(row, reading)? } else { Timestamp::MAX },
        growth,
        earned_at: earned(row, reading)?,
    };
    let external_id = match row.cell("external_id") {
        "" => None,
        text => {
            let id = TransactionId::new(text);
            Some(id.map_err(|_| row.wrong("external_id", "expected 1 to 64 characters of A-Z a-z 0-9 . _ : @ -"))?)
        }
    };
    Ok(OpeningRow { number: row.number(), whom, balance, external_id })
}

/// What points cost of which there are none.
fn free(row: &Row) -> Result<Ratio, RowError> {
    Ratio::new(0, 1).map_err(|e| row.wrong("cost_fen", e.to_string()))
}

fn whom(row: &Row) -> Result<Whom, RowError> {
    let identifier = |kind: &str, app: Option<&str>| {
        Whom::Identifier(Identifier { kind: kind.to_owned(), value: row.cell(kind).to_owned(), app: app.map(str::to_owned) })
    };
    match (row.cell("member"), row.cell("phone"), row.cell("openid")) {
        (id, "", "") if !id.is_empty() => Ok(Whom::Member(MemberId::new(id).map_err(|_| row.wrong("member", "expected a member's id"))?)),
        ("", phone, "") if !phone.is_empty() => Ok(identifier("phone", None)),
        ("", "", openid) if !openid.is_empty() => match row.cell("app") {
            "" => Err(row.wrong("app", "an openid belongs to an app; name it")),
            app => Ok(identifier("openid", Some(app))),
        },
        _ => Err(row.wrong("member", "expected one of member, phone and openid")),
    }
}

fn line(row: &Row, own: Option<Line>) -> Result<Line, RowError> {
    let text = row.cell("line");
    match (text, Line::parse(text), own) {
        ("", _, Some(own)) => Ok(own),
        (_, Some(named), own) if own.is_none_or(|own| own == named) => Ok(named),
        (_, _, Some(own)) => Err(row.wrong("line", format!("expected {own}, the line of the import's unit"))),
        (_, _, None) => Err(row.wrong("line", "expected the issuing line: residential, mall, office, hotel or community")),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn amount(row: &Row, field: &'static str) -> Result<i64, RowError> {
    let text = row.cell(field);
    if text.is_empty() {
        return Ok(0);
    }
    let number = text.parse::<i64>().ok().filter(|number| is_digits(text) && *number <= AMOUNT_MAX);
    number.ok_or_else(|| row.wrong(field, format!("expected a whole number, 0 to {AMOUNT_MAX}")))
}

fn cost(row: &Row) -> Result<Ratio, RowError> {
    exact(row.cell("cost_fen")).ok_or_else(|| {
        row.wrong("cost_fen", format!("expected fen a point, such as 0.5 or 1/3, at most {COST_FEN_MAX}, with up to 6 decimals"))
    })
}

/// A decimal or a fraction, in lowest terms.
fn exact(text: &str) -> Option<Ratio> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| is_digits(text));
    let (above, below) = match (text.split_once('/'), text.split_once('.')) {
        (Some((above, below)), None) => (number(above)?, number(below)?),
        (None, Some((whole, fraction))) if fraction.len() <= 6 => {
            let below = 10i64.pow(u32::try_from(fraction.len()).ok()?);
            (number(whole)?.checked_mul(below)?.checked_add(number(fraction)?)?, below)
        }
        (None, None) => (number(text)?, 1),
        _ => return None,
    };
    let fits = (1..=COST_DENOMINATOR_MAX).contains(&below) && above <= COST_FEN_MAX * below;
    let common = i64::try_from(gcd(above.into(), below.into())).ok()?;
    if fits { Ratio::new(above / common, below / common).ok() } else { None }
}

/// The first instant after the last day on which the points can be spent.
fn expiry(row: &Row, reading: &Reading<'_>) -> Result<Timestamp, RowError> {
    let wrong = |why: &str| row.wrong("expires_on", why);
    let day = parse_day("expires_on", row.cell("expires_on")).map_err(|_| wrong("expected the last day, such as 2027-12-31"))?;
    let expires_at = reading.zone.day_start_after(reading.zone.day_start(day), 1);
    if expires_at <= reading.now {
        return Err(wrong("the points have expired; expected today or a later day"));
    }
    if expires_at > reading.zone.day_start_after(reading.now, EXPIRES_DAYS_MAX) {
        return Err(wrong("expected a day within fifty years"));
    }
    Ok(expires_at)
}

fn earned(row: &Row, reading: &Reading<'_>) -> Result<Option<Timestamp>, RowError> {
    let text = row.cell("earned_on");
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || row.wrong("earned_on", "expected a day such as 2026-03-31, since 2000 and not after today");
    let day = parse_day("earned_on", text).ok().filter(|day| day.year() >= 2000).ok_or_else(wrong)?;
    let start = reading.zone.day_start(day);
    if start > reading.now { Err(wrong()) } else { Ok(Some(start)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_793_491_200_000 + 9 * 86_400_000;

    /// A row's number with its points, or with the field that is wrong.
    type Told = Result<(u64, i64), (u64, &'static str)>;

    fn told(text: &str, mapping: &str, line: Option<Line>) -> Vec<Told> {
        let zone = Zone::named("Asia/Shanghai").expect("a zone");
        let reading = Reading { mapping, charset: None, line, zone: &zone, now: Timestamp::clamped(NOW_MS) };
        let rows = parse(text.as_bytes(), &reading).expect("a readable file");
        rows.into_iter().map(|row| row.map(|row| (row.number, row.balance.points)).map_err(|error| (error.row, error.field))).collect()
    }

    #[test]
    fn costs_are_read_exactly_or_refused() {
        for (text, expected) in [
            ("1", Some((1, 1))),
            ("0.50", Some((1, 2))),
            ("1/3", Some((1, 3))),
            ("2/6", Some((1, 3))),
            ("0", Some((0, 1))),
            ("0.0000001", None),
            ("1/0", None),
            ("-1", None),
            ("+1", None),
            ("1e2", None),
            ("1.", None),
            ("10001", None),
            ("99999999999999999999", None),
            ("", None),
        ] {
            assert_eq!(exact(text).map(|ratio| (ratio.numerator(), ratio.denominator())), expected, "{text}");
        }
    }

    #[test]
    fn broken_rows_are_told_by_number_and_field_and_harm_no_other() {
        let text = "phone,points,cost_fen,expires_on,growth,earned_on,external_id,line\n\
            13800138000,100,0.5,2027-12-31,10,2026-01-01,a,\n\
            13800138000,100,0.5,2026-11-10,,,b,mall\n\
            ,100,0.5,2027-12-31,,,c,\n\
            13800138000,-1,0.5,2027-12-31,,,d,\n\
            13800138000,1.5,0.5,2027-12-31,,,d,\n\
            13800138000,0,,,,,e,\n\
            13800138000,100,x,2027-12-31,,,f,\n\
            13800138000,100,1,2026-11-09,,,g,\n\
            13800138000,100,1,2027-02-30,,,h,\n\
            13800138000,100,1,2127-01-01,,,h,\n\
            13800138000,0,,,5,2026-11-11,i,\n\
            13800138000,100,1,2027-12-31,,,a,\n\
            13800138000,100,1,2027-12-31,,,no spaces,\n\
            13800138000,100,1,2027-12-31,,,j,hotel\n\
            13800138000,0,,,5,,k,\n";
        let expected = vec![
            Ok((2, 100)),
            Ok((3, 100)),
            Err((4, "member")),
            Err((5, "points")),
            Err((6, "points")),
            Err((7, "points")),
            Err((8, "cost_fen")),
            Err((9, "expires_on")),
            Err((10, "expires_on")),
            Err((11, "expires_on")),
            Err((12, "earned_on")),
            Err((13, "external_id")),
            Err((14, "external_id")),
            Err((15, "line")),
            Ok((16, 0)),
        ];
        assert_eq!(told(text, "", Some(Line::Mall)), expected);
    }

    #[test]
    fn columns_are_found_under_the_names_that_they_are_mapped_to() {
        let text = "电话,余额,points,cost_fen,expires_on,line\n13800138000,7,999,1,2027-12-31,hotel\n";
        assert_eq!(told(text, "points:余额,phone:电话", None), vec![Ok((2, 7))]);
        assert_eq!(mapped(text.to_owned(), "points:没有").map_err(|problem| problem.body().field), Err(Some("mapping".into())));
        assert_eq!(mapped(text.to_owned(), "money:余额").map_err(|problem| problem.body().field), Err(Some("mapping".into())));
        assert_eq!(told("手机号,积分,单位成本(分),到期日,业态\n138,7,1,2027-12-31,office\n", "", None), vec![Ok((2, 7))]);
    }
}
