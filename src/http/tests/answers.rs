//! Every row of the contract's table, on the wire.

use super::support::*;

#[tokio::test]
async fn an_authentic_webhook_is_held_and_answered_202_with_its_counts() {
    let bridge = Bridge::start(|_| {}).await;
    let answer = bridge
        .ask(&signed(&format!("[{},{{\"id\":\"2\"}}]", session("1"))))
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let body = answer.json();
    assert_eq!(
        (body["accepted"].as_u64(), body["dead_lettered"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(body["problems"][0]["index"], 1);
    assert_eq!(body["problems"][0]["reason"], "invalid");
    assert!(
        body["problems"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("status"),
        "{body}"
    );
    let held = bridge.shelf.webhooks.lock().unwrap();
    assert_eq!(body["webhook_id"], held[0].envelope.webhook_id.to_string());
    assert_eq!(held[0].events.len(), 2);
}
