//! Exports: a spreadsheet reads the figures that the clearing states, byte for byte the same for a closed month.

use crate::world::{World, at, code, purchase, unit, world};
use calamine::{Data, Reader, Xlsx};
use heyuan_contract::{Fen, Line};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Cell, Clearing, ClearingLine, Column, Format, Language, Say, Table};
use std::io::Cursor;
use std::sync::Arc;

impl World {
    async fn export(&self, period: &str, format: Format, language: Language) -> Vec<u8> {
        self.membership.export_clearing(&self.admin, period, format, language).await.expect("it is written")
    }
}

fn number(number: i64) -> String {
    number.to_string()
}

fn yuan(fen: i64) -> String {
    Fen(fen).to_yuan().parse::<f64>().expect("a decimal").to_string()
}

/// The sheets of a file: names, and rows of texts.
fn sheets(bytes: &[u8]) -> Vec<(String, Vec<Vec<String>>)> {
    let mut book: Xlsx<_> = calamine::open_workbook_from_rs(Cursor::new(bytes.to_vec())).expect("a spreadsheet opens it");
    let text = |cell: &Data| match cell {
        Data::Empty => String::new(),
        Data::Float(number) => number.to_string(),
        Data::Int(number) => number.to_string(),
        Data::String(text) => text.clone(),
        other => panic!("{other:?} is neither a number nor a text"),
    };
    let sheets = book.worksheets().into_iter();
    sheets.map(|(name, range)| (name, range.rows().map(|row| row.iter().map(text).collect()).collect())).collect()
}

/// A cell of the row that begins with these texts.
fn cell<'a>(rows: &'a [Vec<String>], begins: &[&str], column: &str) -> &'a str {
    let place = rows[0].iter().position(|name| name == column).unwrap_or_else(|| panic!("no column {column} in {:?}", rows[0]));
    let row = rows.iter().find(|row| row.iter().zip(begins).all(|(cell, begin)| cell == begin) && row.len() >= begins.len());
    &row.unwrap_or_else(|| panic!("no row {begins:?}"))[place]
}

fn figures(row: &ClearingLine) -> [(&'static str, Option<i64>, i64); 9] {
    [
        ("Issued", Some(row.issued_points), row.issued_fen),
        ("Opened", Some(row.opened_points), row.opened_fen),
        ("Refunded", Some(row.refunded_points), row.refunded_fen),
        ("Expired", Some(row.expired_points), row.expired_fen),
        ("Forfeited", Some(row.forfeited_points), row.forfeited_fen),
        ("Adjusted", Some(row.adjusted_points), row.adjusted_fen),
        ("Spent", Some(row.spent_points), row.spent_fen),
        ("Corrected", None, row.corrected_fen),
        ("Net", None, row.net_fen),
    ]
}

/// Every figure of a clearing, as a spreadsheet reads it.
fn reads(sheets: &[(String, Vec<Vec<String>>)], clearing: &Clearing) {
    let names: Vec<_> = sheets.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Summary", "Matrix", "Statements"]);
    let [(_, summary), (_, matrix), (_, statements)] = sheets else { panic!("three sheets") };
    let period = clearing.period.as_str();
    for row in &clearing.lines {
        let line = row.line.as_str();
        for (figure, points, fen) in figures(row) {
            assert_eq!(cell(summary, &[period, line], &format!("{figure} (fen)")), number(fen), "{line}");
            assert_eq!(cell(summary, &[period, line], &format!("{figure} (yuan)")), yuan(fen), "{line}");
            let gets = if ["Issued", "Opened", "Adjusted"].contains(&figure) { -fen } else { fen };
            assert_eq!(cell(statements, &[period, line, figure], "Line gets (fen)"), number(gets), "{line} {figure}");
            assert_eq!(cell(statements, &[period, line, figure], "Line gets (yuan)"), yuan(gets), "{line} {figure}");
            if let Some(points) = points {
                assert_eq!(cell(summary, &[period, line], &format!("{figure} (points)")), number(points), "{line}");
                assert_eq!(cell(statements, &[period, line, figure], "Points"), number(points), "{line} {figure}");
            }
        }
    }
    let centre = clearing.centre;
    for (column, expected) in [
        ("Recovered (points)", number(centre.recovered_points)),
        ("Recovered (fen)", number(centre.recovered_fen)),
        ("Net (fen)", number(centre.net_fen)),
        ("Net (yuan)", yuan(centre.net_fen)),
    ] {
        assert_eq!(cell(summary, &[period, "points centre"], column), expected);
    }
    assert_eq!(matrix.len(), clearing.matrix.len() + 1);
    for one in &clearing.matrix {
        let begins = [period, one.issuer.as_str(), one.spender.as_str()];
        assert_eq!(cell(matrix, &begins, "Points"), number(one.points));
        assert_eq!(cell(matrix, &begins, "Cost (fen)"), number(one.fen));
        assert_eq!(cell(matrix, &begins, "Cost (yuan)"), yuan(one.fen));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spreadsheet_reads_what_the_clearing_states() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.month_of_everything().await;
        let open = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        reads(&sheets(&world.export("2026-11", Format::Xlsx, Language::English).await), &open);
        world.kernel.clock.set(at(30));
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        let file = world.export("2026-11", Format::Xlsx, Language::English).await;
        reads(&sheets(&file), &closed);
        world.kernel.clock.set(at(40));
        assert_eq!(world.export("2026-11", Format::Xlsx, Language::English).await, file, "byte for byte");
        let reach = Reach::Units(Arc::new([unit("hotel-1")].into_iter().collect()));
        let hotel = Actor::key("key:hotel".into(), vec![Scope::Admin], Some(unit("hotel-1")), reach);
        let why = Say::Dispute("=HYPERLINK(\"x\")".into());
        world.membership.say(&hotel, "2026-11", Line::Hotel, why).await.expect("it is its own");
        let said = sheets(&world.export("2026-11", Format::Xlsx, Language::English).await);
        reads(&said, &closed);
        let net = ["2026-11", "hotel", "Net"];
        assert_eq!(cell(&said[2].1, &net, "State"), "disputed");
        assert_eq!(cell(&said[2].1, &net, "Reason"), "=HYPERLINK(\"x\")", "a text, no formula");
        let names: Vec<_> = sheets(&world.export("2026-11", Format::Xlsx, Language::Chinese).await).into_iter().map(|one| one.0).collect();
        assert_eq!(names, ["汇总", "矩阵", "结算单"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_opens_in_excel_and_holds_no_formula() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, _) = world.month_of_everything().await;
        // An id of a line's own system that a spreadsheet would run.
        world.report(&purchase("-2", "mall-1", 10_000, &member)).await.expect("it is posted");
        let clearing = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        for language in [Language::English, Language::Chinese] {
            for table in Table::ALL {
                let text = String::from_utf8(world.export("2026-11", Format::Csv(table), language).await).expect("UTF-8");
                assert!(text.starts_with('\u{FEFF}') && text.ends_with("\r\n"), "{text}");
            }
        }
        let text = String::from_utf8(world.export("2026-11", Format::Csv(Table::Matrix), Language::Chinese).await).expect("UTF-8");
        let cell = clearing.matrix.iter().find(|cell| cell.issuer == Line::Hotel && cell.spender == Line::Hotel).expect("it was spent");
        let row = format!("2026-11,酒店,酒店,{},{},{}\r\n", cell.points, cell.fen, Fen(cell.fen).to_yuan());
        assert!(text.starts_with("\u{FEFF}期间,发放业态,兑付业态,积分,成本(分),成本(元)\r\n") && text.contains(&row), "{text}");

        let issued = Cell { column: Column::Issued, issuer: None, spender: None };
        let rows = world.membership.export_steps(&world.admin, "2026-11", issued, None, Language::English).await.expect("it is written");
        let text = String::from_utf8(rows.bytes).expect("UTF-8");
        assert!(text.starts_with('\u{FEFF}') && rows.next.is_none(), "{text}");
        let points: i64 = text.lines().skip(1).map(|row| row.split(',').nth(3).expect("a column").parse::<i64>().expect("points")).sum();
        assert_eq!(points, clearing.lines.iter().map(|row| row.issued_points).sum::<i64>());
        assert!(text.contains(",mall-1/-2,transaction/mall-1/-2/points\r\n"), "{text}");
        let answer = world.membership.export_clearing(&world.app, "2026-11", Format::Xlsx, Language::English).await;
        assert_eq!(answer.map_err(code).err(), Some("forbidden"));
    })
    .await;
}
