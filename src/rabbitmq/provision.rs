//! The topology on the broker outside of `serve`: which one it would use there, and declaring it
//! now. The first broker that accepts a connection is asked.

use std::time::Duration;

use super::ConnectConfig;
use super::connection::{self, FrameSize};
use super::inspection::Inspector;
use super::open_connection::OpenConnection;
use super::topology::declare::Declarer;
use super::topology::{DeclaredObject, Topology};
use super::url::BrokerUrl;

/// Limit for an orderly close of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the broker could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ProvisionError {
    /// What each broker said.
    pub reason: String,
    /// What to try, if that is known.
    pub advice: Option<String>,
}

/// The topology that `serve` would use on the broker; it depends on the broker's version. Changes
/// nothing.
///
/// # Errors
/// If no broker accepts the connection, or if it is lost.
pub async fn chosen(settings: &ConnectConfig) -> Result<Topology, ProvisionError> {
    let (url, connection) = connect(settings).await?;
    let inspector = Inspector::new(connection);
    let topology = inspector.topology(settings, url).await;
    inspector.close().await;
    topology.map_err(|reason| lost(url, &reason))
}

/// Declares the topology of the settings, as `serve` does when it connects. Returns what happened
/// to each object, in the order of the plan.
///
/// # Errors
/// If no broker accepts the connection, or if it is lost; a part may have been declared.
pub async fn apply(settings: &ConnectConfig) -> Result<Vec<DeclaredObject>, ProvisionError> {
    let (url, connection) = connect(settings).await?;
    let declarer = Declarer::new(settings.topology.clone());
    let Ok(applied) = declarer.apply(&connection, url, &settings.tls).await else {
        return Err(lost(url, &connection.lost().await));
    };
    connection.close(CLOSE_TIMEOUT).await;
    Ok(applied)
}

async fn connect(settings: &ConnectConfig) -> Result<(&BrokerUrl, OpenConnection), ProvisionError> {
    let (mut reasons, mut advice) = (Vec::new(), None);
    for url in &settings.urls {
        match connection::connect(settings, url, FrameSize::Agreed).await {
            Ok(connection) => return Ok((url, connection)),
            Err(error) => {
                reasons.push(format!("{url}: {}", error.reason()));
                advice = advice.or_else(|| error.advice());
            }
        }
    }
    let reason = reasons.join("; ");
    Err(ProvisionError { reason, advice })
}

fn lost(url: &BrokerUrl, reason: &str) -> ProvisionError {
    ProvisionError {
        reason: format!("{url}: {reason}"),
        advice: None,
    }
}
