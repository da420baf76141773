//! A password is changed under a tenant that goes on working.

use crate::cluster::{Cluster, run, texts};
use crate::{Tenant, code, on_both};
use heyuan_operator::database::{Login, close_login, open_login, sessions};
use secrecy::{ExposeSecret, SecretString};

on_both! { log_ins_take_turns a_log_in_has_so_many_sessions }

async fn log_ins_take_turns(cluster: &Cluster) {
    let (tenant, server) = (Tenant::made(cluster).await, cluster.server());
    let mut password = SecretString::from("password-of-the-first-turn");
    let mut old = tenant.session(cluster, Login::A).await.expect("A may log in");
    run(&mut old, "CREATE TABLE turns (login text)").await.expect("the database is the tenant's");
    let mut old_password = tenant.password.clone();
    for turn in [Login::B, Login::A, Login::B] {
        for _ in 0..2 {
            open_login(&server, &tenant.names, &tenant.proof, turn, &password).await.expect("the next one is opened");
        }
        run(&mut old, "SELECT FROM turns").await.expect("the old session goes on");
        tenant.session_with(cluster, turn.other(), &old_password).await.expect("the old one may still log in");
        let mut new = tenant.session_with(cluster, turn, &password).await.expect("the new one may log in");
        run(&mut new, "ALTER TABLE turns ALTER login SET NOT NULL; INSERT INTO turns VALUES (session_user)")
            .await
            .expect("what one made is the other's");
        assert!(sessions(&server, &tenant.names, turn.other()).await.expect("the server counts") >= 1);
        assert!(close_login(&server, &tenant.names, &tenant.proof, turn.other()).await.expect("the old one is closed") >= 1);
        assert_eq!(sessions(&server, &tenant.names, turn.other()).await.expect("the server counts"), 0);
        assert_eq!(close_login(&server, &tenant.names, &tenant.proof, turn.other()).await.expect("it is closed already"), 0);
        assert!(run(&mut old, "SELECT FROM turns").await.is_err(), "the old session is ended");
        assert_ne!(code(tenant.session_with(cluster, turn.other(), &old_password).await), "done");
        run(&mut new, "SELECT FROM turns").await.expect("the new session goes on");
        old = new;
        old_password = std::mem::replace(&mut password, SecretString::from(format!("password-after-turn-of-{turn:?}")));
    }
    let name = tenant.names.database();
    let turns = texts(&mut old, "SELECT login FROM turns").await.expect("it reads");
    assert_eq!(turns, [format!("{name}_b"), format!("{name}_a"), format!("{name}_b")]);
    // No right of the tenant stays with the operator.
    assert_eq!(code(cluster.connect(&server.username, server.password.expose_secret(), name).await), "42501");
}

async fn a_log_in_has_so_many_sessions(cluster: &Cluster) {
    let tenant = Tenant::made(cluster).await;
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(tenant.session(cluster, Login::A).await.expect("there is room"));
    }
    assert_eq!(code(tenant.session(cluster, Login::A).await), "53300");
    assert_eq!(close_login(&cluster.server(), &tenant.names, &tenant.proof, Login::A).await.expect("A is closed"), 7);
}
