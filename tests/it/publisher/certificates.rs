//! Certificates that are not good: refused with the reason, and nothing is ever said in plain.

use std::sync::atomic::Ordering;

use deskbridge::telemetry::status::BrokerState;

use super::room::{Room, config};
use crate::support::authority::Authority;
use crate::support::encrypted::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_good_is_refused_with_the_reason_and_never_in_plain() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new(dir.path(), "ours");
    let theirs = Authority::new(dir.path(), "theirs");
    for (what, authority, name, years, reason) in [
        ("expired", &ours, "localhost", 2001..2002, "expired"),
        (
            "not yet valid",
            &ours,
            "localhost",
            2090..2091,
            "not valid yet",
        ),
        (
            "another authority's",
            &theirs,
            "localhost",
            2020..2100,
            "signed by an authority that is not in",
        ),
        (
            "another name",
            &ours,
            "elsewhere.test",
            2020..2100,
            "elsewhere.test",
        ),
    ] {
        let (cert, key) = authority.issue_for_years(dir.path(), name, years);
        let server = Server::with(&cert, &key).await;
        let mut config = config(&[&format!(
            "amqps://guest:guest@localhost:{}/%2f",
            server.port
        )]);
        config.rabbitmq.tls.ca_file = Some(ours.ca_file.clone());
        let mut room = Room::start(&config);
        let status = room.state_is(BrokerState::Refused).await;
        let said = status.reason.unwrap_or_default();
        println!("{what}: {said}");
        assert!(said.to_lowercase().contains(reason), "{what}: {said}");
        assert_ne!(server.in_tls.load(Ordering::SeqCst), 0, "{what}");
        assert_eq!(server.in_plain.load(Ordering::SeqCst), 0, "{what}");
        room.shutdown.cancel();
    }
}
