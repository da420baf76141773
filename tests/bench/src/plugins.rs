//! Plugins in the sandbox, through the host that the server uses, with the native baseline of the same sources.

use heyuan_harness::{cache_dir, heyuan_binary};
use heyuan_plugin_host::bench::{BenchPlugins, measure as measure_host};
use heyuan_plugin_host::{CompilerCommand, Host, HostConfig};

use crate::report::{Bar, Report, Row};

/// The hidden command by which the server compiles a plugin in a process of its own.
const COMPILE_COMMAND: &str = "compile-plugin";

/// The host's own measures; each says its method. Bars stand on the names as `plugins/host` gives them. "Two threads to one" has
/// the native rule's gain of the same run as its baseline.
pub(crate) fn measure(report: &mut Report) {
    let cache = tempfile::tempdir().expect("the temporary folder is writable");
    let compiler = CompilerCommand::new(heyuan_binary(), &[COMPILE_COMMAND]);
    let measured = Host::new(HostConfig::new(cache.path(), [7; 32], compiler))
        .map_err(Into::into)
        .and_then(|host| measure_host(&host, &BenchPlugins::in_folder(&cache_dir().join("plugins"))));
    let measures = match measured {
        Ok(measures) => measures,
        Err(error) => return report.add(Row::missing("plugins: all rows", &format!("the plugin host can't be measured: {error}"))),
    };
    let native_gain = measures.iter().find(|measure| measure.name == "two threads to one, native rule").map(|measure| measure.value);
    for measure in &measures {
        let row = Row::new(&format!("plugins: {}", measure.name), measure.value, measure.unit, bar(measure.name), measure.method);
        let beside = (measure.name == "two threads to one").then_some(native_gain).flatten();
        report.add(match beside {
            Some(gain) => row.beside(gain, None),
            None => row,
        });
    }
}

fn bar(name: &str) -> Bar {
    match name {
        "instantiate a Rust component, p50" => Bar::AtMost(5.0),
        "fresh instance + one empty call, p50" => Bar::AtMost(8.0),
        "tagger rows/s a core, batch 1,000" => Bar::AtLeast(25e6),
        "tagger to native, batch 10,000" => Bar::AtMost(4.0),
        "benefit decision, 10 order lines, p50" => Bar::AtMost(15.0),
        "benefit decision, 10 order lines, p99" => Bar::AtMost(40.0),
        "isolated evaluations/s, one thread" => Bar::AtLeast(50_000.0),
        "two threads to one" => Bar::AtLeast(1.6),
        "memory of 50 active Rust plugins" => Bar::AtMost(64.0),
        _ => Bar::None,
    }
}
