//! Compilation in a child process: what the child does, and how the host runs it.

use std::{
    io::{self, BufRead, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};

use crate::{
    CompilerCommand, Digest, Error,
    beside::compile_beside,
    engine::{CodeSettings, compiling_engine},
};

/// The first line that the child reads; the component follows.
#[derive(Serialize, Deserialize)]
struct Job {
    settings: CodeSettings,
    memory_bytes: u64,
    cpu_seconds: u64,
    component_bytes: usize,
}

const JOB_BYTES_MAX: u64 = 4_096;
const MESSAGE_BYTES_MAX: u64 = 16 << 10;
/// The component is wrong, and the message says how.
const REFUSED: u8 = 2;

/// The whole of the child: limits itself, reads a component from standard input, writes compiled code to standard output.
///
/// Whoever embeds the host gives its binary a hidden command that ends here, and names it in [`CompilerCommand`]. Exit code 2
/// means that the component is wrong; standard error says why.
pub fn compile_worker() -> ExitCode {
    match work() {
        Ok(code) => match io::stdout().lock().write_all(&code) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(Failure::Refused(message)) => {
            tell(&message);
            ExitCode::from(REFUSED)
        }
        Err(Failure::Broken(message)) => {
            tell(&message);
            ExitCode::FAILURE
        }
    }
}

/// Standard error is the host's pipe here, not a log; when the pipe is gone, so is the reader.
fn tell(message: &str) {
    let _gone = writeln!(io::stderr(), "{message}");
}

enum Failure {
    Refused(String),
    Broken(String),
}

fn work() -> Result<Vec<u8>, Failure> {
    let broken = |doing: &str| {
        let doing = doing.to_owned();
        move |error: &dyn std::fmt::Display| Failure::Broken(format!("{doing}: {error}"))
    };
    let mut input = io::stdin().lock();
    let job = read_job(&mut input).map_err(|error| broken("read the job")(&error))?;
    if job.settings.revision != CodeSettings::CURRENT.revision {
        return Err(Failure::Broken("the host and its compiler are of different releases".to_owned()));
    }
    limit(&job).map_err(|error| broken("limit the compiler")(&error))?;
    let mut component = Vec::new();
    input.take(job.component_bytes as u64).read_to_end(&mut component).map_err(|error| broken("read the component")(&error))?;
    if component.len() != job.component_bytes {
        return Err(Failure::Broken("the component was cut off".to_owned()));
    }
    let engine = compiling_engine().map_err(|error| Failure::Broken(format!("configure the compiler: {error:#}")))?;
    engine.precompile_component(&component).map_err(|error| Failure::Refused(format!("{error:#}")))
}

fn read_job(input: &mut impl BufRead) -> io::Result<Job> {
    let mut line = Vec::new();
    input.take(JOB_BYTES_MAX).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line).map_err(io::Error::other)
}

/// On cgroup v2 a process that runs out of memory takes its whole container with it, so the child runs into its own wall first.
fn limit(job: &Job) -> io::Result<()> {
    let to = |most| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::As, to(job.memory_bytes))?;
    // The lower one ends the process by a signal of its own, which tells it from a kill by somebody else.
    setrlimit(Resource::Cpu, Rlimit { current: Some(job.cpu_seconds), maximum: Some(job.cpu_seconds + 1) })?;
    setrlimit(Resource::Core, to(0))?;
    setrlimit(Resource::Fsize, to(0))?;
    Ok(())
}

/// What the child left.
struct Outcome {
    code: Vec<u8>,
    message: String,
    status: std::process::ExitStatus,
}

/// Compiles where the command says. Blocks until that ends, at most for the command's time-out and the way there.
pub(crate) fn compile(command: &CompilerCommand, digest: Digest, component: &[u8]) -> Result<Vec<u8>, Error> {
    match &command.socket {
        Some(socket) => compile_beside(socket, command, digest, component),
        None => in_child(command, digest, component),
    }
}

/// Compiles in a child. Blocks until it ends, at most for the command's time-out.
pub(crate) fn in_child(command: &CompilerCommand, digest: Digest, component: &[u8]) -> Result<Vec<u8>, Error> {
    let stopped = |message: String| Error::CompilerStopped { digest, message };
    let costly = |message: String| Error::TooCostly { digest, message };
    let outcome = run(command, component).map_err(stopped)?;
    if outcome.code.len() > command.output_bytes {
        return Err(costly(format!("the compiled code is larger than {} bytes", command.output_bytes)));
    }
    match outcome.status.code() {
        Some(0) => Ok(outcome.code),
        Some(code) if code == i32::from(REFUSED) => Err(Error::Compile { digest, message: outcome.message }),
        Some(code) => Err(stopped(format!("it ended with {code}: {}", outcome.message))),
        None if outcome.status.signal() == Some(Signal::XCPU.as_raw()) => {
            Err(costly(format!("it takes more than {} s of processor time", command.cpu_seconds)))
        }
        None if outcome.status.signal() == Some(Signal::ABORT.as_raw()) => {
            Err(costly(format!("it takes more than {} bytes of memory", command.memory_bytes)))
        }
        None => Err(stopped(format!("it was killed ({}), most likely out of memory or time: {}", outcome.status, outcome.message))),
    }
}

fn run(command: &CompilerCommand, component: &[u8]) -> Result<Outcome, String> {
    let deadline = Instant::now() + Duration::from_millis(command.timeout_ms);
    let job = Job {
        settings: CodeSettings::CURRENT,
        memory_bytes: command.memory_bytes,
        cpu_seconds: command.cpu_seconds,
        component_bytes: component.len(),
    };
    let mut child = Command::new(&command.program)
        .args(&command.args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("start {}: {error}", command.program.display()))?;
    let outcome = talk(&mut child, &job, component, command, deadline);
    if outcome.is_err() {
        // Already gone is as good.
        let _gone = child.kill();
        let _reaped = child.wait();
    }
    outcome
}

fn talk(child: &mut Child, job: &Job, component: &[u8], command: &CompilerCommand, deadline: Instant) -> Result<Outcome, String> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err("the child has no pipes".to_owned());
    };
    let mut input = serde_json::to_vec(job).map_err(|error| error.to_string())?;
    input.push(b'\n');
    input.extend_from_slice(component);
    // A child that never reads must not hold us: each pipe has a thread, which ends when the child does.
    thread::spawn(move || {
        // A child that ends early breaks the pipe; its exit code says why.
        let _broken = stdin.write_all(&input);
    });
    let code = collect(stdout, command.output_bytes as u64 + 1);
    let message = collect(stderr, MESSAGE_BYTES_MAX);
    let late = || format!("it did not end within {} ms", command.timeout_ms);
    let code = code.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| late())?;
    let message = message.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| late())?;
    // Both pipes are closed, so the child is about to end.
    loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("wait for it: {error}"))? {
            return Ok(Outcome { code, message: String::from_utf8_lossy(&message).trim_end().to_owned(), status });
        }
        if Instant::now() >= deadline {
            return Err(late());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads a pipe to its end or to `bytes_max`; what follows is left to break the writer's pipe.
fn collect(pipe: impl Read + Send + 'static, bytes_max: u64) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe ends the reading like its end does; the exit code tells them apart.
        let _broken = pipe.take(bytes_max).read_to_end(&mut bytes);
        // Nobody listens any more after the time-out.
        let _gone = sender.send(bytes);
    });
    receiver
}
