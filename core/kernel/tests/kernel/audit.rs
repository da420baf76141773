//! Audit records are sealed: whatever is changed, removed or inserted afterwards is named, and what is not sealed yet is told.

use crate::tenant::open;
use futures::FutureExt;
use heyuan_harness::for_both_databases;
use heyuan_kernel::chain::{Chain, Head, Walk};
use heyuan_kernel::{Actor, Database, Error, Kernel, audit, sql};

async fn act(db: &Database, object: &'static str) {
    db.write("act", move |tx| {
        async move {
            let entry = audit::Entry::new(&Actor::system("test"), "reveal", object).detail("reason", "a “test” of \\ and 缘由");
            audit::record(tx, &entry).await
        }
        .boxed()
    })
    .await
    .expect("it is audited");
}

async fn seal(db: &Database, chain: &Chain) -> u64 {
    let chain = chain.clone();
    let sealed = db.write("seal", move |tx| {
        let chain = chain.clone();
        async move { chain.seal(tx).await }.boxed()
    });
    sealed.await.expect("it is sealed")
}

async fn run(db: &Database, text: &'static str) {
    let tampered = db.write("tamper", move |tx| async move { sql::execute(tx.conn(), text, []).await }.boxed());
    assert!(Result::<u64, Error>::expect(tampered.await, "the statement runs") > 0, "{text} changes something");
}

/// Five sealed acts, and the head over them.
async fn sealed(kernel: &Kernel) -> (Chain, Head) {
    for object in ["per_1", "per_2", "per_3", "per_4", "per_5"] {
        act(&kernel.db, object).await;
    }
    let chain = audit::chain(kernel);
    assert_eq!(seal(&kernel.db, &chain).await, 5);
    let head = chain.head().await.expect("it is read").expect("there is a head");
    assert_eq!(head.number, 5);
    (chain, head)
}

async fn walk(chain: &Chain, exported: &[Head]) -> Walk {
    chain.verify(exported).await.expect("the chain can be read")
}

#[tokio::test]
async fn a_sealed_chain_holds_and_tells_its_tail() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let (chain, head) = sealed(&kernel).await;
        act(&kernel.db, "per_6").await;
        let found = walk(&chain, std::slice::from_ref(&head)).await;
        assert_eq!((found.sealed, found.tail, found.findings), (5, 1, vec![]));
        assert_eq!(seal(&kernel.db, &chain).await, 1);
        assert_eq!(seal(&kernel.db, &chain).await, 0);
        let found = walk(&chain, &[head]).await;
        assert_eq!((found.sealed, found.tail, found.findings), (6, 0, vec![]));
    })
    .await;
}

#[tokio::test]
async fn every_planted_change_is_named() {
    // The change, by whom it is found, what the finding names.
    let planted = [
        ("UPDATE kernel_audit SET actor = 'system:other' WHERE id = 3", "chain", "entry 3"),
        ("UPDATE kernel_audit SET detail = '{}' WHERE id = 5", "chain", "entry 5"),
        ("UPDATE kernel_audit SET at = at + 1 WHERE id = 1", "chain", "entry 1"),
        ("DELETE FROM kernel_audit WHERE id = 2", "chain", "entry 2"),
        ("DELETE FROM kernel_audit WHERE id = 5", "chain", "entry 5"),
        ("DELETE FROM kernel_audit_seal WHERE number = 4", "chain", "link 4"),
        ("UPDATE kernel_audit_seal SET entry = 99 WHERE number = 2", "chain", "entry 99"),
        ("UPDATE kernel_audit_head SET signature = 'x'", "head", "5"),
        (
            "INSERT INTO kernel_audit (at, actor, action, object, detail) VALUES (1, 'key:x', 'reveal', 'per_9', '{}')",
            "unsealed",
            "(reveal by key:x)",
        ),
    ];
    for (change, check, place) in planted {
        for_both_databases(async |database| {
            let kernel = open(&database).await;
            let (chain, _) = sealed(&kernel).await;
            run(&kernel.db, change).await;
            let found = walk(&chain, &[]).await.findings;
            assert!(found.iter().any(|one| one.check == check && one.place.contains(place)), "{change}: {found:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_cut_or_rewritten_chain_does_not_hold_exported_heads() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let (chain, head) = sealed(&kernel).await;
        // Whoever owns the database alone can cut the end, and seal what is left anew only with the tenant's key.
        run(&kernel.db, "DELETE FROM kernel_audit WHERE id >= 4").await;
        run(&kernel.db, "DELETE FROM kernel_audit_seal WHERE number >= 4").await;
        run(&kernel.db, "DELETE FROM kernel_audit_head").await;
        let places = async |exported: &[Head]| {
            let found = walk(&chain, exported).await.findings;
            found.into_iter().map(|one| (one.check, one.place)).collect::<Vec<_>>()
        };
        assert_eq!(places(&[]).await, [("head", "3".to_owned())], "inside the database it shows that the end is not signed");
        assert_eq!(places(std::slice::from_ref(&head)).await, [("head", "5".to_owned()), ("head", "3".to_owned())]);
        // With the key: others take the places of what was cut.
        for object in ["per_7", "per_8"] {
            act(&kernel.db, object).await;
        }
        run(&kernel.db, "INSERT INTO kernel_audit_unsealed (entry) SELECT entry FROM kernel_audit_seal").await;
        run(&kernel.db, "DELETE FROM kernel_audit_seal").await;
        assert_eq!(seal(&kernel.db, &chain).await, 5);
        assert_eq!(walk(&chain, &[]).await.findings, vec![]);
        let found = walk(&chain, std::slice::from_ref(&head)).await.findings;
        assert_eq!(found.first().map(|one| one.why.as_str()), Some("the signed head differs from the chain"));
        let forged = Head { number: 2, ..head };
        let found = walk(&chain, &[forged]).await.findings;
        assert!(found.iter().any(|one| one.why.contains("not signed with this tenant's key")), "{found:?}");
    })
    .await;
}

#[tokio::test]
async fn what_was_audited_before_there_was_a_chain_is_sealed() {
    use sea_orm_migration::MigratorTrait;
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        // Back to the tables of the first release, with a record in them.
        for text in [
            "DROP TABLE kernel_audit_unsealed",
            "DROP TABLE kernel_audit_seal",
            "DROP TABLE kernel_audit_head",
            "DROP INDEX kernel_audit_action",
            "DROP INDEX kernel_audit_object",
            "ALTER TABLE kernel_key DROP COLUMN last_used_at",
            "DELETE FROM kernel_migration WHERE version LIKE '%audit_chain'",
            "INSERT INTO kernel_audit (at, actor, action, object, detail) VALUES (1, 'key:x', 'reveal', 'per_9', '{}')",
        ] {
            sql::execute(kernel.db.reader(), text, []).await.expect(text);
        }
        heyuan_kernel::migration::Migrator::up(kernel.db.reader(), None).await.expect("it is migrated");
        let chain = audit::chain(&kernel);
        assert_eq!(walk(&chain, &[]).await.tail, 1);
        assert_eq!(seal(&kernel.db, &chain).await, 1);
        assert_eq!(walk(&chain, &[]).await.findings, vec![]);
    })
    .await;
}
