//! Logs, metrics and traces by OpenTelemetry, started once by the binary.

use crate::error::Error;
use opentelemetry::metrics::Meter;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Settings of the `telemetry` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// What is logged, in the syntax of `RUST_LOG`.
    pub log_filter: String,
    /// `text` for people, `json` for collectors.
    pub log_format: LogFormat,
    /// Where traces go (OTLP over HTTP); nowhere when empty.
    pub otlp_endpoint: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            log_filter: "info,sqlx=warn,datafusion=warn,sea_orm_migration=warn,actix_server=warn".into(),
            log_format: LogFormat::Text,
            otlp_endpoint: String::new(),
        }
    }
}

/// What must live as long as the process.
#[derive(Debug)]
pub struct Running {
    registry: Registry,
    _meters: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
}

impl Running {
    /// Every metric in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "the metrics could not be written out");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Sends what is still held back.
    pub fn stop(&self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Starts logging to standard error, metrics, and traces when an endpoint is set.
///
/// # Errors
/// [`Error::Setting`] with the key for a filter or endpoint that is not valid.
pub fn start(settings: &Telemetry) -> Result<Running, Error> {
    let setting = |key: &str, why: String| Error::Setting { key: key.into(), why };
    let registry = Registry::new();
    let exporter =
        opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().map_err(|e| setting("telemetry", e.to_string()))?;
    let meters = SdkMeterProvider::builder().with_reader(exporter).build();
    opentelemetry::global::set_meter_provider(meters.clone());
    let filter = EnvFilter::try_new(&settings.log_filter).map_err(|e| setting("telemetry.log_filter", e.to_string()))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let traces = if settings.otlp_endpoint.is_empty() { None } else { Some(exporting(&settings.otlp_endpoint)?) };
    let spans = traces.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("heyuan")));
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()
        .map_err(|e| setting("telemetry", e.to_string()))?;
    Ok(Running { registry, _meters: meters, traces })
}

fn exporting(endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()
        .map_err(|e| Error::Setting { key: "telemetry.otlp_endpoint".into(), why: e.to_string() })?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).build())
}

/// Where modules make their instruments.
pub fn meter() -> Meter {
    opentelemetry::global::meter("heyuan")
}
