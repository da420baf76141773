//! Logs to standard error, and traces by OTLP where an endpoint is set.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Starts logging, and tracing where there is an endpoint.
///
/// # Errors
/// A filter or an endpoint that is not valid.
pub(crate) fn start(filter: &str, format: LogFormat, otlp_endpoint: Option<&str>) -> anyhow::Result<Option<SdkTracerProvider>> {
    let filter = EnvFilter::try_new(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let traces = otlp_endpoint.map(exporting).transpose()?;
    let spans = traces.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("heyuan-operator")));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init()?;
    Ok(traces)
}

fn exporting(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(endpoint).build()?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).build())
}

/// Sends what is still held back.
pub(crate) fn stop(traces: Option<SdkTracerProvider>) {
    if let Some(traces) = traces
        && let Err(error) = traces.shutdown()
    {
        tracing::warn!(%error, "the last traces could not be sent");
    }
}
