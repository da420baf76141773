//! The operator dies at every statement of every operation; the next run brings it to the same end.

use crate::cluster::Cluster;
use crate::cut::Line;
use crate::{LIMITS, Tenant, on_both};
use heyuan_operator::database::{Error, Login, Server, close_login, open_login, provision, remove, retain};
use secrecy::SecretString;

on_both! { making_breaks_off opening_breaks_off closing_breaks_off retaining_breaks_off removing_breaks_off making_breaks_off_and_is_undone }

/// More statements than any operation has.
const MESSAGES_MAX: u32 = 60;
/// Fewest that an operation has: its lock, its reading, and something to do.
const MESSAGES_MIN: u32 = 5;

#[derive(Clone, Copy)]
enum Operation {
    Make,
    Open,
    Close,
    Retain,
    Remove,
}

impl Operation {
    async fn run(self, server: &Server, tenant: &Tenant) -> Result<(), Error> {
        let (names, proof) = (&tenant.names, tenant.proof.as_str());
        match self {
            Operation::Make => provision(server, names, proof, Login::A, &tenant.password, LIMITS).await.map(|_| ()),
            Operation::Open => open_login(server, names, proof, Login::B, &SecretString::from("the-password-of-b")).await,
            Operation::Close => close_login(server, names, proof, Login::A).await.map(|_| ()),
            Operation::Retain => retain(server, names, proof).await,
            Operation::Remove => remove(server, names, proof).await,
        }
    }
}

/// A tenant as an operation finds it: not made, or made with log-in A open. The one before serves again where its database stays.
async fn start(cluster: &Cluster, operation: Operation, before: Tenant) -> Tenant {
    let tenant = match operation {
        Operation::Make => return Tenant::fresh(),
        Operation::Remove => Tenant::fresh(),
        Operation::Open | Operation::Close | Operation::Retain => before,
    };
    tenant.provision(&cluster.server()).await.expect("the database is made");
    tenant
}

/// Breaks `broken` off after each of its statements, runs `then`, and compares with what `then` leaves where nothing broke off.
async fn check(cluster: &Cluster, broken: Operation, then: Operation) {
    let server = cluster.server();
    let mut tenant = start(cluster, broken, Tenant::fresh()).await;
    broken.run(&server, &tenant).await.expect("nothing breaks off");
    then.run(&server, &tenant).await.expect("nothing breaks off");
    let end = tenant.catalogs(cluster).await;
    for messages in 1..MESSAGES_MAX {
        tenant = start(cluster, broken, tenant).await;
        // Somebody is in while it breaks off, where somebody may be.
        let session = tenant.session(cluster, Login::A).await.ok();
        let line = Line::cut_after(&server, messages).await;
        let answer = broken.run(&line.server, &tenant).await;
        if !line.is_cut() {
            answer.expect("nothing broke off");
            assert!(messages > MESSAGES_MIN, "it took {messages} messages only");
            return;
        }
        // The answer to the last statement may have come through.
        assert!(matches!(answer, Ok(()) | Err(Error::Unreachable { .. })), "after {messages}: {answer:?}");
        then.run(&server, &tenant).await.unwrap_or_else(|error| panic!("after {messages}: {error:?}"));
        assert_eq!(tenant.catalogs(cluster).await, end, "after {messages}");
        drop(session);
    }
    panic!("it takes more than {MESSAGES_MAX} messages");
}

async fn making_breaks_off(cluster: &Cluster) {
    check(cluster, Operation::Make, Operation::Make).await;
}

async fn opening_breaks_off(cluster: &Cluster) {
    check(cluster, Operation::Open, Operation::Open).await;
}

async fn closing_breaks_off(cluster: &Cluster) {
    check(cluster, Operation::Close, Operation::Close).await;
}

async fn retaining_breaks_off(cluster: &Cluster) {
    check(cluster, Operation::Retain, Operation::Retain).await;
}

async fn removing_breaks_off(cluster: &Cluster) {
    check(cluster, Operation::Remove, Operation::Remove).await;
}

async fn making_breaks_off_and_is_undone(cluster: &Cluster) {
    check(cluster, Operation::Make, Operation::Remove).await;
}
