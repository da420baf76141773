//! The check list of a close: what has to hold before a month is closed, and what somebody should look at first.
//!
//! What blocks would make the month wrong. A warning is somebody's decision: the month can be closed, and keeps the list as it stood.

use crate::books::{self, LineAccount};
use crate::clearing::{self, ClearingLine, ClearingState, Moved};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::corrupt;
use crate::settlement;
use heyuan_contract::{Line, Timestamp};
use heyuan_kernel::{Actor, Problem, Tx, sql};
use heyuan_ledger::{Book, Period};
use serde::{Deserialize, Serialize};

/// Sweeps one after the other that moved nothing though something is past its expiry, after which a close leaves it to its check list. One
/// such sweep is ordinary: the clockwork was faster.
const IDLE_SWEEPS_MAX: usize = 100;

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// Nothing is to be done.
    Ok,
    /// Somebody should look first.
    Warning,
    /// The month can't be closed like this.
    Blocking,
}

impl CheckState {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            CheckState::Ok => "ok",
            CheckState::Warning => "warning",
            CheckState::Blocking => "blocking",
        }
    }
}

/// An entry of a check list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable, in `snake_case`.
    pub code: String,
    /// What it says.
    pub state: CheckState,
    /// Of how many things.
    pub count: i64,
    /// In English.
    pub words: String,
    /// In Chinese.
    pub words_zh: String,
}

/// Who closed a month, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedBy {
    /// Who.
    pub actor: String,
    /// When.
    pub at: Timestamp,
    /// Why in spite of warnings, where that was said.
    pub reason: Option<String>,
}

/// The check list of a month: of an open one as it stands, of a closed one as it was closed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checklist {
    /// The month.
    pub period: Period,
    /// Whether it can still change.
    pub state: ClearingState,
    /// Its entries, always the same ones in the same order; none of a month that an earlier release closed.
    pub checks: Vec<Check>,
    /// Who closed it.
    pub closed: Option<ClosedBy>,
}

/// How a month is closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closing {
    /// Whether warnings refuse it as well.
    pub strict: bool,
    /// Why it is closed in spite of them; kept with the month. Never personal data.
    pub reason: Option<String>,
}

impl Closing {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.reason.as_deref().map_or(Ok(()), settlement::check_words)
    }
}

/// A close that its check list refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// What the caller hears.
    pub problem: Problem,
    /// The list.
    pub checks: Vec<Check>,
}

/// Words of an entry in English and Chinese, for nothing found and for something.
struct Told {
    code: &'static str,
    /// What something found makes of it.
    found: CheckState,
    ok: (&'static str, &'static str),
    not: (String, String),
}

impl Told {
    fn with(self, count: i64) -> Check {
        let ((words, words_zh), state) =
            if count == 0 { ((self.ok.0.to_owned(), self.ok.1.to_owned()), CheckState::Ok) } else { (self.not, self.found) };
        Check { code: self.code.to_owned(), state, count, words, words_zh }
    }
}

/// A month that nobody has closed yet, as it stood at one moment.
pub(crate) struct Looked {
    pub(crate) checks: Vec<Check>,
    pub(crate) moved: Moved,
}

impl Membership {
    /// The check list of a month.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month.
    pub async fn checklist(&self, actor: &Actor, period: &str) -> Result<Checklist, Error> {
        let period = clearing::parse(actor, period)?;
        let book = self.ledger().book(self.kernel().db.reader(), books::POINTS).await?;
        if let Some((checks, closed)) = kept(self.kernel().db.reader(), period).await? {
            let written = self.closed_at(period).await?.is_some();
            let state = if written { ClearingState::Closed } else { ClearingState::Closing };
            return Ok(Checklist { period, state, checks, closed: Some(closed) });
        }
        // An earlier release closed months without a list.
        if book.is_closed(period) && period >= book.opens_at() {
            return Ok(Checklist { period, state: ClearingState::Closed, checks: Vec::new(), closed: None });
        }
        let state = if period < book.opens_at() { ClearingState::Closed } else { ClearingState::Open };
        Ok(Checklist { period, state, checks: self.look(period).await?.checks, closed: None })
    }

    /// Looks at a month that nobody has closed yet, as it stands at one moment.
    pub(crate) async fn look(&self, period: Period) -> Result<Looked, Error> {
        let snapshot = self.begin_reading().await?;
        let book = self.ledger().book(&snapshot, books::POINTS).await?;
        let next = self.ledger().next_to_close(&snapshot, books::POINTS).await?;
        let (now, zone) = (self.kernel().clock.now(), &self.kernel().zone);
        let end = period.next().start(zone);
        let ledger = self.ledger();
        let mut checks = vec![
            within_book(period, book),
            over(period, Period::of(zone, now)),
            earlier(period, next),
            past_expiry(ledger.past_expiry(&snapshot, books::POINTS, Timestamp::clamped(end.ms() - 1).min(now)).await?),
        ];
        let moved = self.moved(&snapshot, period).await?;
        checks.extend(self.agreement(&snapshot, period, &moved).await?);
        checks.push(waiting(sql::count(&snapshot, REFUNDS_WAITING, [end.ms().into()]).await?));
        checks.push(holds(ledger.overdue_holds(&snapshot, books::POINTS, now).await?));
        checks.push(disputes(sql::count(&snapshot, DISPUTES, [period.number().into()]).await?));
        checks.push(corrections(sql::count(&snapshot, CORRECTIONS_PROPOSED, []).await?));
        let silent = self.lines_without_books(&snapshot, period).await?;
        checks.push(unreconciled(&silent));
        checks.push(differing(self.differing_in(&snapshot, period).await?));
        checks.push(unsealed(ledger.unsealed(&snapshot, books::POINTS, period).await?));
        snapshot.rollback().await.map_err(heyuan_kernel::Error::from)?;
        Ok(Looked { checks, moved })
    }

    /// Whether the month can be summed and settled, and whether the lots' movement of the month is that of the lines' accounts.
    async fn agreement<C: sql::Connection>(&self, conn: &C, period: Period, moved: &Moved) -> Result<[Check; 2], Error> {
        let summed = self.sum(conn, period, ClearingState::Open, moved).await;
        let clearing = match summed.and_then(|clearing| clearing::check_settled(&clearing).map(|()| clearing)) {
            Ok(clearing) => clearing,
            Err(Error::Kernel(heyuan_kernel::Error::Corrupt { why, .. })) => {
                tracing::error!(period = %period, %why, "a month's clearing can't be summed");
                return Ok([summable(Some(&why)), not_compared()]);
            }
            Err(error) => return Err(error),
        };
        let mut differing = 0;
        for line in &clearing.lines {
            for (account, credited) in booked(line) {
                let id = books::line_account(line.line, account);
                let turnover = self.ledger().turnover(conn, &id, period).await?;
                if turnover.credits - turnover.debits != credited {
                    tracing::error!(period = %period, account = %id, credited, ?turnover, "an account differs from the month's lots");
                    differing += 1;
                }
            }
        }
        Ok([summable(None), agree(differing)])
    }

    /// Moves out what expired by the end of a month that is about to be closed, as the clockwork does, until none is left.
    pub(crate) async fn sweep_before_close(&self, period: Period) -> Result<(), Error> {
        let end = period.next().start(&self.kernel().zone);
        let until = Timestamp::clamped(end.ms() - 1).min(self.kernel().clock.now());
        let mut idle = 0;
        while idle < IDLE_SWEEPS_MAX {
            if self.expire_points(None).await? > 0 {
                idle = 0;
                continue;
            }
            // Where nothing is left that is the end; else the clockwork took that very batch meanwhile.
            if self.ledger().past_expiry(self.kernel().db.reader(), books::POINTS, until).await? == 0 {
                break;
            }
            idle += 1;
        }
        Ok(())
    }
}

const REFUNDS_WAITING: &str = "SELECT COUNT(*) AS n FROM membership_transaction WHERE state = 'waiting' AND occurred_at < $1";
const DISPUTES: &str = "SELECT COUNT(*) AS n FROM membership_statement WHERE state = 'disputed' AND period < $1";
const CORRECTIONS_PROPOSED: &str = "SELECT COUNT(*) AS n FROM membership_correction_entry WHERE state = 'proposed'";

/// What each account of a line was credited with in sum, as its figures say.
const fn booked(line: &ClearingLine) -> [(LineAccount, i64); 7] {
    [
        (LineAccount::Issued, -line.issued_points),
        (LineAccount::Opened, -line.opened_points),
        (LineAccount::Refunded, line.refunded_points),
        (LineAccount::Expired, line.expired_points),
        (LineAccount::Forfeited, line.forfeited_points),
        (LineAccount::Spent, line.spent_points),
        (LineAccount::Adjusted, -line.adjusted_points),
    ]
}

/// A close of a month that is not the next one, with the list that says so.
pub(crate) fn not_over(words: String, checks: Vec<Check>) -> Error {
    Error::NotReady(Box::new(NotReady { problem: Problem::new(codes::PERIOD_NOT_OVER, words), checks }))
}

/// The list, where it lets a month be closed.
pub(crate) fn accepted(checks: Vec<Check>, closing: &Closing) -> Result<Vec<Check>, Error> {
    let is_against = |check: &&Check| match check.state {
        CheckState::Ok => false,
        CheckState::Warning => closing.strict,
        CheckState::Blocking => true,
    };
    let against: Vec<&str> = checks.iter().filter(is_against).map(|check| check.code.as_str()).collect();
    if against.is_empty() {
        return Ok(checks);
    }
    let problem = Problem::new(codes::PERIOD_NOT_READY, format!("the check list is against it: {}", against.join(", ")));
    Err(Error::NotReady(Box::new(NotReady { problem, checks })))
}

/// Keeps the list that a month is closed with; the first one counts.
pub(crate) async fn keep(tx: &Tx, period: Period, actor: &Actor, at: Timestamp, closing: &Closing, checks: &[Check]) -> Result<(), Error> {
    let body = serde_json::to_string(checks).map_err(|e| corrupt("check list", e))?;
    let text =
        "INSERT INTO membership_closing (period, at, actor, reason, checks) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (period) DO NOTHING";
    let reason = closing.reason.clone().unwrap_or_default();
    sql::execute(tx.conn(), text, [period.number().into(), at.ms().into(), actor.name().into(), reason.into(), body.into()]).await?;
    Ok(())
}

/// The list that a month was closed with, and who closed it.
pub(crate) async fn kept<C: sql::Connection>(conn: &C, period: Period) -> Result<Option<(Vec<Check>, ClosedBy)>, Error> {
    let text = "SELECT at, actor, reason, checks FROM membership_closing WHERE period = $1";
    let Some(row) = sql::one(conn, text, [period.number().into()]).await? else { return Ok(None) };
    let body: String = sql::get(&row, "checks")?;
    let closed = ClosedBy {
        actor: sql::get(&row, "actor")?,
        at: Timestamp::clamped(sql::get(&row, "at")?),
        reason: Some(sql::get::<String>(&row, "reason")?).filter(|reason| !reason.is_empty()),
    };
    Ok(Some((serde_json::from_str(&body).map_err(|e| corrupt("check list", e))?, closed)))
}

fn within_book(period: Period, book: Book) -> Check {
    let opens_at = book.opens_at();
    let told = Told {
        code: "within_book",
        found: CheckState::Blocking,
        ok: ("the month lies in the book", "该月在账簿期间内"),
        not: (format!("the month lies before the book, which opens with {opens_at}"), format!("该月早于账簿起始月 {opens_at}")),
    };
    told.with(i64::from(period < opens_at))
}

fn over(period: Period, current: Period) -> Check {
    let told = Told {
        code: "month_over",
        found: CheckState::Blocking,
        ok: ("the month is over", "该月已结束"),
        not: (format!("{period} is not over"), format!("{period} 尚未结束")),
    };
    told.with(i64::from(period >= current))
}

fn earlier(period: Period, next: Option<Period>) -> Check {
    let open = next.map_or(0, |next| next.months_until(period).max(0));
    let first = next.unwrap_or(period);
    let told = Told {
        code: "earlier_months_closed",
        found: CheckState::Blocking,
        ok: ("every earlier month is closed", "之前各月均已关账"),
        not: (format!("{open} earlier months are open; close {first} first"), format!("之前有 {open} 个月未关账，请先关闭 {first}")),
    };
    told.with(open)
}

fn past_expiry(points: i64) -> Check {
    let told = Told {
        code: "points_past_expiry",
        found: CheckState::Blocking,
        ok: ("what expired in the month is moved out", "当月到期积分均已过期处理"),
        not: (
            format!("{points} points are past their expiry and not moved out yet; the close moves them out before it looks"),
            format!("{points} 积分已到期尚未处理；关账命令会先行处理"),
        ),
    };
    told.with(points)
}

fn summable(why: Option<&str>) -> Check {
    let reason = why.unwrap_or_default();
    let told = Told {
        code: "can_be_summed",
        found: CheckState::Blocking,
        ok: ("the month's movements can be summed and settled", "当月变动可以汇总结算"),
        not: (
            format!("the month can't be summed or settled: {reason}; a close would have no statement"),
            format!("当月变动无法汇总结算（{reason}），关账将无法出具结算单"),
        ),
    };
    told.with(i64::from(why.is_some()))
}

/// What stands in the place of [`agree`] where there is nothing to compare with: another entry says so and blocks.
fn not_compared() -> Check {
    let (words, words_zh) = ("not compared, since the month can't be summed", "当月无法汇总，未作比对");
    Check { state: CheckState::Warning, words: words.to_owned(), words_zh: words_zh.to_owned(), ..agree(0) }
}

fn agree(accounts: i64) -> Check {
    let told = Told {
        code: "books_agree",
        found: CheckState::Blocking,
        ok: ("the lots' movement is that of the lines' accounts", "积分批次变动与各业态账户一致"),
        not: (
            format!("{accounts} accounts differ from the lots' movement of the month; run heyuan ledger verify"),
            format!("{accounts} 个账户与当月批次变动不一致，请运行 heyuan ledger verify"),
        ),
    };
    told.with(accounts)
}

fn waiting(refunds: i64) -> Check {
    let told = Told {
        code: "refunds_waiting",
        found: CheckState::Warning,
        ok: ("no refund waits for its purchase", "没有等待原交易的退款"),
        not: (
            format!("{refunds} refunds wait for their purchase; those that are posted later count in a later month"),
            format!("{refunds} 笔退款在等待原交易，关账后入账将计入之后的月份"),
        ),
    };
    told.with(refunds)
}

fn holds(holds: i64) -> Check {
    let told = Told {
        code: "holds_run_out",
        found: CheckState::Warning,
        ok: ("no hold of points ran out and still stands", "没有已到期仍未释放的冻结"),
        not: (
            format!("{holds} holds of points ran out and are not set free yet; the server's clock does it within a second when it runs"),
            format!("{holds} 笔积分冻结已到期尚未释放，服务运行时会自动释放"),
        ),
    };
    told.with(holds)
}

fn disputes(statements: i64) -> Check {
    let told = Told {
        code: "disputes_open",
        found: CheckState::Warning,
        ok: ("no statement of an earlier month is disputed", "之前月份没有待处理的异议"),
        not: (
            format!("{statements} statements of earlier months are disputed; a correction after the close counts in a later month"),
            format!("之前月份有 {statements} 份结算单存在异议，关账后的更正将计入之后的月份"),
        ),
    };
    told.with(statements)
}

fn corrections(proposals: i64) -> Check {
    let told = Told {
        code: "corrections_proposed",
        found: CheckState::Warning,
        ok: ("no correction waits for a second person", "没有待复核的更正"),
        not: (
            format!("{proposals} corrections wait for a second person; approved after the close they count in a later month"),
            format!("{proposals} 笔更正待复核，关账后通过的将计入之后的月份"),
        ),
    };
    told.with(proposals)
}

fn unreconciled(lines: &[Line]) -> Check {
    let names = lines.iter().map(|line| line.as_str()).collect::<Vec<_>>().join(", ");
    let told = Told {
        code: "reconciliation_missing",
        found: CheckState::Warning,
        ok: ("every line that reported something has sent its books", "有交易的业态均已上传对账"),
        not: (format!("no books of the month came from: {names}"), format!("以下业态未上传当月对账: {names}")),
    };
    told.with(i64::try_from(lines.len()).unwrap_or(i64::MAX))
}

fn differing(transactions: i64) -> Check {
    let told = Told {
        code: "reconciliation_differs",
        found: CheckState::Warning,
        ok: ("the lines' books are those that they reported", "已上传的对账无差异"),
        not: (
            format!("{transactions} transactions differ between the lines' books and what they reported, by the last comparison"),
            format!("最近一次对账有 {transactions} 笔差异"),
        ),
    };
    told.with(transactions)
}

fn unsealed(transfers: i64) -> Check {
    let told = Told {
        code: "seals_behind",
        found: CheckState::Warning,
        ok: ("every transfer of the month is sealed", "当月分录均已封存"),
        not: (
            format!("{transfers} transfers of the month wait for the sealer, which takes a second when the server runs"),
            format!("当月有 {transfers} 笔分录待封存，服务运行时约一秒完成"),
        ),
    };
    told.with(transfers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(number: i64) -> Period {
        Period::from_number(number).expect("a month")
    }

    #[test]
    fn earlier_months_are_counted_from_the_first_open_one() {
        for (period, next, expected) in [
            (202_611, None, 0),
            (202_611, Some(202_611), 0),
            (202_611, Some(202_612), 0),
            (202_611, Some(202_610), 1),
            (202_701, Some(202_511), 14),
        ] {
            let check = earlier(month(period), next.map(month));
            assert_eq!((check.count, check.state == CheckState::Ok), (expected, expected == 0), "{period} {next:?}");
        }
    }

    #[test]
    fn what_blocks_refuses_and_a_warning_only_when_asked() {
        let (clean, warned, blocked) = (waiting(0), waiting(1), agree(2));
        for (checks, strict, expected) in [
            (vec![clean.clone()], true, None),
            (vec![clean.clone(), warned.clone()], false, None),
            (vec![clean.clone(), warned.clone()], true, Some("the check list is against it: refunds_waiting")),
            (vec![warned, blocked], false, Some("the check list is against it: books_agree")),
        ] {
            let refused = accepted(checks.clone(), &Closing { strict, reason: None }).err().map(Problem::from);
            assert_eq!(refused.as_ref().map(Problem::detail), expected, "{checks:?}");
        }
        let refused = Problem::from(not_over("it is not over".into(), vec![clean]));
        assert_eq!((refused.code(), refused.detail()), (codes::PERIOD_NOT_OVER, "it is not over"));
    }
}
