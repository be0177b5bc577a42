//! The admin listener answers only requests for its own host names.

use super::{bridge, refused};
use crate::support::sender::RawClient;

#[tokio::test(flavor = "multi_thread")]
async fn unknown_host_is_421() {
    let bridge = bridge()
        .with("admin.hosts = [\"bridge.example.net\"]")
        .start()
        .await;
    let ask = async |target: &str, hosts: &str| {
        let mut client = RawClient::connect(bridge.admin_address()).await;
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
        client.write(request).await;
        client.answer().await.unwrap()
    };
    for path in ["/livez", "/readyz", "/status", "/metrics"] {
        let ours = ask(path, "Host: Bridge.Example.Net\r\n").await;
        assert_eq!(ours.status, 200, "{path}");
        let other = ask(path, "Host: rebound.example\r\n").await;
        assert_eq!(other.status, 421, "{path}");
        let problem = other.json();
        assert_eq!(problem["status"], 421);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("admin.hosts"), "{detail}");
    }
    let two = "Host: localhost\r\nHost: rebound.example\r\n";
    assert_eq!(ask("/status", two).await.status, 421);
    let absolute = ask("http://rebound.example/status", "Host: localhost\r\n").await;
    assert_eq!(absolute.status, 421);
    let line = bridge.says("unknown-host").await;
    assert!(line.contains("rebound.example"), "{line}");
    assert!(line.contains("listener=\"admin\""), "{line}");
    assert_eq!(refused(&bridge, "unknown-host").await, 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_with_port_or_scheme_is_a_finding() {
    let mut bridge = bridge()
        .with("admin.hosts = [\"bridge\", \"http://bridge:9180\"]")
        .build();
    assert_eq!(bridge.run_to_exit().await.status.code(), Some(2));
    let said = bridge.stderr();
    assert!(said.contains("admin.hosts[1]"), "{said}");
}
