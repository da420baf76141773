//! Rows of figures, each with its bar and its method, as a table and as JSON.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use std::{fs, iter};

use serde::Serialize;

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// A figure that others are read beside.
    None,
}

impl Bar {
    fn met_by(self, value: f64) -> Option<&'static str> {
        let met = match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
            Self::None => return None,
        };
        Some(if met { "yes" } else { "no" })
    }

    fn spelled(self) -> String {
        match self {
            Self::AtLeast(bar) => format!(">= {}", figure(bar)),
            Self::AtMost(bar) => format!("<= {}", figure(bar)),
            Self::None => String::new(),
        }
    }
}

/// One measure. `ratio` is the value over the baseline that ran in the same invocation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    /// `None` where it could not be measured; the method then says why.
    value: Option<f64>,
    unit: String,
    baseline: Option<f64>,
    ratio: Option<f64>,
    bar: String,
    /// `yes` or `no`; `None` without a bar or a value.
    met: Option<&'static str>,
    method: String,
}

impl Row {
    pub(crate) fn new(name: &str, value: f64, unit: &str, bar: Bar, method: &str) -> Self {
        let (bar, met) = (bar.spelled(), bar.met_by(value));
        Self { name: name.into(), value: Some(value), unit: unit.into(), baseline: None, ratio: None, bar, met, method: method.into() }
    }

    /// A row that could not be measured, with the reason in place of the method.
    pub(crate) fn missing(name: &str, why: &str) -> Self {
        let method = format!("not measured: {why}");
        Self { name: name.into(), value: None, unit: String::new(), baseline: None, ratio: None, bar: String::new(), met: None, method }
    }

    /// Sets a peer's or a native figure beside it; the bar, if given, is then on the ratio.
    pub(crate) fn beside(mut self, baseline: f64, bar_on_ratio: Option<Bar>) -> Self {
        let ratio = self.value.unwrap_or(f64::NAN) / baseline;
        (self.baseline, self.ratio) = (Some(baseline), Some(ratio));
        if let Some(bar) = bar_on_ratio {
            (self.bar, self.met) = (format!("{} x", bar.spelled()), bar.met_by(ratio));
        }
        self
    }

    fn cells(&self) -> [String; 8] {
        let optional = |number: Option<f64>| number.map(figure).unwrap_or_default();
        [
            self.name.clone(),
            optional(self.value),
            self.unit.clone(),
            optional(self.baseline),
            optional(self.ratio),
            self.bar.clone(),
            self.met.unwrap_or_default().to_owned(),
            self.method.clone(),
        ]
    }
}

/// All rows of one run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The table, on standard output.
    pub(crate) fn print(&self) -> io::Result<()> {
        let head = ["name", "value", "unit", "baseline", "ratio", "bar", "met", "method"].map(str::to_owned);
        let lines: Vec<[String; 8]> = iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 8] = std::array::from_fn(width);
        let mut out = io::stdout().lock();
        for line in &lines {
            let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// The same as JSON.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }
}

/// Three significant digits below a thousand, whole numbers with separators above.
fn figure(value: f64) -> String {
    if value.abs() < 1000.0 {
        let decimals = if value.abs() >= 100.0 {
            0
        } else if value.abs() >= 10.0 {
            1
        } else {
            2
        };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{value:.0}");
    let mut spaced = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && spaced != "-" {
            spaced.push(',');
        }
        spaced.push(digit);
    }
    spaced
}

/// The value below which the given share of the durations lies (nearest rank).
pub(crate) fn percentile(durations: &mut [Duration], share: f64) -> Duration {
    durations.sort_unstable();
    let rank = (share * durations.len() as f64).ceil() as usize;
    durations[rank.clamp(1, durations.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (value, spelled) in
            [(0.0, "0.00"), (4.318, "4.32"), (42.04, "42.0"), (999.4, "999"), (1000.0, "1,000"), (1234567.8, "1,234,568")]
        {
            assert_eq!(figure(value), spelled);
        }
    }

    #[test]
    fn a_percentile_is_a_measured_value() {
        let mut durations: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut durations, 0.5), Duration::from_millis(50));
        assert_eq!(percentile(&mut durations, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&mut durations[..1], 0.99), Duration::from_millis(1));
    }

    #[test]
    fn a_row_tells_whether_its_bar_is_met() {
        let row = Row::new("instantiate", 4.0, "us", Bar::AtMost(5.0), "p50 of 1,000");
        assert_eq!((row.bar.as_str(), row.met), ("<= 5.00", Some("yes")));
        let row = row.beside(2.0, Some(Bar::AtMost(1.5)));
        assert_eq!((row.ratio, row.bar.as_str(), row.met), (Some(2.0), "<= 1.50 x", Some("no")));
    }
}
