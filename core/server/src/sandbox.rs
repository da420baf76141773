//! The sandbox of plugins as the register and the wings see it, over the plugin host.

use crate::place::Place;
use crate::settings::Settings;
use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_kernel::error::{Code, Kind};
use heyuan_kernel::guard::outside_unit;
use heyuan_kernel::plugin::{Installed, PluginKind, Runtime};
use heyuan_kernel::telemetry::{self, Telemetry};
use heyuan_kernel::{Kernel, Problem};
use heyuan_plugin_host::{CallError, CompilerCommand, Description, Digest, Error, Host, HostConfig, Stop};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// A module that the sandbox does not take.
const INVALID_PLUGIN: Code = Code::new(Kind::Invalid, "invalid_plugin", "The plugin is not accepted", "插件未通过检查");
/// A call that was stopped, or a sandbox that is busy.
const PLUGIN_UNAVAILABLE: Code = Code::new(Kind::Unavailable, "plugin_unavailable", "The plugin gave no answer", "插件未给出结果");

/// The hidden command by which the binary compiles a plugin in a process of its own.
pub(crate) const COMPILE_COMMAND: &str = "compile-plugin";

/// A compilation in a child of this process.
fn compiler() -> anyhow::Result<CompilerCommand> {
    let program = std::env::current_exe().context("could not find this program's own file")?;
    Ok(CompilerCommand::new(program, &[COMPILE_COMMAND]))
}

/// `heyuan compile-plugins`: compiles for the tenant's process beside this one until it is told to stop.
///
/// # Errors
/// A socket that can't be made, in words.
pub(crate) async fn serve_compilations(socket: PathBuf) -> anyhow::Result<()> {
    let running = telemetry::start(&Telemetry::default())?;
    let (command, mut terminate) = (compiler()?, signal(SignalKind::terminate())?);
    let words = format!("could not compile at {}", socket.display());
    let served = tokio::task::spawn_blocking(move || heyuan_plugin_host::serve_compiler(&socket, &command));
    let ended = tokio::select! {
        served = served => served?.context(words),
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    running.stop();
    ended
}

/// The tenant's plugin host.
#[derive(Clone)]
pub(crate) struct Sandbox {
    host: Host,
}

impl Sandbox {
    /// Opens the host on the tenant's store of compiled code.
    pub(crate) fn open(kernel: &Kernel, place: &Place, settings: &Settings) -> anyhow::Result<Sandbox> {
        let own = settings.plugins.cache_dir.as_os_str().is_empty();
        let store = if own { place.data.join("plugins") } else { settings.plugins.cache_dir.clone() };
        let socket = Some(&settings.plugins.compiler_socket).filter(|socket| !socket.as_os_str().is_empty());
        let compiler = CompilerCommand { socket: socket.cloned(), ..compiler()? };
        let host = Host::new(HostConfig::new(store, *kernel.keys.plugin().bytes(), compiler))?;
        Ok(Sandbox { host })
    }

    /// A sandbox over a host that is there already.
    #[cfg(test)]
    pub(crate) fn over(host: Host) -> Sandbox {
        Sandbox { host }
    }

    /// The host, for calls.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }
}

impl Runtime for Sandbox {
    fn install(&self, module: Vec<u8>) -> BoxFuture<'_, Result<Installed, Problem>> {
        async move {
            outside_unit("compiling a plugin");
            let host = self.host.clone();
            let installed = tokio::task::spawn_blocking(move || {
                let digest = host.install(&module)?;
                Ok::<(Digest, Description), Error>((digest, host.describe(&digest)?))
            });
            let (digest, description) = installed.await.map_err(|e| Problem::new(PLUGIN_UNAVAILABLE, e.to_string()))?.map_err(refusal)?;
            let kind = match description {
                Description::Tagger(_) => PluginKind::Tagger,
                Description::BenefitRule(_) => PluginKind::BenefitRule,
            };
            let description = serde_json::to_value(&description).map_err(|e| Problem::new(INVALID_PLUGIN, e.to_string()))?;
            Ok(Installed { digest: digest.to_string(), kind, description })
        }
        .boxed()
    }
}

fn refusal(error: Error) -> Problem {
    match &error {
        // The plugin could not say what it is because the host had no time for it.
        Error::Describe { source: CallError::Stopped { stop: Stop::Busy, .. } | CallError::Engine(_), .. } => {
            Problem::new(PLUGIN_UNAVAILABLE, chain(&error)).retry_after_s(1)
        }
        Error::CompilerStopped { .. } | Error::Config(_) | Error::Store { .. } | Error::Tampered { .. } | Error::NotInstalled(_) => {
            tracing::error!(error = %chain(&error), "the plugin host failed");
            Problem::new(PLUGIN_UNAVAILABLE, error.to_string()).retry_after_s(5)
        }
        _ => Problem::new(INVALID_PLUGIN, chain(&error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A call that failed for no row's sake, for whoever waits for its answer; without words of the guest's, which may speak of people.
pub(crate) fn call_problem(name: &str, error: &CallError) -> Problem {
    Problem::new(PLUGIN_UNAVAILABLE, format!("plugin {name}: {}", error.class())).retry_after_s(1)
}

/// A plugin that would read what is not approved, for whoever waits for its answer.
pub(crate) fn unapproved_problem(name: &str, unapproved: &str) -> Problem {
    Problem::new(PLUGIN_UNAVAILABLE, format!("plugin {name} reads what is not approved: {unapproved}")).retry_after_s(60)
}
