//! Personal values stand in the vault alone, are shown masked, and are gone once erased.

use crate::tenant::open;
use futures::FutureExt;
use heyuan_harness::for_both_databases;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Actor, Error, Personal, Reach, Scope, sql};

#[tokio::test]
async fn a_value_is_sealed_masked_revealed_with_audit_and_erased() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let vault = kernel.vault.clone();
        let reference = kernel
            .db
            .write("seal", move |tx| {
                let vault = vault.clone();
                async move { vault.seal(tx, "anc_1", Personal::Phone, "13812345678").await }.boxed()
            })
            .await
            .expect("it is sealed");
        assert_eq!(kernel.vault.masked(&reference).await.expect("read").as_deref(), Some("138****5678"));
        let looker = Actor::key("key:looker".into(), vec![Scope::Reveal], None, Reach::Everything);
        let stranger = Actor::key("key:stranger".into(), vec![Scope::Admin], None, Reach::Everything);
        assert!(kernel.vault.reveal(&stranger, &reference, "curious").await.is_err());
        for reason in ["", " \n", &"x".repeat(501)] {
            assert_eq!(kernel.vault.reveal(&looker, &reference, reason).await.map_err(|p| p.code().code), Err("invalid_request"));
        }
        assert_eq!(kernel.vault.reveal(&looker, &reference, "a call back").await.as_deref(), Ok("13812345678"));
        let audited = sql::all(kernel.db.reader(), "SELECT actor, detail FROM kernel_audit", []).await.expect("read");
        assert_eq!(audited.len(), 1);
        assert_eq!(sql::get::<String>(&audited[0], "actor").expect("an actor"), "key:looker");
        let vault = kernel.vault.clone();
        let erased: Result<(), Error> = kernel
            .db
            .write("erase", move |tx| {
                let vault = vault.clone();
                async move { vault.erase(tx, &["anc_1".to_owned()]).await }.boxed()
            })
            .await;
        erased.expect("it is erased");
        assert_eq!(kernel.vault.masked(&reference).await.expect("read"), None);
        assert_eq!(kernel.vault.reveal(&looker, &reference, "again").await.map_err(|p| p.code().code), Err("erased"));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_tenant_key_is_refused() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let wrong = TenantKeys::new(&Key::from_bytes([8; 32])).verify(&kernel.db).await;
        assert!(matches!(wrong, Err(Error::TenantKey(_))), "{wrong:?}");
        kernel.keys.verify(&kernel.db).await.expect("the right key is taken");
    })
    .await;
}
