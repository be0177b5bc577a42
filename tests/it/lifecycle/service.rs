//! The bridge as a service of systemd: its listening socket outlives it, and it reports its state.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use hyper::Method;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::http::Client;
use crate::support::sender::{PATH, SECRET, array_of_new, sign};
use crate::support::wait::SOON;

/// Passes descriptor 3 as systemd does (`sd_listen_fds(3)`).
const PASS_SOCKET: &str =
    "exec 3<&\"$SOCKET\"; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=webhooks; exec \"$@\"";

#[tokio::test(flavor = "multi_thread")]
async fn request_during_a_restart_waits_in_the_socket() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    // The bridge inherits it.
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    let mut bridge = BridgeBuilder::without_broker()
        .environment("SOCKET", &socket.as_raw_fd().to_string())
        .under(&["bash", "-c", PASS_SOCKET, "bash"])
        .start()
        .await;
    let address = socket.local_addr().unwrap();
    let post = async |id: &str| {
        let body = array_of_new(id, 1);
        let signature = sign(SECRET, &body);
        let headers = [("x-dd-signature", &*signature)];
        Client::new(address)
            .request(Method::POST, PATH, &headers, body)
            .await
    };
    assert_eq!(post("before").await.unwrap().status, 202);
    assert!(
        TcpListener::bind(bridge.address()).is_ok(),
        "`http.listen` is not bound"
    );
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
    let (answer, ()) = tokio::join!(post("between"), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bridge.start().await;
    });
    assert_eq!(answer.unwrap().status, 202);
    assert_eq!(bridge.status().await["backlog"]["events"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_manager_learns_every_state() {
    let builder = BridgeBuilder::without_broker();
    let path = builder.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let learns = |expected: &str| {
        let mut states = Vec::new();
        while !states
            .last()
            .is_some_and(|state: &String| state.starts_with(expected))
        {
            let mut buffer = [0; 512];
            let length = manager.recv(&mut buffer);
            let length = length.unwrap_or_else(|why| panic!("{expected}: {why}, after {states:?}"));
            states.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        states.pop().unwrap()
    };
    let mut bridge = builder
        .environment("NOTIFY_SOCKET", &path.display().to_string())
        .environment("WATCHDOG_USEC", "200000")
        .start()
        .await;
    learns("READY=1");
    learns("STATUS=accepting webhooks; broker connecting");
    for _ in 0..3 {
        learns("WATCHDOG=1");
    }
    bridge.hang_up();
    assert!(learns("RELOADING=1").contains("MONOTONIC_USEC="));
    learns("READY=1");
    let exit = bridge.terminate().await;
    assert_eq!(exit.status.code(), Some(0), "{:?}", exit.took);
    learns("STOPPING=1");
}
