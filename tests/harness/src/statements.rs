//! A proxy in front of PostgreSQL that knows every statement by its beginning, and can break the one that a test names.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::kubernetes::{Call, Plan, Trouble, kill};

/// Largest message that passes: nothing that an operator says comes near it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Words of a statement by which it is known.
const WORDS: usize = 4;
/// What the databases of tenants are called, before their ids.
const PREFIX: &str = "heyuan_";
/// Characters of a data id.
const ID_CHARS: usize = 16;

/// A listening proxy in front of a server that is spoken to without TLS; dropped, it cuts everything.
///
/// Each connection is a call (`connect`), and so is each message after which the server answers that it is ready: a simple query, or the
/// end of an extended one. `Trouble::Answer` breaks the connection, since a server has no such answer.
#[derive(Debug)]
pub struct StatementProxy {
    port: u16,
    plan: Arc<Plan>,
    _connections: JoinSet<()>,
}

impl StatementProxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to a port of it.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let plan = Arc::new(Plan::default());
        let mut accepting = JoinSet::new();
        let of_connections = Arc::clone(&plan);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, server, Arc::clone(&of_connections)));
                // Finished connections are taken out, so that the set stays as large as what is open.
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, plan, _connections: accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks `judge` of every call what goes wrong with it, until [`StatementProxy::clear`].
    pub fn judge(&self, judge: impl FnMut(&Call) -> Option<Trouble> + Send + 'static) {
        self.plan.judge(judge);
    }

    /// Breaks the `nth` call, from 1, among those for which `when` holds from now on; once.
    pub fn at(&self, nth: u64, when: impl Fn(&Call) -> bool + Send + 'static, trouble: Trouble) {
        self.plan.add(Some(nth), when, trouble);
    }

    /// Forgets all troubles that still wait.
    pub fn clear(&self) {
        self.plan.clear();
    }

    /// Every call so far, in the order in which it came; also those that were broken.
    pub fn calls(&self) -> Vec<Call> {
        self.plan.calls()
    }
}

/// Troubles of the calls that the server has not answered yet, in their order.
type Unanswered = Mutex<VecDeque<Option<Trouble>>>;

/// Serves one client by one connection to the server; either end's end is the other's.
async fn pass(client: TcpStream, server: u16, plan: Arc<Plan>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let unanswered = Unanswered::default();
    tokio::select! {
        // How a connection ends is the client's to complain about.
        _ = ask(from_client, to_server, &plan, &unanswered) => {}
        _ = answer(from_server, to_client, &unanswered) => {}
    }
}

async fn ask(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, plan: &Plan, unanswered: &Unanswered) -> io::Result<()> {
    let (mut statement, mut first) = ("connect".to_owned(), true);
    loop {
        // The message that begins a session has no type.
        let message = read(&mut client, if first { 0 } else { 1 }).await?;
        match message[0] {
            b'P' if !first => statement = beginning(message[5..].split(|byte| *byte == 0).nth(1).unwrap_or_default()),
            b'Q' if !first => statement = beginning(message[5..].split(|byte| *byte == 0).next().unwrap_or_default()),
            _ => {}
        }
        if first || matches!(message[0], b'Q' | b'S') {
            let call = Call { verb: "sql", resource: statement.clone(), namespace: None, name: None };
            let trouble = plan.meet(&call);
            match trouble {
                Some(Trouble::KillBefore(process)) => return Err(broken(kill(process).to_string())),
                Some(Trouble::DropBefore | Trouble::Answer(_)) => return Err(broken("the connection breaks here")),
                Some(Trouble::Delay(delay)) => sleep_until(Instant::now() + delay).await,
                _ => {}
            }
            unanswered.lock().expect("nothing panics while it is held").push_back(trouble);
        }
        first = false;
        server.write_all(&message).await?;
    }
}

async fn answer(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, unanswered: &Unanswered) -> io::Result<()> {
    loop {
        let message = read(&mut server, 1).await?;
        if message[0] == b'Z' {
            let trouble = unanswered.lock().expect("nothing panics while it is held").pop_front().flatten();
            match trouble {
                Some(Trouble::KillAfter(process)) => return Err(broken(kill(process).to_string())),
                Some(Trouble::DropAfter) => return Err(broken("the connection breaks here")),
                Some(Trouble::DelayAfter(delay)) => sleep_until(Instant::now() + delay).await,
                _ => {}
            }
        }
        client.write_all(&message).await?;
    }
}

fn broken(words: impl Into<String>) -> io::Error {
    io::Error::other(words.into())
}

/// Reads a message with so many bytes before its length.
async fn read(from: &mut OwnedReadHalf, before: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; before + 4];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[before..].try_into().expect("four bytes are left")) as usize;
    if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(broken("no message is so long"));
    }
    message.resize(before + length, 0);
    from.read_exact(&mut message[before + 4..]).await?;
    Ok(message)
}

/// The first words of a statement, the same for every tenant.
fn beginning(statement: &[u8]) -> String {
    let statement = String::from_utf8_lossy(statement);
    let words: Vec<String> = statement.split_whitespace().take(WORDS).map(nameless).collect();
    words.join(" ")
}

/// A word without the id of anybody's data.
fn nameless(word: &str) -> String {
    match word.split_once(PREFIX) {
        Some((before, rest)) if rest.is_char_boundary(ID_CHARS) && rest.len() >= ID_CHARS => {
            format!("{before}{PREFIX}ID{}", &rest[ID_CHARS..])
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::beginning;

    #[test]
    fn a_statement_is_known_by_its_beginning() {
        let statement = "ALTER ROLE \"heyuan_0123456789abcdef_a\"\n  LOGIN PASSWORD 'x'";
        assert_eq!(beginning(statement.as_bytes()), "ALTER ROLE \"heyuan_ID_a\" LOGIN");
        assert_eq!(beginning(b"SELECT heyuan_x"), "SELECT heyuan_x");
    }
}
