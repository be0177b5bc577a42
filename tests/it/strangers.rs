//! Whoever does not reach a source: refused, counted, and told to the operator with where it came
//! from and what was probably meant. Whoever does: the log says what is wrong with it.

mod heads;
mod hosts;
mod paths;
mod told;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::Bridge;
use crate::support::sender::{RawAnswer, RawClient};

/// A bridge without a broker: its answers do not depend on one.
fn bridge() -> BridgeBuilder {
    BridgeBuilder::at(&format!("amqp://guest:guest@{}/", free_address()))
}

/// How many requests were refused before they reached a source.
async fn refused(bridge: &Bridge, reason: &str) -> f64 {
    let metrics = bridge.metrics().await;
    metrics.sum_where("http_refused_total", &[("reason", reason)])
}

/// The first answer to these bytes on a connection of their own.
async fn answer_to(bridge: &Bridge, bytes: impl AsRef<[u8]>) -> Option<RawAnswer> {
    let mut client = RawClient::connect(bridge.address()).await;
    client.write(bytes).await;
    client.answer().await
}

/// A request without a body and a signature.
fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: b\r\n{headers}Content-Length: 0\r\n\r\n")
}
