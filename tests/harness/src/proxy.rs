//! A TCP proxy that can hold back or break what passes through it, for a database or a server that goes away.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What happens to the bytes between a client and its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything passes.
    None,
    /// Each piece waits this long, in both directions.
    Delay(Duration),
    /// Nothing passes, connections stay open: a network that lost its way.
    Stall,
    /// Open connections are cut and new ones are closed at once: a server that died.
    Cut,
}

/// A listening proxy in front of one address; dropped, it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    fault: Arc<Sender<Fault>>,
    _connections: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to `target`.
    pub async fn to(target: impl Into<String>) -> Self {
        let target = target.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (sender, fault) = channel(Fault::None);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if *fault.borrow() != Fault::Cut {
                    connections.spawn(pass(client, target.clone(), fault.clone()));
                }
                // Finished connections are taken out, so that the set stays as large as what is open.
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, fault: Arc::new(sender), _connections: accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, for open and for new connections.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn pass(client: TcpStream, target: String, fault: Receiver<Fault>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = fault.clone();
    tokio::select! {
        () = forward(from_client, to_server, fault.clone()) => {}
        () = forward(from_server, to_client, fault) => {}
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => {}
    }
}

/// Ends at the end of the stream, on an error of either side, or with the proxy.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut fault: Receiver<Fault>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let now = *fault.borrow();
        if let Fault::Delay(delay) = now {
            sleep_until(Instant::now() + delay).await;
        }
        if fault.wait_for(|fault| *fault != Fault::Stall).await.is_err() || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
