//! Where the time of units of work goes, by name, as the metrics of a running tenant tell it.

use std::collections::BTreeMap;
use std::time::Instant;

use heyuan_harness::Tenant;

use crate::report::{Bar, Report, Row};

/// Units that get a row: those that took most.
const ROWS: usize = 5;

/// How often each unit ran so far, and how many seconds it held its transaction.
type Taken = BTreeMap<String, (f64, f64)>;

/// Looks at a tenant's units before and after something is measured.
pub(crate) struct Units {
    before: Taken,
    since: Instant,
}

impl Units {
    pub(crate) async fn watch(tenant: &Tenant) -> Units {
        Units { before: taken(tenant).await, since: Instant::now() }
    }

    /// Adds a row for each of the units that took most time since.
    pub(crate) async fn add_rows(self, report: &mut Report, tenant: &Tenant, during: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        let after = taken(tenant).await;
        let mut rows: Vec<(String, f64, f64)> = after
            .into_iter()
            .map(|(unit, (count, time))| {
                let before = self.before.get(&unit).copied().unwrap_or_default();
                (unit, count - before.0, time - before.1)
            })
            .filter(|(_, count, _)| *count > 0.0)
            .collect();
        rows.sort_by(|a, b| b.2.total_cmp(&a.2));
        for (unit, count, time) in rows.into_iter().take(ROWS) {
            let method = format!("{count:.0} units in {seconds:.1} s, {:.3} ms each; all that ran at once together", time * 1e3 / count);
            report.add(Row::new(&format!("{during}: time in units `{unit}`"), time * 1e3 / seconds, "ms/s", Bar::None, &method));
        }
    }
}

async fn taken(tenant: &Tenant) -> Taken {
    let text = tenant.stranger().get("/metrics").await.text();
    let mut taken = Taken::new();
    for line in text.lines() {
        let Some((name, unit, value)) = sample(line) else { continue };
        let entry = taken.entry(unit.to_owned()).or_default();
        match name.trim_end_matches("_total") {
            "heyuan_units_of_work" => entry.0 += value,
            "heyuan_unit_of_work_seconds" => entry.1 += value,
            _ => {}
        }
    }
    taken
}

/// Name, unit and value of a line of the Prometheus text that has the label `unit`.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once('}')?;
    let unit = labels.split_once("unit=\"")?.1.split_once('"')?.0;
    Some((name, unit, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_with_a_unit_is_read() {
        let line = r#"heyuan_unit_of_work_seconds_total{otel_scope_name="heyuan",unit="report transaction"} 1.25"#;
        assert_eq!(sample(line), Some(("heyuan_unit_of_work_seconds_total", "report transaction", 1.25)));
        assert_eq!(sample("# HELP heyuan_units_of_work Units"), None);
        assert_eq!(sample("heyuan_inbox_bytes 3"), None);
    }
}
