//! Requests that do not reach a source are refused, counted, and reported to the operator with
//! their origin and the probable mistake. For requests that reach a source, the log says what is
//! wrong with them.

mod admin_hosts;
mod heads;
mod paths;
mod source_status;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::sender::{RawAnswer, RawClient};

/// A bridge without a broker: these answers do not depend on one.
fn bridge() -> BridgeBuilder {
    BridgeBuilder::without_broker()
}

/// The number of requests that were refused before they reached a source.
async fn refused(bridge: &Bridge, reason: &str) -> f64 {
    let metrics = bridge.metrics().await;
    metrics.sum_where("http_refused_total", &[("reason", reason)])
}

/// The first answer to these bytes on a new connection.
async fn answer_to(bridge: &Bridge, bytes: impl AsRef<[u8]>) -> Option<RawAnswer> {
    let mut client = RawClient::connect(bridge.address()).await;
    client.write(bytes).await;
    client.answer().await
}

/// A request without a body or a signature.
fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: b\r\n{headers}Content-Length: 0\r\n\r\n")
}
