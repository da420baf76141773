//! Statements, trial balances and exports on both databases.

use crate::ground::{NOW_MS, ledger, open, write};
use futures::FutureExt;
use heyuan_contract::Timestamp;
use heyuan_harness::for_both_databases;
use heyuan_ledger::{Account, Error, Ledger, Lots, Period, Transfer};

fn month(text: &str) -> Period {
    Period::parse(text).expect("a month")
}

fn transfer(key: &str, period: &str, debit: &str, credit: &str, amount: i64) -> Transfer {
    Transfer {
        key: key.into(),
        unit: "growth".into(),
        debit: debit.into(),
        credit: credit.into(),
        amount,
        occurred_at: Timestamp::clamped(NOW_MS),
        period: month(period),
        kind: "move".into(),
        reference: "a, \"b\"".into(),
        lots: Lots::None,
    }
}

/// Two members, a line and the centre over three months.
async fn book(ledger: &Ledger) {
    let member = |name: &str| Account::plain(format!("member/{name}/growth"), name, "growth", None);
    let accounts = vec![
        member("anna"),
        member("bert"),
        Account::striped("line/mall/growth_issued", "mall", "growth"),
        Account::striped("centre", "centre", "growth"),
    ];
    open(ledger, accounts).await;
    let (anna, bert, line) = ("member/anna/growth", "member/bert/growth", "line/mall/growth_issued");
    let transfers = vec![
        transfer("1", "2026-10", line, anna, 100),
        transfer("2", "2026-11", line, anna, 30),
        transfer("3", "2026-12", line, anna, 7),
        transfer("4", "2026-11", anna, bert, 20),
        transfer("5", "2026-11", anna, "centre", 5),
    ];
    write(ledger, move |ledger, tx| {
        let transfers = transfers.clone();
        async move { ledger.post(tx, &transfers).await.map(drop) }.boxed()
    })
    .await
    .expect("they are posted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_opens_moves_and_closes() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        book(&ledger).await;
        let reader = ledger.database().reader();
        for (account, period, figures, keys) in [
            ("member/anna/growth", "2026-10", [0, 0, 100, 100], vec!["1"]),
            ("member/anna/growth", "2026-11", [100, 25, 30, 105], vec!["2", "4", "5"]),
            ("member/anna/growth", "2026-12", [105, 0, 7, 112], vec!["3"]),
            ("member/anna/growth", "2027-01", [112, 0, 0, 112], vec![]),
            ("line/mall/growth_issued", "2026-11", [-100, 30, 0, -130], vec!["2"]),
            ("line/mall/growth_issued", "2026-12", [-130, 7, 0, -137], vec!["3"]),
            ("centre", "2026-11", [0, 0, 5, 5], vec!["5"]),
        ] {
            // Pages of one: each goes on where the one before ended.
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = ledger.account_statement(reader, account, month(period), after, 1).await.expect("it is read");
                assert_eq!([page.opening, page.debits, page.credits, page.closing], figures, "{account} {period}");
                let Some(entry) = page.entries.first() else { break };
                seen.push(entry.key.clone());
                after = Some(entry.place);
            }
            assert_eq!(seen, keys, "{account} {period}");
        }
        let page = ledger.account_statement(reader, "member/anna/growth", month("2026-11"), None, 9).await.expect("it is read");
        let entries: Vec<_> = page.entries.iter().map(|entry| (entry.other.as_str(), entry.amount)).collect();
        assert_eq!(entries, [("line/mall/growth_issued", 30), ("member/bert/growth", -20), ("centre", -5)]);
        let nobody = ledger.account_statement(reader, "nobody", month("2026-11"), None, 9).await;
        assert!(matches!(nobody, Err(Error::UnknownAccount(_))), "{nobody:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_balance_sums_to_zero() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        book(&ledger).await;
        let reader = ledger.database().reader();
        let lines = ledger.trial_balance(reader, month("2026-11")).await.expect("it is read");
        let seen: Vec<_> =
            lines.iter().map(|line| (line.group.as_str(), [line.opening, line.debits, line.credits, line.closing])).collect();
        let expected = [
            ("centre", [0, 0, 5, 5]),
            ("line/mall/growth_issued", [-100, 30, 0, -130]),
            // Both members: what went from one to the other is on both sides.
            ("member/*/growth", [100, 25, 50, 125]),
        ];
        assert_eq!(seen, expected);
        for sum in [lines.iter().map(|line| line.opening).sum::<i64>(), lines.iter().map(|line| line.closing).sum()] {
            assert_eq!(sum, 0);
        }
        assert_eq!(ledger.trial_balance(reader, month("2026-09")).await.expect("it is read"), [], "nothing was posted by then");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_both_sides_of_every_transfer() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        book(&ledger).await;
        let reader = ledger.database().reader();
        let page = ledger.entry_rows(reader, Some(month("2026-11")), 0).await.expect("it is read");
        assert_eq!(page.next, None);
        let seen: Vec<_> =
            page.rows.iter().map(|row| (row[1].as_str(), row[2].as_str(), row[6].as_str(), row[7].as_str(), row[9].as_str())).collect();
        let expected = [
            ("2", "2026-11", "line/mall/growth_issued", "-30", ""),
            ("2", "2026-11", "member/anna/growth", "30", "130"),
            ("4", "2026-11", "member/anna/growth", "-20", "117"),
            ("4", "2026-11", "member/bert/growth", "20", "20"),
            ("5", "2026-11", "member/anna/growth", "-5", "112"),
            ("5", "2026-11", "centre", "5", ""),
        ];
        assert_eq!(seen, expected);
        assert_eq!(ledger.entry_rows(reader, None, 0).await.expect("it is read").rows.len(), 10);
    })
    .await;
}
