//! A line to a server that breaks after the n-th message that makes the server work, as if the operator's process had died there.

use heyuan_operator::database::Server;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A line of one connection.
pub(crate) struct Line {
    /// The server at the end of the line.
    pub(crate) server: Server,
    is_cut: Arc<AtomicBool>,
}

impl Line {
    /// A line that lets through `messages` simple queries and `Sync`s, and breaks when the last of them is on its way.
    pub(crate) async fn cut_after(server: &Server, messages: u32) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let (target, flag) = ((server.host.clone(), server.port), is_cut.clone());
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("the operator connects");
            let server = TcpStream::connect(target).await.expect("the server listens");
            let ((from_client, mut to_client), (mut from_server, to_server)) = (client.into_split(), server.into_split());
            let answers = tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            if pass(from_client, to_server, messages).await {
                flag.store(true, Ordering::SeqCst);
                answers.abort();
            }
        });
        Line { server: Server { port, ..server.clone() }, is_cut }
    }

    /// Whether it broke.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }
}

/// Passes on what the client says; whether it was cut off. The first message has no type (it starts a session).
async fn pass(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, messages: u32) -> bool {
    let (mut left, mut is_first) = (messages, true);
    loop {
        let mut head = if is_first { vec![0; 4] } else { vec![0; 5] };
        if client.read_exact(&mut head).await.is_err() {
            return false;
        }
        let length = u32::from_be_bytes(head[head.len() - 4..].try_into().expect("four bytes are left"));
        let mut body = vec![0; length as usize - 4];
        if client.read_exact(&mut body).await.is_err() {
            return false;
        }
        let works = !is_first && matches!(head[0], b'Q' | b'S');
        is_first = false;
        let whole = [head, body].concat();
        if server.write_all(&whole).await.is_err() {
            return false;
        }
        if works {
            left -= 1;
            if left == 0 {
                return true;
            }
        }
    }
}
