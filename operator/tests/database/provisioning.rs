//! Making, making again, keeping, adopting, removing and counting.

use crate::cluster::{Cluster, run, texts};
use crate::{LIMITS, Tenant, code, on_both};
use heyuan_operator::database::{Error, Limits, Login, budget, close_login, limit, open_login, provision, remove, retain};
use secrecy::{ExposeSecret, SecretString};

on_both! {
    what_is_made_is_what_a_tenant_needs
    twice_is_once
    what_others_changed_is_put_right
    limits_follow_the_class
    two_at_once_are_one
    another_proof_at_once_is_foreign
    retained_data_is_adopted
    removed_twice_is_removed
    a_stranger_in_the_database_is_told_of
    no_password_is_logged
}

async fn what_is_made_is_what_a_tenant_needs(cluster: &Cluster) {
    let tenant = Tenant::fresh();
    let facts = provision(&cluster.server(), &tenant.names, &tenant.proof, Login::A, &tenant.password, LIMITS).await.expect("it is made");
    assert!(facts.is_database_new);
    assert_eq!(
        facts.confines_creators(),
        cluster.look("SELECT (current_setting('server_version_num')::int >= 160000)::text").await == ["true"]
    );
    let roles = [
        "database heyuan_ID heyuan_ID t -1 {heyuan_ID=CTc/heyuan_ID} UTF8 heyuan:ID:HASH",
        "role heyuan_ID f t f f f f f -1 heyuan:ID:HASH",
        "role heyuan_ID_a f t f f t f f 7 SCRAM-SHA-256$4096 heyuan:ID:HASH {idle_in_transaction_session_timeout=10000,role=heyuan_ID,statement_timeout=60000}",
        "role heyuan_ID_b f t f f f f f 7 heyuan:ID:HASH {idle_in_transaction_session_timeout=10000,role=heyuan_ID,statement_timeout=60000}",
    ];
    // Besides these, from 16 on, the operator administers what it made, without its rights; before, there is nothing of it.
    let members = if facts.confines_creators() {
        vec![
            "member heyuan_ID heyuan_ID_a heyuan_operator f true true",
            "member heyuan_ID heyuan_ID_b heyuan_operator f true true",
            "member heyuan_ID heyuan_operator postgres t false false",
            "member heyuan_ID_a heyuan_operator postgres t false false",
            "member heyuan_ID_b heyuan_operator postgres t false false",
        ]
    } else {
        vec!["member heyuan_ID heyuan_ID_a heyuan_operator f", "member heyuan_ID heyuan_ID_b heyuan_operator f"]
    };
    let expected: Vec<&str> = roles[..1].iter().copied().chain(members).chain(roles[1..].iter().copied()).collect();
    assert_eq!(tenant.catalogs(cluster).await, expected);

    let mut session = tenant.session(cluster, Login::A).await.expect("the verifier is the password's");
    run(&mut session, "CREATE TABLE t (n int); CREATE SCHEMA s; CREATE TEMPORARY TABLE u (n int)")
        .await
        .expect("the database is the tenant's");
    let who = "SELECT concat_ws(' ', session_user, current_user, (SELECT tableowner FROM pg_tables WHERE tablename = 't'),
         current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'))";
    let name = tenant.names.database();
    assert_eq!(texts(&mut session, who).await.expect("it reads"), [format!("{name}_a {name} {name} 1min 10s")]);
}

async fn twice_is_once(cluster: &Cluster) {
    let tenant = Tenant::made(cluster).await;
    let before = tenant.catalogs(cluster).await;
    let mut session = tenant.session(cluster, Login::A).await.expect("A may log in");
    run(&mut session, "CREATE TABLE t (n int)").await.expect("the database is the tenant's");
    let facts = provision(&cluster.server(), &tenant.names, &tenant.proof, Login::A, &tenant.password, LIMITS).await.expect("it is made");
    assert!(!facts.is_database_new);
    assert_eq!(tenant.catalogs(cluster).await, before);
    run(&mut session, "SELECT FROM t").await.expect("the session goes on");
}

async fn what_others_changed_is_put_right(cluster: &Cluster) {
    let tenant = Tenant::made(cluster).await;
    let before = tenant.catalogs(cluster).await;
    let name = tenant.names.database();
    for change in [
        "ALTER ROLE {name}_a CONNECTION LIMIT 99",
        "ALTER ROLE {name}_a NOLOGIN PASSWORD NULL",
        "ALTER ROLE {name}_a NOINHERIT CREATEDB CREATEROLE",
        "ALTER ROLE {name}_b LOGIN PASSWORD 'known to somebody'",
        "ALTER ROLE {name}_a RESET ALL",
        "ALTER ROLE {name}_a SET statement_timeout = 0",
        "GRANT CONNECT ON DATABASE {name} TO PUBLIC",
        "GRANT TEMPORARY ON DATABASE {name} TO PUBLIC",
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        "COMMENT ON DATABASE {name} IS NULL; ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        "DROP ROLE {name}_b",
        "GRANT {name} TO heyuan_operator GRANTED BY heyuan_operator",
    ] {
        cluster.meddle(&change.replace("{name}", name)).await;
        assert_ne!(tenant.catalogs(cluster).await, before, "{change}");
        tenant.provision(&cluster.server()).await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
        assert_eq!(tenant.catalogs(cluster).await, before, "{change}");
    }
    // On 16 and later a membership remembers who gave it: only the operator's own can be missed.
    for login in ["a", "b"] {
        cluster.meddle(&format!("SET ROLE heyuan_operator; REVOKE {name} FROM {name}_{login}")).await;
        tenant.provision(&cluster.server()).await.expect("it is put right");
        assert_eq!(tenant.catalogs(cluster).await, before, "{login}");
    }
    tenant.session(cluster, Login::A).await.expect("A may log in");
}

async fn limits_follow_the_class(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let before = tenant.catalogs(cluster).await;
    let to = async |connections: u32| limit(&server, &tenant.names, &tenant.proof, Limits { connections }).await;
    assert!(!to(LIMITS.connections).await.expect("the server answers"), "nothing is written where it is so already");
    assert_eq!(tenant.catalogs(cluster).await, before);
    let limits = format!("SELECT rolconnlimit::text FROM pg_roles WHERE rolname ~ '^{}_[ab]$'", tenant.names.database());
    for (connections, writes) in [(12, true), (12, false), (1, true)] {
        assert_eq!(to(connections).await.expect("the server answers"), writes, "{connections}");
        assert_eq!(cluster.look(&limits).await, [connections.to_string(), connections.to_string()]);
    }
    let mut session = tenant.session(cluster, Login::A).await.expect("one may log in");
    assert_eq!(code(tenant.session(cluster, Login::A).await), "53300", "and no second one");
    to(2).await.expect("the server answers");
    tenant.session(cluster, Login::A).await.expect("now a second one may");
    to(1).await.expect("the server answers");
    run(&mut session, "SELECT 1").await.expect("who is in stays in");
    to(LIMITS.connections).await.expect("the server answers");
    assert_eq!(tenant.catalogs(cluster).await, before, "nothing else was touched");

    assert!(matches!(to(0).await, Err(Error::Invalid(_))));
    let fresh = Tenant::fresh();
    let missing = limit(&server, &fresh.names, &fresh.proof, LIMITS).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
    let foreign = limit(&server, &tenant.names, "the nonce of somebody else", LIMITS).await;
    assert!(matches!(foreign, Err(Error::Foreign { .. })), "{foreign:?}");
}

async fn two_at_once_are_one(cluster: &Cluster) {
    let (tenant, server) = (Tenant::fresh(), cluster.server());
    let (one, other, beside) = tokio::join!(tenant.provision(&server), tenant.provision(&server), Tenant::made(cluster));
    one.expect("one makes it");
    other.expect("the other finds it");
    assert_eq!(tenant.catalogs(cluster).await, beside.catalogs(cluster).await);
    tenant.session(cluster, Login::A).await.expect("A may log in");
}

async fn another_proof_at_once_is_foreign(cluster: &Cluster) {
    let (tenant, server) = (Tenant::fresh(), cluster.server());
    let other = Tenant { names: tenant.names.clone(), proof: "the nonce of somebody else".to_owned(), ..Tenant::fresh() };
    let answers = tokio::join!(tenant.provision(&server), other.provision(&server));
    assert!(matches!(answers, (Ok(()), Err(Error::Foreign { .. })) | (Err(Error::Foreign { .. }), Ok(()))), "{answers:?}");
}

async fn retained_data_is_adopted(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let mut session = tenant.session(cluster, Login::A).await.expect("A may log in");
    run(&mut session, "CREATE TABLE t AS SELECT 'kept' AS word").await.expect("the database is the tenant's");
    for _ in 0..2 {
        retain(&server, &tenant.names, &tenant.proof).await.expect("it is retained");
        assert!(run(&mut session, "SELECT FROM t").await.is_err(), "the session is ended");
        assert_eq!(code(tenant.session(cluster, Login::A).await), "28P01");
    }
    let heir = Tenant { names: tenant.names.clone(), proof: tenant.proof.clone(), password: SecretString::from("another-password-by-now") };
    let facts = provision(&server, &heir.names, &heir.proof, Login::B, &heir.password, LIMITS).await.expect("it is adopted");
    assert!(!facts.is_database_new);
    let mut session = heir.session(cluster, Login::B).await.expect("B may log in");
    assert_eq!(texts(&mut session, "SELECT word FROM t").await.expect("it reads"), ["kept"]);
    run(&mut session, "ALTER TABLE t ADD n int").await.expect("what A made is B's");
    assert_ne!(code(heir.session(cluster, Login::A).await), "done");
}

async fn removed_twice_is_removed(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let mut session = tenant.session(cluster, Login::A).await.expect("A may log in");
    run(&mut session, "CREATE TABLE t (n int); SELECT lo_create(0)").await.expect("the database is the tenant's");
    for _ in 0..2 {
        remove(&server, &tenant.names, &tenant.proof).await.expect("it is removed");
        assert_eq!(tenant.catalogs(cluster).await, Vec::<String>::new());
        retain(&server, &tenant.names, &tenant.proof).await.expect("nothing is there to close");
        assert_eq!(close_login(&server, &tenant.names, &tenant.proof, Login::A).await.expect("nothing is there to close"), 0);
        let open = open_login(&server, &tenant.names, &tenant.proof, Login::A, &tenant.password).await;
        assert!(matches!(open, Err(Error::Missing { .. })), "{open:?}");
    }
    assert!(run(&mut session, "SELECT 1").await.is_err(), "the session is ended");
    tenant.provision(&server).await.expect("the name is free again");
    let mut session = tenant.session(cluster, Login::A).await.expect("A may log in");
    assert_eq!(code(run(&mut session, "SELECT FROM t").await), "42P01");
}

async fn a_stranger_in_the_database_is_told_of(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let stranger = cluster.superuser_in(tenant.names.database()).await;
    let refused = remove(&server, &tenant.names, &tenant.proof).await.expect_err("only a superuser may end a superuser's session");
    assert!(matches!(&refused, Error::Refused { missing, .. } if missing.contains("stranger")), "{refused:?}");
    drop(stranger);
    // The server drops a database only when it has seen that the session is gone, for which it waits some seconds by itself.
    remove(&server, &tenant.names, &tenant.proof).await.expect("it is removed");
    assert_eq!(tenant.catalogs(cluster).await, Vec::<String>::new());
}

async fn no_password_is_logged(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let next = SecretString::from("the-next-one-is-secret-too");
    open_login(&server, &tenant.names, &tenant.proof, Login::B, &next).await.expect("B is opened");
    tenant.session_with(cluster, Login::B, &next).await.expect("B may log in");
    tenant.session_with(cluster, Login::B, &tenant.password).await.expect_err("B has another password");
    close_login(&server, &tenant.names, &tenant.proof, Login::A).await.expect("A is closed");
    remove(&server, &tenant.names, &tenant.proof).await.expect("it is removed");
    let log = cluster.log();
    assert!(
        log.contains(&format!("ALTER ROLE \"{}\" LOGIN PASSWORD 'SCRAM-SHA-256$", tenant.names.login(Login::B))),
        "statements are logged"
    );
    for secret in [&tenant.password, &next] {
        assert!(!log.contains(secret.expose_secret()));
    }
    assert!(!log.contains(&tenant.proof));
}

async fn promises_are_counted(cluster: Cluster) {
    let server = cluster.server();
    let (first, second) = (Tenant::fresh(), Tenant::fresh());
    let promised = async || budget(&server, 20).await.expect("the server counts");
    assert_eq!((promised().await.promised, promised().await.server_max), (0, 97));
    first.provision(&server).await.expect("it is made");
    assert_eq!(promised().await.promised, 7);
    provision(&server, &second.names, &second.proof, Login::B, &second.password, Limits { connections: 5 }).await.expect("it is made");
    assert_eq!(promised().await.promised, 12);
    // What only looks like ours, and what is not open.
    cluster.meddle("CREATE ROLE heyuan_0000000000000000_a LOGIN CONNECTION LIMIT 50").await;
    cluster
        .meddle("CREATE ROLE heyuan_0000000000000001_a LOGIN; COMMENT ON ROLE heyuan_0000000000000001_a IS 'heyuan:0000000000000001:no'")
        .await;
    open_login(&server, &first.names, &first.proof, Login::B, &first.password).await.expect("B is opened");
    let most = promised().await;
    let fits = |tenant: &Tenant, connections| most.fits(&tenant.names, connections);
    assert_eq!((most.promised, fits(&Tenant::fresh(), 1), fits(&Tenant::fresh(), 2)), (19, true, false));
    assert_eq!((fits(&second, 6), fits(&second, 7), fits(&first, 15), fits(&first, 16)), (true, false, true, false));
    close_login(&server, &first.names, &first.proof, Login::A).await.expect("A is closed");
    retain(&server, &second.names, &second.proof).await.expect("it is retained");
    assert_eq!(promised().await.promised, 7);
    cluster.meddle(&format!("ALTER ROLE {} CONNECTION LIMIT -1", first.names.login(Login::B))).await;
    assert_eq!(promised().await.promised, 97);
    remove(&server, &first.names, &first.proof).await.expect("it is removed");
    assert_eq!(promised().await.promised, 0);
}

#[tokio::test]
async fn promises_are_counted_on_debian() {
    promises_are_counted(Cluster::debian()).await;
}

#[tokio::test]
async fn promises_are_counted_on_wheel() {
    promises_are_counted(Cluster::wheel()).await;
}
