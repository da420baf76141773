//! What one tenant can do with its password to another: nothing.

use crate::cluster::{Cluster, run, texts};
use crate::{Tenant, code, on_both};
use heyuan_operator::database::Login;
use secrecy::ExposeSecret;

on_both! { no_other_database_lets_a_tenant_in no_statement_reaches_another_tenant }

/// Insufficient privilege.
const DENIED: &str = "42501";

async fn no_other_database_lets_a_tenant_in(cluster: &Cluster) {
    let (own, other) = (Tenant::made(cluster).await, Tenant::made(cluster).await);
    for (database, expected) in [
        (own.names.database(), "done"),
        (other.names.database(), DENIED),
        ("postgres", DENIED),
        ("template1", DENIED),
        // It lets nobody in.
        ("template0", "55000"),
    ] {
        let answer = cluster.connect(own.names.login(Login::A), own.password.expose_secret(), database).await;
        assert_eq!(code(answer), expected, "{database}");
    }
    for login in [other.names.login(Login::A), own.names.login(Login::B), own.names.owner()] {
        assert_eq!(code(cluster.connect(login, own.password.expose_secret(), own.names.database()).await), "28P01", "{login}");
    }
}

async fn no_statement_reaches_another_tenant(cluster: &Cluster) {
    let (own, other) = (Tenant::made(cluster).await, Tenant::made(cluster).await);
    let mut neighbour = other.session(cluster, Login::A).await.expect("A may log in");
    run(&mut neighbour, "CREATE TABLE secrets AS SELECT 'of the neighbour' AS word").await.expect("the database is the tenant's");
    let object = texts(&mut neighbour, "SELECT lo_from_bytea(0, 'of the neighbour')::text").await.expect("it writes").concat();
    let pid = texts(&mut neighbour, "SELECT pg_backend_pid()::text").await.expect("it reads").concat();
    let before = other.catalogs(cluster).await;
    let mut session = own.session(cluster, Login::A).await.expect("A may log in");
    let (name, id) = (other.names.database(), other.names.login(Login::A));
    for (statement, expected) in [
        ("SELECT FROM secrets".to_owned(), "42P01"),
        (format!("SELECT FROM {name}.public.secrets"), "0A000"),
        (format!("SELECT lo_get({object})"), "42704"),
        (format!("SET ROLE {name}"), DENIED),
        (format!("SET ROLE {id}"), DENIED),
        (format!("SET SESSION AUTHORIZATION {id}"), DENIED),
        ("SET ROLE heyuan_operator".to_owned(), DENIED),
        (format!("ALTER ROLE {id} PASSWORD 'mine'"), DENIED),
        (format!("GRANT {name} TO CURRENT_USER"), DENIED),
        (format!("ALTER DATABASE {name} OWNER TO CURRENT_USER"), DENIED),
        (format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC"), DENIED),
        (format!("DROP DATABASE {name}"), DENIED),
        (format!("COMMENT ON ROLE {name} IS 'mine'"), DENIED),
        (format!("SELECT pg_terminate_backend({pid})"), DENIED),
        ("CREATE ROLE mine".to_owned(), DENIED),
        ("CREATE DATABASE mine".to_owned(), DENIED),
        (format!("ALTER DATABASE {} RENAME TO mine", own.names.database()), DENIED),
        ("SELECT pg_read_file('PG_VERSION')".to_owned(), DENIED),
        ("SELECT pg_ls_dir('base')".to_owned(), DENIED),
        ("COPY (SELECT 1) TO PROGRAM 'true'".to_owned(), DENIED),
        ("SELECT lo_import('PG_VERSION')".to_owned(), DENIED),
        ("SELECT FROM pg_authid".to_owned(), DENIED),
        ("CREATE EXTENSION adminpack".to_owned(), "denied or unknown"),
    ] {
        let answer = code(run(&mut session, &statement).await);
        match expected {
            "denied or unknown" => assert!([DENIED, "0A000", "58P01"].contains(&answer.as_str()), "{statement}: {answer}"),
            _ => assert_eq!(answer, expected, "{statement}"),
        }
    }
    let seen = "SELECT concat(query, application_name, client_addr) FROM pg_stat_activity WHERE pid = ";
    assert_eq!(texts(&mut session, &format!("{seen}{pid}")).await.expect("it reads"), ["<insufficient privilege>"]);
    // Out of the owner's role a tenant is still only itself.
    run(&mut session, "SET ROLE NONE").await.expect("a tenant may be its log-in");
    assert_eq!(code(run(&mut session, &format!("SET ROLE {name}")).await), DENIED);
    assert_eq!(other.catalogs(cluster).await, before);
    run(&mut neighbour, "SELECT FROM secrets").await.expect("the neighbour goes on");
}
