//! A clearing as files for finance: what each line owes or gets, the matrix of lines, their statements; and the steps behind a figure.

use crate::cells::{Cell as Figure, CellStep};
use crate::clearing::{self, Clearing, ClearingLine, ClearingState};
use crate::error::Error;
use crate::facade::Membership;
use crate::settlement::LineStatement;
use crate::sheet::{self, Cell, Language, Sheet, Words};
use heyuan_contract::{Line, Timestamp};
use heyuan_kernel::time::format_rfc3339;
use heyuan_kernel::{Actor, sql};
use heyuan_ledger::Period;

/// Steps of a figure that are read at once: bounds what an export holds in memory.
const STEPS_PAGE: u64 = 2_000;

/// A table of the export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Table {
    /// A row a line, and the points centre.
    #[default]
    Summary,
    /// A row an issuer and spender.
    Matrix,
    /// A row a line and figure, with what the line gets and what it said.
    Statements,
}

impl Table {
    /// Every table, in their order.
    pub const ALL: [Table; 3] = [Table::Summary, Table::Matrix, Table::Statements];

    /// The word in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Table::Summary => "summary",
            Table::Matrix => "matrix",
            Table::Statements => "statements",
        }
    }

    /// The table with this name, if there is one.
    pub fn parse(text: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|table| table.as_str() == text)
    }
}

/// What an export is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One table as CSV.
    Csv(Table),
    /// All tables as the sheets of one XLSX file.
    Xlsx,
}

/// A page of the steps behind a figure as rows of a CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRows {
    /// The bytes; of the first page with the header.
    pub bytes: Vec<u8>,
    /// Where the next page goes on; `None` on the last one.
    pub next: Option<String>,
}

impl Membership {
    /// The clearing of a period as a file. That of a closed period is the same bytes as long as no line says anything to its statement.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month.
    pub async fn export_clearing(&self, actor: &Actor, period: &str, format: Format, language: Language) -> Result<Vec<u8>, Error> {
        let month = clearing::parse(actor, period)?;
        let clearing = self.clearing(actor, period).await?;
        let closed_at = if clearing.state == ClearingState::Closed { self.closed_at(month).await? } else { None };
        let statements = if closed_at.is_some() { self.statements(actor, period).await? } else { Vec::new() };
        let table = |table| match table {
            Table::Summary => summary(&clearing, language),
            Table::Matrix => matrix(&clearing, language),
            Table::Statements => line_statements(&clearing, &statements, language),
        };
        match format {
            Format::Csv(one) => sheet::csv(&table(one)),
            Format::Xlsx => {
                let made_at = closed_at.unwrap_or_else(|| self.kernel().clock.now());
                sheet::xlsx(&Table::ALL.map(table), made_at)
            }
        }
    }

    /// A page of the steps that a figure sums as rows of a CSV file, after the `next` of the page before.
    ///
    /// # Errors
    /// As [`Membership::cell`].
    pub async fn export_steps(
        &self,
        actor: &Actor,
        period: &str,
        cell: Figure,
        after: Option<&str>,
        language: Language,
    ) -> Result<StepRows, Error> {
        let page = self.cell(actor, period, cell, after, STEPS_PAGE).await?;
        let mut bytes = match after {
            None => sheet::csv_header(STEP_COLUMNS.map(|words| language.of(words)))?,
            Some(_) => Vec::new(),
        };
        let rows: Vec<Vec<Cell>> = page.steps.into_iter().map(|step| step_row(step, language)).collect();
        bytes.extend(sheet::csv_rows(&rows)?);
        Ok(StepRows { bytes, next: page.next })
    }

    /// When a period's statement was written, if it was.
    pub(crate) async fn closed_at(&self, period: Period) -> Result<Option<Timestamp>, Error> {
        let text = "SELECT closed_at FROM membership_clearing WHERE period = $1";
        let row = sql::one(self.kernel().db.reader(), text, [period.number().into()]).await?;
        Ok(row.map(|row| sql::get(&row, "closed_at").map(Timestamp::clamped)).transpose()?)
    }
}

/// A line's name.
pub(crate) const fn line_words(line: Line) -> Words {
    match line {
        Line::Residential => ("residential", "住宅"),
        Line::Mall => ("mall", "商业"),
        Line::Office => ("office", "写字楼"),
        Line::Hotel => ("hotel", "酒店"),
        Line::Community => ("community", "物业"),
    }
}

const PERIOD: Words = ("Period", "期间");
const LINE: Words = ("Line", "业态");
const CENTRE: Words = ("points centre", "积分中心");
const ISSUED: Words = ("Issued", "发放");
const OPENED: Words = ("Opened", "期初导入");
const REFUNDED: Words = ("Refunded", "退货扣回");
const EXPIRED: Words = ("Expired", "过期");
const FORFEITED: Words = ("Forfeited", "退会作废");
const ADJUSTED: Words = ("Adjusted", "人工调整");
const SPENT: Words = ("Spent", "兑付");
const RECOVERED: Words = ("Recovered", "欠分抵扣");
const CORRECTED: Words = ("Corrected", "更正");
const NET: Words = ("Net", "净额");
const POINTS: Words = ("points", "积分");
const FEN: Words = ("fen", "分");
const YUAN: Words = ("yuan", "元");

const STEP_COLUMNS: [Words; 12] = [
    ("Issuer", "发放业态"),
    ("Spender", "兑付业态"),
    ("Movement", "变动"),
    ("Points", "积分"),
    ("Owed points", "其中欠分"),
    ("Unit cost (fen), numerator", "单位成本(分)分子"),
    ("Unit cost (fen), denominator", "单位成本(分)分母"),
    ("Exact cost (fen), numerator", "精确成本(分)分子"),
    ("Exact cost (fen), denominator", "精确成本(分)分母"),
    ("Occurred at (UTC)", "发生时间(UTC)"),
    ("Reference", "关联单据"),
    ("Lot", "积分批次"),
];

/// A figure of a line: its name, its points where it has any, and its cost as the clearing states it.
fn figures(line: &ClearingLine) -> [(Words, Option<i64>, i64); 9] {
    [
        (ISSUED, Some(line.issued_points), line.issued_fen),
        (OPENED, Some(line.opened_points), line.opened_fen),
        (REFUNDED, Some(line.refunded_points), line.refunded_fen),
        (EXPIRED, Some(line.expired_points), line.expired_fen),
        (FORFEITED, Some(line.forfeited_points), line.forfeited_fen),
        (ADJUSTED, Some(line.adjusted_points), line.adjusted_fen),
        (SPENT, Some(line.spent_points), line.spent_fen),
        (CORRECTED, None, line.corrected_fen),
        (NET, None, line.net_fen),
    ]
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

fn summary(clearing: &Clearing, language: Language) -> Sheet {
    let of = |words| language.of(words);
    let named = |figure: Words, measure: Words| format!("{} ({})", of(figure), of(measure));
    let mut header = vec![of(PERIOD).to_owned(), of(LINE).to_owned()];
    for (figure, points) in [ISSUED, OPENED, REFUNDED, EXPIRED, FORFEITED, ADJUSTED, SPENT, RECOVERED]
        .map(|figure| (figure, true))
        .into_iter()
        .chain([(CORRECTED, false), (NET, false)])
    {
        header.extend(points.then(|| named(figure, POINTS)));
        header.extend([named(figure, FEN), named(figure, YUAN)]);
    }
    let mut rows: Vec<Vec<Cell>> = clearing.lines.iter().map(|line| summary_row(&clearing.period, line, language)).collect();
    let centre = &clearing.centre;
    let mut row = vec![text(&clearing.period), text(of(CENTRE))];
    row.resize(row.len() + 21, Cell::Empty);
    row.extend([Cell::Whole(centre.recovered_points), Cell::Whole(centre.recovered_fen), Cell::Yuan(centre.recovered_fen)]);
    row.extend([Cell::Empty, Cell::Empty, Cell::Whole(centre.net_fen), Cell::Yuan(centre.net_fen)]);
    rows.push(row);
    Sheet { name: of(("Summary", "汇总")), header, rows }
}

fn summary_row(period: &str, line: &ClearingLine, language: Language) -> Vec<Cell> {
    let mut row = vec![text(period), text(language.of(line_words(line.line)))];
    for (figure, points, fen) in figures(line) {
        if figure == CORRECTED {
            // What is recovered is the centre's alone.
            row.extend([Cell::Empty, Cell::Empty, Cell::Empty]);
        }
        row.extend(points.map(Cell::Whole));
        row.extend([Cell::Whole(fen), Cell::Yuan(fen)]);
    }
    row
}

fn matrix(clearing: &Clearing, language: Language) -> Sheet {
    let of = |words| language.of(words);
    let header = [PERIOD, STEP_COLUMNS[0], STEP_COLUMNS[1], ("Points", "积分"), ("Cost (fen)", "成本(分)"), ("Cost (yuan)", "成本(元)")];
    let rows = clearing.matrix.iter().map(|cell| {
        let (issuer, spender) = (of(line_words(cell.issuer)), of(line_words(cell.spender)));
        vec![text(&clearing.period), text(issuer), text(spender), Cell::Whole(cell.points), Cell::Whole(cell.fen), Cell::Yuan(cell.fen)]
    });
    Sheet { name: of(("Matrix", "矩阵")), header: header.map(|words| of(words).to_owned()).to_vec(), rows: rows.collect() }
}

fn line_statements(clearing: &Clearing, statements: &[LineStatement], language: Language) -> Sheet {
    let of = |words| language.of(words);
    let header = [
        PERIOD,
        LINE,
        ("Figure", "项目"),
        ("Points", "积分"),
        ("Line gets (fen)", "业态应收(分)"),
        ("Line gets (yuan)", "业态应收(元)"),
        ("State", "状态"),
        ("Said by", "操作人"),
        ("Said at (UTC)", "时间(UTC)"),
        ("Reason", "说明"),
        ("Corrected later (fen)", "后续更正(分)"),
    ];
    let mut rows = Vec::new();
    for line in &clearing.lines {
        for (figure, points, fen) in figures(line) {
            // A line owes the cost of what it issued, took over, and granted by hand.
            let gets = if [ISSUED, OPENED, ADJUSTED].contains(&figure) { -fen } else { fen };
            let mut row = vec![text(&clearing.period), text(of(line_words(line.line))), text(of(figure))];
            row.extend([points.map_or(Cell::Empty, Cell::Whole), Cell::Whole(gets), Cell::Yuan(gets)]);
            let said = statements.iter().find(|statement| statement.figures.line == line.line).filter(|_| figure == NET);
            row.extend(said.map_or_else(|| vec![Cell::Empty; 5], said_cells));
            rows.push(row);
        }
    }
    Sheet { name: of(("Statements", "结算单")), header: header.map(|words| of(words).to_owned()).to_vec(), rows }
}

fn said_cells(statement: &LineStatement) -> Vec<Cell> {
    let optional = |words: Option<String>| words.map_or(Cell::Empty, Cell::Text);
    vec![
        text(statement.state.as_str()),
        optional(statement.by.clone()),
        optional(statement.at.map(format_rfc3339)),
        optional(statement.words.clone()),
        Cell::Whole(statement.corrected_fen),
    ]
}

fn step_row(step: CellStep, language: Language) -> Vec<Cell> {
    let of = |line: Line| text(language.of(line_words(line)));
    vec![
        of(step.issuer),
        step.spender.map_or(Cell::Empty, of),
        Cell::Text(step.movement),
        Cell::Whole(step.points),
        Cell::Whole(step.owed),
        Cell::Whole(step.unit_cost.numerator()),
        Cell::Whole(step.unit_cost.denominator()),
        Cell::Long(step.cost_numerator),
        Cell::Long(step.cost_denominator),
        text(format_rfc3339(step.occurred_at)),
        Cell::Text(step.reference),
        step.lot.map_or(Cell::Empty, Cell::Text),
    ]
}
