//! Faults of the broker process.

use std::net::TcpStream;
use std::time::Duration;

use super::{Evidence, SHOWS_WITHIN, last};
use crate::schedule::{Kind, Planned};
use crate::stage::{Stage, until};
use crate::support::broker::Broker;

pub(super) async fn inject(stage: &Stage, planned: &Planned) -> Evidence {
    let broker = &*stage.broker;
    match planned.kind {
        Kind::BrokerKill => {
            let pid = broker.pid();
            write_down_queues(broker).await;
            broker.kill().await;
            let is_gone = is_refused(stage);
            last(planned).await;
            broker.start().await;
            write_down_queues(broker).await;
            seen(is_gone, format!("process {pid} was gone"))
        }
        Kind::BrokerRestart => {
            broker.ctl(&["stop_app"]).await;
            let is_gone = is_refused(stage);
            last(planned).await;
            broker.ctl(&["start_app"]).await;
            write_down_queues(broker).await;
            seen(is_gone, "the port was closed")
        }
        Kind::BrokerFreeze => {
            broker.freeze();
            let is_frozen = until(SHOWS_WITHIN, async || is_stopped(broker.pid())).await;
            last(planned).await;
            broker.thaw();
            seen(is_frozen, "the process was stopped")
        }
        Kind::MemoryAlarm => {
            broker.raise_memory_alarm().await;
            let evidence = stage.broker_is("blocked", SHOWS_WITHIN).await;
            last(planned).await;
            broker.clear_memory_alarm().await;
            evidence
        }
        Kind::DiskAlarm => {
            broker.ctl(&["set_disk_free_limit", "100000GB"]).await;
            let evidence = stage.broker_is("blocked", SHOWS_WITHIN).await;
            last(planned).await;
            broker.ctl(&["set_disk_free_limit", "50MB"]).await;
            evidence
        }
        _ => {
            let before = stage.proxy.connections();
            let vhost = ["--vhost", &stage.vhost.name];
            let close = ["close_all_connections", vhost[0], vhost[1], "chaos"];
            broker.ctl(&close).await;
            let is_new = until(SHOWS_WITHIN, async || stage.proxy.connections() > before).await;
            seen(is_new, "the bridge connected again")
        }
    }
}

pub(super) fn seen(happened: bool, evidence: impl Into<String>) -> Evidence {
    let evidence = evidence.into();
    if happened {
        Ok(evidence)
    } else {
        Err(format!("not seen: {evidence}"))
    }
}

fn is_refused(stage: &Stage) -> bool {
    let address = stage.vhost.amqp_address();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err()
}

/// Whether a process is stopped.
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default();
    state.trim_start().starts_with('T')
}

/// Makes RabbitMQ write its table of quorum queues to disk. It does so late: a node that is killed
/// soon after its start comes back with these queues empty and without a leader.
pub async fn write_down_queues(broker: &Broker) {
    let sync = "[dets:sync(Table) || Table <- dets:all()], ok.";
    broker.ctl(&["eval", sync]).await;
}
