//! What is foreign stays as it is, and who is refused learns why.

use crate::cluster::{Cluster, OPERATOR, run, texts};
use crate::{LIMITS, Tenant, on_both};
use heyuan_harness::free_port;
use heyuan_operator::crd::SslMode;
use heyuan_operator::database::{Error, Limits, Login, Server, budget, close_login, open_login, provision, remove, retain, sessions};
use secrecy::SecretString;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// How often it is looked for somebody who waits; each look is a round trip.
const LOOKS_MAX: u32 = 100_000;

on_both! {
    what_is_foreign_stays
    another_nonce_proves_nothing
    a_half_dropped_database_is_only_removed
    refusals_say_what_is_missing
    a_wait_for_the_lock_ends
    wrong_input_is_not_sent
    connections_are_encrypted_as_wished
}

/// Every operation under some proof.
async fn all(server: &Server, tenant: &Tenant, proof: &str) -> Vec<Result<(), Error>> {
    let (names, password) = (&tenant.names, &tenant.password);
    vec![
        provision(server, names, proof, Login::A, password, LIMITS).await.map(|_| ()),
        open_login(server, names, proof, Login::B, password).await,
        close_login(server, names, proof, Login::A).await.map(|_| ()),
        retain(server, names, proof).await,
        remove(server, names, proof).await,
    ]
}

async fn what_is_foreign_stays(cluster: &Cluster) {
    let server = cluster.server();
    let owner = "CREATE ROLE {name}; COMMENT ON ROLE {name} IS '{mark}'";
    for (case, what, statements) in [
        ("an owner without a mark", "role {name}", vec!["CREATE ROLE {name}"]),
        ("an owner with another mark", "role {name}", vec!["CREATE ROLE {name}", "COMMENT ON ROLE {name} IS 'heyuan:{id}:0000'"]),
        ("a log-in without a mark", "role {name}_a", vec!["CREATE ROLE {name}_a LOGIN"]),
        ("a log-in with another mark", "role {name}_b", vec![owner, "CREATE ROLE {name}_b LOGIN", "COMMENT ON ROLE {name}_b IS 'ours'"]),
        ("a database without a mark", "database {name}", vec!["CREATE DATABASE {name}"]),
        ("a closed database of another owner", "database {name}", vec![owner, "CREATE DATABASE {name} ALLOW_CONNECTIONS false"]),
        ("an open database without a mark", "database {name}", vec![owner, "CREATE DATABASE {name} OWNER {name}"]),
        (
            "a marked database of another owner",
            "database {name}",
            vec![owner, "CREATE DATABASE {name} ALLOW_CONNECTIONS false", "COMMENT ON DATABASE {name} IS '{mark}'"],
        ),
        (
            "a closed database with another mark",
            "database {name}",
            vec![owner, "CREATE DATABASE {name} OWNER {name} ALLOW_CONNECTIONS false", "COMMENT ON DATABASE {name} IS 'ours'"],
        ),
        (
            "a marked database without an owner role",
            "database {name}",
            vec!["CREATE DATABASE {name}", "COMMENT ON DATABASE {name} IS '{mark}'"],
        ),
    ] {
        let tenant = Tenant::fresh();
        let name = tenant.names.database();
        let id = name.trim_start_matches("heyuan_");
        let hash = cluster.look(&format!("SELECT encode(sha256('{}'), 'hex')", tenant.proof)).await.concat();
        let filled =
            |text: &str| text.replace("{mark}", "heyuan:{id}:{hash}").replace("{name}", name).replace("{id}", id).replace("{hash}", &hash);
        for statement in statements {
            cluster.meddle(&filled(statement)).await;
        }
        let before = tenant.catalogs(cluster).await;
        for answer in all(&server, &tenant, &tenant.proof).await {
            match answer {
                Err(Error::Foreign { what: found, name: found_name, .. }) => {
                    assert_eq!(format!("{found} {found_name}"), filled(what), "{case}")
                }
                other => panic!("{case}: {other:?}"),
            }
        }
        assert_eq!(tenant.catalogs(cluster).await, before, "{case}");
    }
}

async fn another_nonce_proves_nothing(cluster: &Cluster) {
    let tenant = Tenant::made(cluster).await;
    let before = tenant.catalogs(cluster).await;
    let mut session = tenant.session(cluster, Login::A).await.expect("A may log in");
    for answer in all(&cluster.server(), &tenant, "the nonce of somebody else").await {
        assert!(matches!(answer, Err(Error::Foreign { .. })), "{answer:?}");
    }
    assert_eq!(tenant.catalogs(cluster).await, before);
    run(&mut session, "SELECT 1").await.expect("the session goes on");
}

async fn a_half_dropped_database_is_only_removed(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let name = tenant.names.database();
    cluster.meddle(&format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'")).await;
    let answer = tenant.provision(&server).await;
    assert!(matches!(answer, Err(Error::HalfDropped { .. })), "{answer:?}");
    remove(&server, &tenant.names, &tenant.proof).await.expect("it is removed");
    assert_eq!(tenant.catalogs(cluster).await, Vec::<String>::new());
}

async fn refusals_say_what_is_missing(cluster: &Cluster) {
    let (tenant, stranger) = (Tenant::fresh(), Tenant::made(cluster).await);
    let who = |rights: &str| format!("{}_{rights}", tenant.names.database());
    for (role, rights) in [
        ("none", ""),
        ("roles", "CREATEROLE"),
        ("databases", "CREATEDB"),
        ("both", "CREATEROLE CREATEDB"),
        ("full", "CREATEROLE CREATEDB CONNECTION LIMIT 0"),
    ] {
        let role = who(role);
        cluster
            .meddle(&format!(
                "CREATE ROLE {role} LOGIN {rights} PASSWORD 'a-password-of-an-admin'; GRANT CONNECT ON DATABASE postgres TO {role}"
            ))
            .await;
    }
    cluster.meddle(&format!("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD 'a-password-of-an-admin'", who("outside"))).await;
    let before = tenant.catalogs(cluster).await;
    let server = |role: &str| cluster.server_as(&who(role), "a-password-of-an-admin");
    // It takes every connection, and answers as no PostgreSQL does.
    let web = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let other = Server { port: web.local_addr().expect("a bound socket has an address").port(), ..cluster.server() };
    tokio::spawn(async move {
        let (mut client, _) = web.accept().await.expect("the operator connects");
        client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("the operator reads");
    });
    let away = Server { port: free_port(), ..cluster.server() };
    for (case, server, expected) in [
        ("a wrong password", cluster.server_as(OPERATOR, "not-the-password"), "lacks a log-in"),
        ("an unknown role", cluster.server_as("nobody_of_that_name", "not-the-password"), "lacks a log-in"),
        ("no CONNECT", server("outside"), "lacks a log-in"),
        ("no rights", server("none"), "lacks CREATEROLE"),
        ("no CREATEROLE", server("databases"), "lacks CREATEROLE"),
        ("no CREATEDB", server("roles"), "lacks CREATEDB"),
        ("no connection left", server("full"), "no room left"),
        ("nobody there", away, "can't be reached"),
        ("somebody else there", other, "can't be reached"),
    ] {
        let error = tenant.provision(&server).await.expect_err(case);
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains(&server.to_string()), "{case}: {message}");
        assert_eq!(matches!(error, Error::Refused { .. }), message.contains("docs/operator.sql"), "{case}: {message}");
        assert!(!format!("{message} {error:?}").contains("password-of") && !message.contains("not-the-password"), "{case}: {error:?}");
        assert_eq!(tenant.catalogs(cluster).await, before, "{case}");
    }
    // Another operator's role has all rights, but not over what it has not made; before 16 it has.
    let other = provision(&server("both"), &stranger.names, &stranger.proof, Login::A, &stranger.password, LIMITS).await;
    if cluster.look("SELECT (current_setting('server_version_num')::int >= 160000)::text").await == ["true"] {
        assert!(matches!(&other, Err(Error::Refused { missing, .. }) if missing.contains("ADMIN OPTION")), "{other:?}");
    } else {
        other.expect("CREATEROLE is over all roles");
    }
    budget(&server("none"), 10).await.expect("counting takes no rights");
    sessions(&server("none"), &stranger.names, Login::A).await.expect("counting takes no rights");
}

async fn a_wait_for_the_lock_ends(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let mut superuser = cluster.superuser_in("postgres").await;
    let key = format!(
        "('x' || left(encode(sha256('heyuan:{}'), 'hex'), 16))::bit(64)::bigint",
        tenant.names.database().trim_start_matches("heyuan_")
    );
    run(&mut superuser, &format!("SELECT pg_advisory_lock({key})")).await.expect("the lock is free");
    let waits = retain(&server, &tenant.names, &tenant.proof);
    let ends = async {
        // Whoever waits for this lock is cancelled as lock_timeout would do it, only sooner.
        let cancel = format!(
            "SELECT pg_cancel_backend(pid)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND (classid::bigint << 32 | objid::bigint) = {key}"
        );
        for _ in 0..LOOKS_MAX {
            if !texts(&mut superuser, &cancel).await.expect("it reads").is_empty() {
                return;
            }
        }
        panic!("nobody waits for the lock");
    };
    let (answer, ()) = tokio::join!(waits, ends);
    assert!(matches!(&answer, Err(Error::TimedOut { what, .. }) if what.contains("lock")), "{answer:?}");
}

async fn wrong_input_is_not_sent(cluster: &Cluster) {
    let (tenant, server) = (Tenant::fresh(), cluster.server());
    for (connections, password) in
        [(0, "long-enough-a-password"), (10_001, "long-enough-a-password"), (1, "short"), (1, "with a space in it ")]
    {
        let limits = Limits { connections };
        let answer = provision(&server, &tenant.names, &tenant.proof, Login::A, &SecretString::from(password), limits).await;
        assert!(matches!(answer, Err(Error::Invalid(_))), "{connections} {password}: {answer:?}");
    }
    assert_eq!(tenant.catalogs(cluster).await, Vec::<String>::new());
}

async fn connections_are_encrypted_as_wished(cluster: &Cluster) {
    let tenant = Tenant::made(cluster).await;
    let known = cluster.authority();
    for (number, (ssl_mode, ca_bundle, with_tls, without_tls)) in [
        (SslMode::Disable, None, "in the clear", "in the clear"),
        (SslMode::Prefer, None, "encrypted", "in the clear"),
        (SslMode::Require, None, "encrypted", "not at all"),
        // Nobody knows the authority, then it is told.
        (SslMode::VerifyFull, None, "not at all", "not at all"),
        (SslMode::VerifyFull, known, "encrypted", "not at all"),
    ]
    .into_iter()
    .enumerate()
    {
        let role = format!("{}_{number}", tenant.names.database());
        cluster.meddle(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT CONNECT ON DATABASE postgres TO {role}")).await;
        let server = Server { ssl_mode, ca_bundle, ..cluster.server_as(&role, "p") };
        let answer = sessions(&server, &tenant.names, Login::A).await;
        let log = cluster.log();
        let entry = log.lines().find(|line| line.contains(&format!("connection authorized: user={role} ")));
        let found = match (&answer, entry) {
            (Ok(_), Some(line)) if line.contains("SSL enabled") => "encrypted",
            (Ok(_), Some(_)) => "in the clear",
            (Err(Error::Unreachable { .. }), None) => "not at all",
            other => panic!("{ssl_mode:?}: {other:?}"),
        };
        assert_eq!(found, if cluster.has_tls() { with_tls } else { without_tls }, "{ssl_mode:?}");
    }
}
