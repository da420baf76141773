//! Compilation in another container of the pod: what runs there, and how the host asks it over a socket.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{CompilerCommand, Digest, Error, compile, engine::CodeSettings};

/// How long a compiler that is not there is waited for: it starts beside the host, and starts again when it ran out of memory.
const START_TIME: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The other side has this long to say or take its part.
const TALK_TIME: Duration = Duration::from_secs(10);
/// Beyond the time of a compilation, for the way there and back.
const ANSWER_TIME: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: u64 = 4_096;
/// Largest component that is taken; the host's own bound is lower.
const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// The first line of a request; the component follows.
#[derive(Serialize, Deserialize)]
struct Asked {
    settings: CodeSettings,
    component_bytes: usize,
}

/// The first line of an answer; the code or the words follow.
#[derive(Serialize, Deserialize)]
struct Answered {
    kind: Kind,
    bytes: usize,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Code,
    /// The component is wrong.
    Refused,
    /// It costs more than is allowed.
    Costly,
    /// Nobody knows: the compiler was stopped.
    Stopped,
}

/// Serves compilations on a socket, one after the other, each in a child of `command`'s, until the process ends.
///
/// Whoever may write to the socket may have plugins compiled; whoever makes it decides what native code the host runs, so that its folder
/// belongs to the pod alone. Nothing here knows a secret: the host puts its own mark on what it is answered.
pub fn serve_compiler(socket: &Path, command: &CompilerCommand) -> io::Result<()> {
    // Left by a process that ended; one that lives still has the old name, and is asked no more.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660))?;
    for connection in listener.incoming() {
        let answered = connection.and_then(|connection| answer(connection, command));
        if let Err(error) = answered {
            tracing::warn!(%error, "a compilation was asked for and could not be answered");
        }
    }
    Ok(())
}

fn answer(mut connection: UnixStream, command: &CompilerCommand) -> io::Result<()> {
    connection.set_read_timeout(Some(TALK_TIME))?;
    connection.set_write_timeout(Some(TALK_TIME))?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let asked: Asked = head(&mut reader)?;
    let mut component = Vec::new();
    let bytes = asked.component_bytes.min(COMPONENT_BYTES_MAX);
    reader.take(bytes as u64).read_to_end(&mut component)?;
    let (kind, body) = if asked.settings.revision != CodeSettings::CURRENT.revision {
        (Kind::Stopped, b"the host and its compiler are of different releases".to_vec())
    } else if component.len() != asked.component_bytes {
        (Kind::Stopped, b"the component was cut off".to_vec())
    } else {
        match compile::in_child(command, Digest::of(&component), &component) {
            Ok(code) => (Kind::Code, code),
            Err(Error::Compile { message, .. }) => (Kind::Refused, message.into_bytes()),
            Err(Error::TooCostly { message, .. }) => (Kind::Costly, message.into_bytes()),
            Err(Error::CompilerStopped { message, .. }) => (Kind::Stopped, message.into_bytes()),
            Err(other) => (Kind::Stopped, other.to_string().into_bytes()),
        }
    };
    write_line(&mut connection, &Answered { kind, bytes: body.len() })?;
    connection.write_all(&body)
}

/// Has a component compiled by whoever serves the socket.
pub(crate) fn compile_beside(socket: &Path, command: &CompilerCommand, digest: Digest, component: &[u8]) -> Result<Vec<u8>, Error> {
    let stopped = |message: String| Error::CompilerStopped { digest, message };
    let costly = |message: String| Error::TooCostly { digest, message };
    let (kind, body) = ask(socket, command, component)
        .map_err(|error| stopped(format!("the compiler at {} gave no answer, most likely out of memory: {error}", socket.display())))?;
    let words = || String::from_utf8_lossy(&body).into_owned();
    match kind {
        Kind::Code if body.len() > command.output_bytes => {
            Err(costly(format!("the compiled code is larger than {} bytes", command.output_bytes)))
        }
        Kind::Code => Ok(body),
        Kind::Refused => Err(Error::Compile { digest, message: words() }),
        Kind::Costly => Err(costly(words())),
        Kind::Stopped => Err(stopped(words())),
    }
}

fn ask(socket: &Path, command: &CompilerCommand, component: &[u8]) -> io::Result<(Kind, Vec<u8>)> {
    let mut connection = connect(socket)?;
    connection.set_write_timeout(Some(TALK_TIME))?;
    connection.set_read_timeout(Some(Duration::from_millis(command.timeout_ms) + ANSWER_TIME))?;
    write_line(&mut connection, &Asked { settings: CodeSettings::CURRENT, component_bytes: component.len() })?;
    connection.write_all(component)?;
    let mut reader = BufReader::new(connection);
    let answered: Answered = head(&mut reader)?;
    let mut body = Vec::new();
    reader.take(command.output_bytes as u64 + 1).read_to_end(&mut body)?;
    if body.len() != answered.bytes && body.len() <= command.output_bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its answer was cut off"));
    }
    Ok((answered.kind, body))
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + START_TIME;
    loop {
        match UnixStream::connect(socket) {
            Err(error) if is_starting(&error) && Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            connected => return connected,
        }
    }
}

fn is_starting(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn head<T: for<'a> Deserialize<'a>>(reader: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    reader.take(HEAD_BYTES_MAX).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line).map_err(io::Error::other)
}

fn write_line(connection: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    connection.write_all(&line)
}
