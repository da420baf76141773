//! The harness itself: that what it promises about databases, faults and children is so.

use std::time::Duration;

use futures::FutureExt;
use heyuan_harness::{Fault, Postgres, Proxy, TestDatabase, concurrently, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Connects to the server's port and says hello as a client would; true when something answers.
async fn answers(port: u16) -> bool {
    // An SSLRequest: eight bytes, answered by one byte, `S` or `N`.
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut byte = [0];
    stream.write_all(&request).await.is_ok() && stream.read_exact(&mut byte).await.is_ok() && byte == *b"N"
}

#[tokio::test]
async fn databases_are_apart_from_each_other() {
    let (first, second) = (TestDatabase::postgres().await, TestDatabase::postgres().await);
    assert_ne!(first.database_url(), second.database_url());
    assert_ne!(first.data_dir(), second.data_dir());
    assert_eq!(TestDatabase::sqlite().database_url(), None);
}

#[tokio::test]
async fn a_server_of_ones_own_goes_away_comes_back_and_leaves_nothing() {
    let server = Postgres::start();
    let port = server.port();
    assert!(answers(port).await);
    server.crash();
    assert!(!answers(port).await);
    server.start_again();
    assert!(answers(port).await);
    drop(server);
    assert!(!answers(port).await);
}

#[tokio::test]
async fn a_proxy_passes_stalls_and_cuts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let target = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let proxy = Proxy::to(target.to_string()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the proxy listens");
    let mut echo = [0; 4];

    stream.write_all(b"here").await.expect("the connection is open");
    stream.read_exact(&mut echo).await.expect("the echo passes");
    assert_eq!(&echo, b"here");

    proxy.set(Fault::Stall);
    stream.write_all(b"held").await.expect("the connection is open");
    assert!(stream.read_exact(&mut echo).now_or_never().is_none(), "nothing passes while the proxy stalls");
    proxy.set(Fault::Delay(Duration::from_millis(1)));
    stream.read_exact(&mut echo).await.expect("what was held passes afterwards");
    assert_eq!(&echo, b"held");

    proxy.set(Fault::Cut);
    assert_eq!(stream.read(&mut echo).await.unwrap_or(0), 0, "the connection ends");
}

#[tokio::test]
async fn waiting_ends_with_the_condition() {
    let mut asked = 0;
    let answer = until("the third time", Duration::from_secs(10), || {
        asked += 1;
        std::future::ready((asked == 3).then_some(asked))
    })
    .await;
    assert_eq!(answer, 3);
}

#[tokio::test]
async fn concurrent_calls_answer_in_their_order() {
    let answers = concurrently(100, 8, |number| async move { number * 2 }).await;
    assert_eq!(answers, (0..100).map(|number| number * 2).collect::<Vec<_>>());
}

#[tokio::test]
async fn syncs_of_a_server_are_counted() {
    let server = Postgres::start();
    let before = server.wal_syncs().await;
    server.fresh_database().await;
    until("a new database is synced", Duration::from_secs(10), || async { (server.wal_syncs().await > before).then_some(()) }).await;
}
