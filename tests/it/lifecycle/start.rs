//! Starting does not require a broker.

use tokio::net::{TcpListener, TcpStream};

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::array_of_new;

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_later_broker() {
    let vhost = Broker::shared().await.vhost().await;
    let address = free_address();
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(address))
        .start()
        .await;
    assert_eq!(bridge.post(array_of_new("early", 3)).await.status, 202);
    let status = bridge.status().await;
    assert_eq!(status["broker"]["state"], "connecting", "{status}");
    assert_eq!(status["backlog"]["events"], 3);
    assert!(
        bridge.ready().await,
        "readiness does not depend on the broker"
    );

    // The broker's own port cannot be chosen, so connections to this port are forwarded to it.
    let listener = TcpListener::bind(address).await.unwrap();
    let broker = vhost.amqp_address();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(broker).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    bridge.broker_is("connected").await;
    bridge.backlog_is_empty().await;
    let mut waiting = Consumer::of(&vhost, "chat-sessions.unrouted").await;
    for message in waiting.receive_n(3).await {
        assert!(message.text().contains("early-"), "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_broker_does_not_stop_webhooks() {
    // The kernel accepts the connection, but nothing ever reads from it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://guest:guest@{}/", silent.local_addr().unwrap());
    let mut bridge = BridgeBuilder::at(&url)
        .with("rabbitmq.connect_timeout = \"500ms\"")
        .start()
        .await;
    assert_eq!(bridge.post(array_of_new("early", 3)).await.status, 202);
    let (first, _) = silent.accept().await.unwrap();
    let (second, _) = silent
        .accept()
        .await
        .expect("it times out and connects again");
    drop((first, second));
    assert_eq!(bridge.status().await["broker"]["state"], "connecting");
    assert_eq!(bridge.post(array_of_new("late", 3)).await.status, 202);
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn address_in_use_is_reported_with_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut bridge = BridgeBuilder::without_broker()
        .with(&format!("http.listen = {address:?}"))
        .build();
    assert_eq!(bridge.run_to_exit().await.status.code(), Some(1));
    let said = bridge.stderr();
    assert!(
        said.contains(&address) && said.contains("http.listen"),
        "{said}"
    );
}
