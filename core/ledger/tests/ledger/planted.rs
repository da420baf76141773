//! Changes planted past the ledger: `verify` finds each of them and names the place; links of an earlier release still hold.

use crate::ground::{DAY_MS, NOW_MS, at, ledger, month, open, post, run, sealed_and_sound, transfer, write};
use futures::FutureExt;
use heyuan_contract::Ratio;
use heyuan_harness::for_both_databases;
use heyuan_kernel::secret::{Key, TenantKeys, sha256_hex};
use heyuan_kernel::sql;
use heyuan_ledger::{Account, Carry, Hold, Ledger, Lots, NewLot};

fn hold(key: &str, amount: i64) -> Hold {
    Hold {
        key: key.into(),
        unit: "points".into(),
        debit: "anna".into(),
        credit: "spent".into(),
        amount,
        kind: "spend".into(),
        reference: "order".into(),
        at: at(0),
        expires_at: at(1),
    }
}

/// Accounts of every shape, and an entry of every kind.
async fn book(ledger: &Ledger) {
    let accounts = vec![
        Account::striped("issued", "mall", "points"),
        Account::striped("spent", "mall", "points"),
        Account::lots("anna", "1", "points"),
        Account::lots("bert", "2", "points"),
        Account::plain("plain", "3", "points", Some(-5)),
    ];
    open(ledger, accounts).await;
    let lot = |days: i64| Lots::New(NewLot { issuer: "mall".into(), cost: Ratio::new(6, 5).expect("a ratio"), expires_at: at(days) });
    let spend = transfer("spend", "anna", "spent", 40, Lots::FirstExpiring);
    let earned = vec![transfer("soon", "issued", "anna", 30, lot(10)), transfer("late", "issued", "anna", 90, lot(300)), spend];
    post(ledger, earned).await.expect("it is posted");
    post(ledger, vec![transfer("back", "spent", "anna", 15, Lots::RestoredFrom("spend".into()))]).await.expect("it is posted");
    post(ledger, vec![transfer("plainly", "issued", "plain", 8, Lots::None)]).await.expect("it is posted");
    write(ledger, |ledger, tx| {
        async move {
            for (key, amount) in [("posted", 20), ("voided", 10), ("open", 7)] {
                ledger.hold(tx, &hold(key, amount)).await?;
            }
            ledger.post_hold(tx, "posted", 12, month()).await?;
            ledger.void_hold(tx, "voided").await?;
            let (from, to, kind, reference) = ("anna".into(), "bert".into(), "transfer".into(), "gift".into());
            let gift = Carry {
                key: "gift".into(),
                unit: "points".into(),
                from,
                to,
                amount: 9,
                occurred_at: at(0),
                period: month(),
                kind,
                reference,
            };
            ledger.carry(tx, &gift).await.map(drop)
        }
        .boxed()
    })
    .await
    .expect("holds and a carrying are written");
}

/// Changes one row: table, what identifies it, column, the value as SQL sees it; and where it is found.
const PLANTED: &[(&str, &str, &str, &str, &str)] = &[
    ("ledger_transfer", "key = 'spend'", "unit", "'growth'", "spend"),
    ("ledger_transfer", "key = 'spend'", "key", "'other'", "other"),
    ("ledger_transfer", "key = 'spend'", "credit", "credit - 1", "spend"),
    ("ledger_transfer", "key = 'spend'", "debit", "debit + 1", "spend"),
    ("ledger_transfer", "key = 'spend'", "amount", "amount + 1", "spend"),
    ("ledger_transfer", "key = 'spend'", "debit_version", "debit_version + 100", "spend"),
    ("ledger_transfer", "key = 'spend'", "debit_balance", "debit_balance + 1", "spend"),
    ("ledger_transfer", "key = 'soon'", "credit_balance", "credit_balance + 1", "soon"),
    ("ledger_transfer", "key = 'spend'", "occurred_at", "occurred_at + 1", "spend"),
    ("ledger_transfer", "key = 'spend'", "period", "202612", "spend"),
    ("ledger_transfer", "key = 'spend'", "kind", "'forged'", "spend"),
    ("ledger_transfer", "key = 'spend'", "reference", "'forged'", "spend"),
    ("ledger_transfer", "key = 'spend'", "posted_at", "posted_at + 1", "spend"),
    ("ledger_lot", "source = 'late'", "issuer", "'hotel'", "late"),
    ("ledger_lot", "source = 'late'", "cost_numerator", "7", "late"),
    ("ledger_lot", "source = 'late'", "cost_denominator", "7", "late"),
    ("ledger_lot", "source = 'late'", "expires_at", "expires_at + 1", "late"),
    ("ledger_lot", "source = 'late'", "period", "202612", "late"),
    ("ledger_lot", "source = 'late'", "amount", "amount + 1", "late"),
    ("ledger_lot", "source = 'late'", "remaining", "remaining - 1", "late"),
    ("ledger_lot", "source = 'late'", "held", "held + 1", "late"),
    ("ledger_lot", "source = 'late'", "account", "account + 1", "late"),
    ("ledger_lot", "source = 'late'", "source", "'lately'", "late"),
    ("ledger_lot", "source = 'gift/1'", "issuer", "'hotel'", "gift/1"),
    ("ledger_lot_move", "amount = -30", "amount", "-29", "spend"),
    ("ledger_lot_move", "amount = -30", "lot", "lot + 1", "spend"),
    ("ledger_lot_move", "amount = -30", "period", "202612", "spend"),
    ("ledger_lot_move", "restores IS NOT NULL AND amount = 10", "restores", "restores + 1", "back"),
    ("ledger_lot_move", "amount = -30", "transfer", "transfer + 1", "spend"),
    ("ledger_account", "id = 'plain'", "unit", "'growth'", "plain"),
    ("ledger_account", "id = 'plain'", "owner", "'4'", "plain"),
    ("ledger_account", "id = 'plain'", "floor", "-6", "plain"),
    ("ledger_account", "id = 'plain'", "floor", "NULL", "plain"),
    ("ledger_account", "id = 'plain'", "shape", "'lots'", "plain"),
    ("ledger_account", "id = 'plain'", "id", "'other'", "plain"),
    ("ledger_account", "id = 'plain'", "balance", "balance + 1", "plain"),
    ("ledger_account", "id = 'plain'", "reserved", "reserved + 1", "plain"),
    ("ledger_account", "id = 'plain'", "version", "version + 1", "plain"),
    ("ledger_stripe", "account = (SELECT no FROM ledger_account WHERE id = 'issued') AND debits >= 120", "debits", "debits + 1", "issued"),
    ("ledger_stripe", "account = (SELECT no FROM ledger_account WHERE id = 'issued') AND debits >= 120", "credits", "1", "issued"),
    ("ledger_stripe", "account = (SELECT no FROM ledger_account WHERE id = 'issued') AND debits >= 120", "period", "202612", "issued"),
    ("ledger_hold", "key = 'posted'", "posted", "13", "posted"),
    ("ledger_hold", "key = 'posted'", "outcome", "'voided'", "posted"),
    ("ledger_hold", "key = 'posted'", "reference", "'forged'", "posted"),
    ("ledger_hold", "key = 'posted'", "credit", "credit - 1", "posted"),
    ("ledger_hold", "key = 'posted'", "held_at", "held_at + 1", "posted"),
    ("ledger_hold", "key = 'voided'", "outcome", "'posted'", "voided"),
    ("ledger_hold", "key = 'open'", "amount", "8", "open"),
    ("ledger_hold", "key = 'open'", "outcome", "'expired'", "open"),
    ("ledger_hold_lot", "hold = 'open'", "amount", "8", "open"),
    // The largest numbers that there are: no sum of the walk overflows.
    ("ledger_transfer", "key = 'soon'", "credit_balance", "9223372036854775807", "soon"),
    ("ledger_transfer", "key = 'spend'", "amount", "9223372036854775807", "spend"),
    ("ledger_transfer", "key = 'spend'", "debit_version", "9223372036854775807", "spend"),
    ("ledger_account", "id = 'plain'", "balance", "9223372036854775807", "plain"),
    ("ledger_account", "id = 'anna'", "reserved", "9223372036854775807", "anna"),
    ("ledger_lot", "source = 'late'", "remaining", "9223372036854775807", "late"),
    ("ledger_lot_move", "amount = -30", "amount", "9223372036854775807", "spend"),
    (
        "ledger_stripe",
        "account = (SELECT no FROM ledger_account WHERE id = 'issued') AND debits >= 120",
        "debits",
        "9223372036854775807",
        "issued",
    ),
    ("ledger_hold", "key = 'open'", "amount", "9223372036854775807", "open"),
    ("ledger_hold_lot", "hold = 'open'", "amount", "9223372036854775807", "open"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_found_and_its_place_named() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        book(&ledger).await;
        sealed_and_sound(&ledger).await;
        for (table, row, column, value, place) in PLANTED {
            let what = format!("{table} {row} {column} = {value}");
            run(&ledger, &format!("CREATE TABLE kept AS SELECT * FROM {table}")).await;
            assert_eq!(run(&ledger, &format!("UPDATE {table} SET {column} = {value} WHERE {row}")).await, 1, "{what}");
            let report = ledger.verify().await.expect("the book can be read");
            assert!(report.findings.iter().any(|finding| finding.place.contains(place)), "{what}: {:?}", report.findings);
            run(&ledger, &format!("DELETE FROM {table}")).await;
            run(&ledger, &format!("INSERT INTO {table} SELECT * FROM kept")).await;
            run(&ledger, "DROP TABLE kept").await;
        }
        sealed_and_sound(&ledger).await;
    })
    .await;
}

/// Rows that come, go or change places: what is done, and where it is found. Several statements stand between semicolons; `#key` is the number
/// of the transfer of that key.
const MISPLACED: &[(&str, &str)] = &[
    ("DELETE FROM ledger_transfer WHERE key = 'plainly'", "transfer #plainly,"),
    ("DELETE FROM ledger_transfer WHERE key = 'spend'", "transfer #spend,"),
    (
        "INSERT INTO ledger_transfer (key, unit, debit, credit, amount, debit_version, debit_balance, credit_version, credit_balance, occurred_at,
           period, kind, reference, posted_at)
         SELECT 'added', unit, debit, credit, amount, debit_version, debit_balance, credit_version, credit_balance, occurred_at, period, kind,
           reference, posted_at FROM ledger_transfer WHERE key = 'plainly'",
        "added",
    ),
    (
        "UPDATE ledger_transfer SET no = -1 WHERE key = 'soon'; UPDATE ledger_transfer SET no = #soon WHERE key = 'late';
         UPDATE ledger_transfer SET no = #late WHERE no = -1",
        "transfer #soon late",
    ),
    (
        "UPDATE ledger_seal SET transfer = -1 WHERE transfer = #soon; UPDATE ledger_seal SET transfer = #soon WHERE transfer = #late;
         UPDATE ledger_seal SET transfer = #late WHERE transfer = -1",
        "transfer #late late",
    ),
    ("DELETE FROM ledger_seal WHERE transfer = #back", "link 4"),
    ("UPDATE ledger_seal SET hash = SUBSTR(hash, 2) || SUBSTR(hash, 1, 1) WHERE transfer = #back", "transfer #back back"),
    ("UPDATE ledger_head SET hash = 'forged'", "#head"),
    ("UPDATE ledger_head SET signature = 'forged'", "#head"),
    ("UPDATE ledger_head SET number = number + 1", "#next"),
    ("DELETE FROM ledger_head", "#head"),
    (
        "INSERT INTO ledger_lot_move (lot, transfer, amount, period) SELECT no, -1, -5, period FROM ledger_lot WHERE source = 'late';
         INSERT INTO ledger_lot_move (lot, transfer, amount, period) SELECT no, -1, 5, period FROM ledger_lot WHERE source = 'soon';
         UPDATE ledger_lot SET remaining = remaining - 5 WHERE source = 'late'; UPDATE ledger_lot SET remaining = remaining + 5 WHERE source = 'soon'",
        "lot late",
    ),
    (
        "INSERT INTO ledger_hold_lot (hold, lot, amount) SELECT 'nobody', no, 5 FROM ledger_lot WHERE source = 'late';
         UPDATE ledger_lot SET remaining = remaining - 5, held = held + 5 WHERE source = 'late'",
        "nobody",
    ),
    (
        "INSERT INTO ledger_stripe (account, period, stripe, debits, credits) SELECT no, 202611, 0, 0, 5 FROM ledger_account WHERE id = 'plain';
         INSERT INTO ledger_stripe (account, period, stripe, debits, credits) SELECT no, 202611, 0, 5, 0 FROM ledger_account WHERE id = 'anna'",
        "plain",
    ),
    ("INSERT INTO ledger_stripe (account, period, stripe, debits, credits) VALUES (-7, 202611, 0, 0, 0)", "account -7"),
    ("DELETE FROM ledger_lot WHERE source = 'late'", "late"),
    (
        "INSERT INTO ledger_lot (account, source, issuer, cost_numerator, cost_denominator, amount, remaining, held, expires_at, period)
         SELECT account, 'added', issuer, cost_numerator, cost_denominator, amount, 5, 0, expires_at, period FROM ledger_lot WHERE source = 'late'",
        "added",
    ),
    ("DELETE FROM ledger_lot_move WHERE transfer = #spend", "spend"),
    ("INSERT INTO ledger_lot_move (lot, transfer, amount, period) SELECT no, #plainly, -1, period FROM ledger_lot WHERE source = 'late'", "plainly"),
    ("DELETE FROM ledger_stripe WHERE credits > 0 OR debits >= 120", "issued"),
    ("INSERT INTO ledger_stripe (account, period, stripe, debits, credits) SELECT no, 202612, 0, 1, 1 FROM ledger_account WHERE id = 'issued'", "issued"),
    ("DELETE FROM ledger_account WHERE id = 'plain'", "plainly"),
    ("DELETE FROM ledger_hold WHERE key = 'open'", "anna"),
    (
        "INSERT INTO ledger_hold (key, unit, debit, credit, amount, kind, reference, held_at, expires_at, outcome, posted)
         SELECT 'added', unit, debit, credit, amount, kind, reference, held_at, expires_at, outcome, posted FROM ledger_hold WHERE key = 'open'",
        "added",
    ),
    ("DELETE FROM ledger_hold_lot WHERE hold = 'open'", "open"),
];

/// The tables of the book, which a test keeps and puts back.
const TABLES: &[&str] = &[
    "ledger_transfer",
    "ledger_lot",
    "ledger_lot_move",
    "ledger_account",
    "ledger_stripe",
    "ledger_hold",
    "ledger_hold_lot",
    "ledger_seal",
    "ledger_head",
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_go_or_change_places_are_found() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        book(&ledger).await;
        sealed_and_sound(&ledger).await;
        let rows = sql::all(ledger.database().reader(), "SELECT no, key FROM ledger_transfer", []).await.expect("it is read");
        let numbers: Vec<(String, i64)> =
            rows.iter().map(|row| (sql::get(row, "key").expect("a key"), sql::get(row, "no").expect("a number"))).collect();
        let head = ledger.head().await.expect("it is read").expect("there is a head").number;
        let told = |text: &str| {
            let text = text.replace("#head", &head.to_string()).replace("#next", &(head + 1).to_string());
            numbers.iter().fold(text, |text, (key, number)| text.replace(&format!("#{key}"), &number.to_string()))
        };
        for table in TABLES {
            run(&ledger, &format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
        }
        for (change, place) in MISPLACED {
            let (change, place) = (told(change), told(place));
            let mut changed = 0;
            for statement in change.split(';') {
                changed += run(&ledger, statement).await;
            }
            assert!(changed > 0, "{change}");
            let report = ledger.verify().await.expect("the book can be read");
            let found = report.findings.iter().any(|finding| finding.place.contains(&place));
            assert!(found, "{change}: {place} is not named in {:?}", report.findings);
            for table in TABLES {
                run(&ledger, &format!("DELETE FROM {table}")).await;
                run(&ledger, &format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
            }
        }
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_an_earlier_release_hold_beside_those_of_this_one() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, vec![Account::striped("issued", "mall", "points"), Account::plain("plain", "3", "points", None)]).await;
        post(&ledger, vec![transfer("first", "issued", "plain", 10, Lots::None)]).await.expect("it is posted");
        let row = sql::one(ledger.database().reader(), "SELECT * FROM ledger_transfer WHERE key = 'first'", []).await;
        let row = row.expect("it is read").expect("it is there");
        let number = |column: &str| sql::get::<i64>(&row, column).expect("a number");
        let seen = format!(
            "{{\"no\":{no},\"key\":\"first\",\"unit\":\"points\",\"debit\":{debit},\"credit\":{credit},\"amount\":10,\
             \"debit_version\":null,\"debit_balance\":null,\"credit_version\":1,\"credit_balance\":10,\
             \"occurred_at\":{NOW_MS},\"period\":202611,\"kind\":\"move\",\"reference\":\"test\",\"posted_at\":{NOW_MS}}}",
            no = number("no"),
            debit = number("debit"),
            credit = number("credit"),
        );
        // As the release before wrote it: without a format.
        let first = sha256_hex(format!("heyuan ledger{seen}").as_bytes());
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        let signature = hex::encode(keys.head().mac(&[b"ledger", &1i64.to_be_bytes(), first.as_bytes()]));
        run(&ledger, &format!("INSERT INTO ledger_seal (number, transfer, hash) SELECT 1, no, '{first}' FROM ledger_transfer")).await;
        run(&ledger, &format!("INSERT INTO ledger_head (number, hash, signature, at) VALUES (1, '{first}', '{signature}', 0)")).await;
        run(&ledger, "DELETE FROM ledger_unsealed").await;
        sealed_and_sound(&ledger).await;
        post(&ledger, vec![transfer("second", "issued", "plain", 5, Lots::None)]).await.expect("it is posted");
        sealed_and_sound(&ledger).await;
        let rows = sql::all(ledger.database().reader(), "SELECT format FROM ledger_seal ORDER BY number", []).await.expect("it is read");
        let formats: Vec<i64> = rows.iter().map(|row| sql::get(row, "format").expect("a number")).collect();
        assert_eq!(formats, [1, 2]);
        for (format, place) in [(1, "second"), (3, "second")] {
            run(&ledger, &format!("UPDATE ledger_seal SET format = {format} WHERE number = 2")).await;
            let report = ledger.verify().await.expect("the book can be read");
            assert!(report.findings.iter().any(|finding| finding.place.contains(place)), "{format}: {:?}", report.findings);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_each_day_one_head_stays() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, vec![Account::striped("issued", "mall", "points"), Account::plain("plain", "3", "points", None)]).await;
        let heads = async || {
            let rows =
                sql::all(ledger.database().reader(), "SELECT number FROM ledger_head ORDER BY number", []).await.expect("it is read");
            rows.iter().map(|row| sql::get::<i64>(row, "number").expect("a number")).collect::<Vec<_>>()
        };
        for (key, expected) in [("one", vec![1]), ("two", vec![2]), ("three", vec![2, 3]), ("four", vec![2, 4])] {
            if key == "three" {
                run(&ledger, &format!("UPDATE ledger_head SET at = at - {DAY_MS}")).await;
            }
            post(&ledger, vec![transfer(key, "issued", "plain", 1, Lots::None)]).await.expect("it is posted");
            sealed_and_sound(&ledger).await;
            assert_eq!(heads().await, expected, "{key}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_breaks_off_hides_nothing_that_others_find() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        book(&ledger).await;
        sealed_and_sound(&ledger).await;
        run(&ledger, "UPDATE ledger_transfer SET reference = 'forged' WHERE key = 'spend'").await;
        run(&ledger, "UPDATE ledger_account SET reserved = reserved + 1 WHERE id = 'plain'").await;
        run(&ledger, "DROP TABLE ledger_hold_lot").await;
        let report = ledger.verify().await.expect("it tells what it can");
        for (check, place) in [("chain", "spend"), ("balance", "plain"), ("unfinished", "holds")] {
            let found = report.findings.iter().any(|finding| finding.check == check && finding.place.contains(place));
            assert!(found, "{check} {place}: {:?}", report.findings);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floor_holds_at_every_version_and_not_at_the_last_alone() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, vec![Account::striped("issued", "mall", "points"), Account::plain("plain", "3", "points", None)]).await;
        post(&ledger, vec![transfer("below", "plain", "issued", 3, Lots::None)]).await.expect("there is no floor");
        post(&ledger, vec![transfer("above", "issued", "plain", 5, Lots::None)]).await.expect("it is posted");
        sealed_and_sound(&ledger).await;
        run(&ledger, "UPDATE ledger_account SET floor = 0 WHERE id = 'plain'").await;
        let report = ledger.verify().await.expect("the book can be read");
        let below: Vec<_> = report.findings.iter().filter(|finding| finding.why.contains("below its floor")).collect();
        assert!(matches!(below.as_slice(), [one] if one.check == "version"), "{:?}", report.findings);
    })
    .await;
}
