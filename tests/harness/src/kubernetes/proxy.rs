//! A proxy in front of an API server that knows every call by its name, and can break the one that a test names.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self as upstream, SendRequest};
use hyper::server::conn::http1 as downstream;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::kubernetes::trouble::Plan;
use crate::kubernetes::watched::{Watches, watched};
use crate::kubernetes::{Call, ControlPlane, Trouble};

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;
type Answer = UnsyncBoxBody<Bytes, AnyError>;
type Answered = Response<Answer>;
type Upstream = Mutex<SendRequest<Full<Bytes>>>;

/// A listening proxy in front of one control plane's API server; dropped, it cuts everything.
///
/// It shows the API server's own certificate, so that a client needs no other authority. Requests pass whole (an API server takes at
/// most 3 MiB), answers too, watches event by event. Upgraded connections (exec, port-forward) don't pass.
#[derive(Debug)]
pub struct ApiProxy {
    port: u16,
    shared: Arc<Shared>,
    watches: watch::Sender<Watches>,
    _connections: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    watches: watch::Receiver<Watches>,
    server_port: u16,
    /// How it knows the API server.
    tls: Arc<ClientConfig>,
}

impl ApiProxy {
    /// Listens on a free port of 127.0.0.1.
    pub async fn to(control_plane: &ControlPlane) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let acceptor = acceptor(&control_plane.certificates());
        let tls = trusting(&control_plane.certificate_authority());
        let (watches, receiver) = watch::channel(Watches::default());
        let shared = Arc::new(Shared { plan: Plan::default(), watches: receiver, server_port: control_plane.port(), tls });
        let mut accepting = JoinSet::new();
        let of_connections = Arc::clone(&shared);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, acceptor.clone(), Arc::clone(&of_connections)));
                // Finished connections are taken out, so that the set stays as large as what is open.
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, shared, watches, _connections: accepting }
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Breaks the `nth` call, from 1, among those for which `when` holds from now on; once.
    pub fn at(&self, nth: u64, when: impl Fn(&Call) -> bool + Send + 'static, trouble: Trouble) {
        self.shared.plan.add(Some(nth), when, trouble);
    }

    /// Breaks every call for which `when` holds, until [`ApiProxy::clear`].
    pub fn always(&self, when: impl Fn(&Call) -> bool + Send + 'static, trouble: Trouble) {
        self.shared.plan.add(None, when, trouble);
    }

    /// Asks `judge` of every call what goes wrong with it, until [`ApiProxy::clear`].
    pub fn judge(&self, judge: impl FnMut(&Call) -> Option<Trouble> + Send + 'static) {
        self.shared.plan.judge(judge);
    }

    /// Forgets all troubles that still wait.
    pub fn clear(&self) {
        self.shared.plan.clear();
    }

    /// How many troubles of [`ApiProxy::at`] have not met their call yet.
    pub fn waiting(&self) -> usize {
        self.shared.plan.waiting()
    }

    /// Every call so far, in the order in which it came; also those that were broken.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.plan.calls()
    }

    /// Ends all open watches with "410 Expired", so that clients list anew.
    pub fn expire_watches(&self) {
        self.watches.send_modify(|watches| watches.expired += 1);
    }

    /// Breaks the connections of all open watches.
    pub fn cut_watches(&self) {
        self.watches.send_modify(|watches| watches.cut += 1);
    }

    /// Lets all watches that are open now say nothing any more, for ever: the other end has gone and nobody says so.
    pub fn silence_watches(&self) {
        self.watches.send_modify(|watches| watches.silenced += 1);
    }

    /// Lets the events of watches wait (`true`), or pass again with all that waited: what clients believe grows old meanwhile.
    pub fn hold_watches(&self, held: bool) {
        self.watches.send_modify(|watches| watches.held = held);
    }
}

/// Serves one client by one connection to the API server; either end's end is the other's.
async fn pass(client: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(client) = acceptor.accept(client).await else { return };
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.server_port)).await else { return };
    let name = ServerName::try_from("localhost").expect("localhost is a name");
    let Ok(server) = TlsConnector::from(Arc::clone(&shared.tls)).connect(name, server).await else { return };
    let Ok((sender, server)) = upstream::handshake(TokioIo::new(server)).await else { return };
    let sender = Mutex::new(sender);
    let serve = downstream::Builder::new().serve_connection(TokioIo::new(client), service_fn(|request| answer(request, &sender, &shared)));
    tokio::select! {
        // How a connection ends is the client's to complain about.
        _ = serve => {}
        _ = server => {}
    }
}

/// An error closes the connection without an answer.
async fn answer(request: Request<Incoming>, server: &Upstream, shared: &Shared) -> Result<Answered, AnyError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let call = Call::of(head.method.as_str(), head.uri.path(), head.uri.query().unwrap_or_default(), &body);
    let trouble = shared.plan.meet(&call);
    match trouble {
        Some(Trouble::KillBefore(process)) => return Err(kill(process)),
        Some(Trouble::DropBefore) => return Err("the connection breaks here".into()),
        Some(Trouble::Answer(status)) => return Ok(refusal(status)),
        Some(Trouble::Delay(delay)) => sleep_until(Instant::now() + delay).await,
        Some(Trouble::KillAfter(_) | Trouble::DropAfter | Trouble::DelayAfter(_)) | None => {}
    }
    let answer = server.lock().await.send_request(Request::from_parts(head, Full::new(body))).await?;
    let (head, body) = answer.into_parts();
    if call.verb == "watch" && head.status.is_success() {
        spoil(trouble).await?;
        let events = watched(body, shared.watches.clone());
        return Ok(Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(events))));
    }
    let body = body.collect().await?.to_bytes();
    spoil(trouble).await?;
    Ok(Response::from_parts(head, whole(body)))
}

/// The troubles that come once the API server has answered.
async fn spoil(trouble: Option<Trouble>) -> Result<(), AnyError> {
    match trouble {
        Some(Trouble::KillAfter(process)) => Err(kill(process)),
        Some(Trouble::DropAfter) => Err("the connection breaks here".into()),
        Some(Trouble::DelayAfter(delay)) => {
            sleep_until(Instant::now() + delay).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

pub(crate) fn kill(process: u32) -> AnyError {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("the number of a process");
    match kill_process(process, Signal::KILL) {
        Ok(()) => "the caller was killed".into(),
        Err(error) => error.into(),
    }
}

/// An answer as an API server would give it.
fn refusal(status: u16) -> Answered {
    let reason = match status {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a test wants this call to fail", "reason": reason, "code": status,
    });
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    if status == 429 {
        response = response.header(header::RETRY_AFTER, "1");
    }
    response.body(whole(Bytes::from(body.to_string()))).expect("status and headers are valid")
}

fn whole(body: Bytes) -> Answer {
    BodyExt::boxed_unsync(Full::new(body).map_err(|never: Infallible| match never {}))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn acceptor(certificates: &Path) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(certificates.join("server.crt")).expect("openssl writes PEM")];
    let key = PrivateKeyDer::from_pem_file(certificates.join("server.key")).expect("openssl writes PEM");
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("the provider has them");
    // Without ALPN, clients speak HTTP/1.1: one call after the other on a connection.
    let config = config.with_no_client_auth().with_single_cert(chain, key).expect("key and certificate belong together");
    TlsAcceptor::from(Arc::new(config))
}

fn trusting(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(authority).expect("openssl writes PEM");
    roots.add(authority).expect("it is a certificate");
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("the provider has them");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
