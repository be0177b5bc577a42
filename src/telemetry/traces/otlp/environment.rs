//! The standard environment variables of OpenTelemetry. The library reads headers, sampler and
//! resource attributes itself.

use std::env;
use std::time::Duration;

use hyper::Uri;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Config, SpanExporter as _};

use super::Recorder;
use super::export::{BatchLimits, Queue};
use super::transport::Transport;

/// The only protocol of this build.
const PROTOCOL: &str = "http/protobuf";
const PROTOCOL_VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];

/// Starts the export to `url`, the value of `variable`; logs why if that is not possible.
pub(super) fn recorder(variable: &'static str, url: &str) -> Option<Recorder> {
    let url = url.parse::<Uri>().ok();
    let is_http = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https"));
    let Some(url) = url.filter(is_http) else {
        tracing::error!(
            variable,
            "no traces are exported: the variable is not a URL such as http://localhost:4318"
        );
        return None;
    };
    let protocol = PROTOCOL_VARIABLES
        .iter()
        .find_map(|name| env::var(name).ok());
    if protocol.is_some_and(|protocol| protocol != PROTOCOL) {
        tracing::warn!(
            "this build exports traces only as http/protobuf; use the collector's port for it, usually 4318"
        );
    }
    let transport = Transport::to(&url).inspect_err(|error| {
        tracing::error!(%error, "no traces are exported: https needs the system's certificate authorities");
    });
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(transport.ok()?)
        // Between two attempts, the library would block a thread of the runtime.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        // The error may quote a value.
        .inspect_err(|_| {
            tracing::error!("no traces are exported: check the variables OTEL_EXPORTER_OTLP_*");
        })
        .ok()?;
    exporter.set_resource(&resource());
    let config = Config::default();
    tracing::info!(collector = url.host(), sampler = ?config.sampler, "exporting traces");
    let scope = InstrumentationScope::builder("deskbridge");
    Some(Recorder {
        sampler: config.sampler,
        ids: config.id_generator,
        scope: scope.with_version(env!("CARGO_PKG_VERSION")).build(),
        queue: Queue::start(exporter, &limits()),
    })
}

fn resource() -> Resource {
    let name = env::var("OTEL_SERVICE_NAME").unwrap_or_default();
    let resource = Resource::builder_empty()
        .with_service_name("deskbridge")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if name.is_empty() {
        resource.build()
    } else {
        resource.with_service_name(name).build()
    }
}

fn limits() -> BatchLimits {
    let number = |name| {
        let number = env::var(name).ok()?.parse::<u32>().ok();
        number.filter(|number| *number > 0)
    };
    let count = |name, default| number(name).map_or(default, |number| number as usize);
    let default = BatchLimits::default();
    let delay = number("OTEL_BSP_SCHEDULE_DELAY");
    BatchLimits {
        queued_max: count("OTEL_BSP_MAX_QUEUE_SIZE", default.queued_max),
        batch_max: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", default.batch_max),
        delay: delay.map_or(default.delay, |delay| Duration::from_millis(delay.into())),
    }
}
