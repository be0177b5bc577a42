//! Traces over OTLP: from the sender's span to the broker's confirm, and no effect of a collector
//! that fails.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::collector::{Collector, Manner, Span, SpanKind};
use crate::support::consumer::Consumer;
use crate::support::sender::{SECRET, array_of, array_of_new, session, sign};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const REQUEST: &str = "POST /webhooks/{source}";
const PUBLISH: &str = "publish chat-sessions";

/// A bridge that exports to this endpoint without much delay.
fn traced(builder: BridgeBuilder, endpoint: &str) -> BridgeBuilder {
    builder
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .environment("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// Posts a signed webhook with a `traceparent`, and expects 202.
async fn post_traced(bridge: &Bridge, traceparent: &str, body: &[u8]) {
    let signature = sign(SECRET, body);
    let headers = [
        ("x-dd-signature", &*signature),
        ("traceparent", traceparent),
        ("tracestate", "vendor=1"),
    ];
    let answer = bridge.post_with(&headers, body).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
}

fn assert_within(inner: &Span, outer: &Span) {
    assert!(inner.started >= outer.started, "{inner:#?}\n{outer:#?}");
    assert!(inner.ended <= outer.ended, "{inner:#?}\n{outer:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_trace_continues_to_the_confirm() {
    let collector = Collector::start(Manner::Accepts).await;
    let vhost = Broker::shared().await.vhost().await;
    let bridge = traced(BridgeBuilder::new(&vhost), &collector.endpoint())
        .environment(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20hidden",
        )
        .connected()
        .await;
    let mut all = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let sessions = ["one", "two"].map(|id| session(id, "created", json!({})));
    post_traced(&bridge, &traceparent, &array_of(&sessions)).await;

    let request = collector.spans_named(REQUEST, 1).await.remove(0);
    assert_eq!(request.kind, SpanKind::Server);
    assert_eq!((&*request.trace_id, &*request.parent_id), (TRACE, PARENT));
    assert_eq!(request.trace_state, "vendor=1");
    assert!(!request.is_error);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/webhooks/{source}"),
        ("http.response.status_code", "202"),
        ("url.path", "/webhooks/deskdirector"),
        ("deskbridge.source", "deskdirector"),
    ] {
        assert_eq!(request.get(key), value, "{key}");
    }
    assert_eq!(request.resource("service.name"), "deskbridge");
    assert_eq!(
        request.resource("service.version"),
        env!("CARGO_PKG_VERSION")
    );

    let append = collector.spans_named("journal append", 1).await.remove(0);
    assert_eq!(append.kind, SpanKind::Internal);
    assert_eq!((&*append.trace_id, &append.parent_id), (TRACE, &request.id));
    assert_within(&append, &request);

    let mut published = collector.spans_named(PUBLISH, 2).await;
    published.sort_by_key(|span| span.get("messaging.message.conversation_id"));
    for (span, id) in published.iter().zip(["one", "two"]) {
        assert_eq!(span.kind, SpanKind::Producer);
        assert_eq!((&*span.trace_id, &span.parent_id), (TRACE, &request.id));
        assert!(!span.is_error && span.ended > append.started, "{span:#?}");
        for (key, value) in [
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
            (
                "messaging.destination.name",
                "chat-sessions:chat-session.created",
            ),
            (
                "messaging.rabbitmq.destination.routing_key",
                "chat-session.created",
            ),
            ("messaging.message.conversation_id", id),
        ] {
            assert_eq!(span.get(key), value, "{key}");
        }
    }
    // The message is of the sender's trace, too; the contract fixes the header.
    let mut messages = all.receive_n(2).await;
    messages.sort_by(|one, other| one.correlation_id.cmp(&other.correlation_id));
    for (message, span) in messages.iter().zip(&published) {
        assert_eq!(message.header("traceparent"), &json!(traceparent));
        let id = message.message_id.as_deref().unwrap();
        assert_eq!(span.get("messaging.message.id"), id);
    }
    assert_eq!(collector.spans().len(), 4);
    assert_eq!(
        collector.header("authorization").as_deref(),
        Some("Bearer hidden")
    );
    assert!(!bridge.stderr().contains("hidden"), "a secret is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_continues_after_a_restart() {
    let collector = Collector::start(Manner::Accepts).await;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = traced(BridgeBuilder::without_broker(), &collector.endpoint())
        .start()
        .await;
    assert_eq!(bridge.post(array_of_new("s", 1)).await.status, 202);
    let request = collector.spans_named(REQUEST, 1).await.remove(0);
    assert_eq!(request.parent_id, "", "the sender has no trace");

    bridge.kill().await;
    bridge.reconfigure(&format!("rabbitmq.urls = [{:?}]", vhost.amqp_url));
    bridge.start().await;
    let publish = collector.spans_named(PUBLISH, 1).await.remove(0);
    assert_eq!(publish.trace_id, request.trace_id);
    assert_eq!(publish.parent_id, request.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_unsampled_or_a_forged_request_is_exported() {
    let collector = Collector::start(Manner::Accepts).await;
    let vhost = Broker::shared().await.vhost().await;
    let bridge = traced(BridgeBuilder::new(&vhost), &collector.endpoint())
        .connected()
        .await;
    let body = array_of_new("a", 1);
    post_traced(&bridge, &format!("00-{TRACE}-{PARENT}-00"), &body).await;
    let forged = format!("00-{}-{PARENT}-01", "f".repeat(32));
    let signature = sign("another secret, not configured", &body);
    let headers = [("x-dd-signature", &*signature), ("traceparent", &*forged)];
    let answer = bridge.post_with(&headers, &body).await.unwrap();
    assert_eq!(answer.status, 401);
    bridge.backlog_is_empty().await;

    // Neither is an invalid `traceparent` continued: this webhook begins a trace.
    post_traced(&bridge, "00-0-0-01", &array_of_new("b", 1)).await;
    let publish = collector.spans_named(PUBLISH, 1).await.remove(0);
    assert_eq!(publish.get("messaging.message.conversation_id"), "b-0");
    collector.spans_named(REQUEST, 1).await;
    let spans = collector.spans();
    assert!(
        spans.iter().all(|span| span.trace_id == publish.trace_id),
        "{spans:#?}"
    );
    assert!(![TRACE, &"f".repeat(32)].contains(&&*publish.trace_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_attempts_and_dead_letters_are_errors() {
    let collector = Collector::start(Manner::Accepts).await;
    let vhost = Broker::shared().await.vhost().await;
    let bridge = traced(BridgeBuilder::new(&vhost), &collector.endpoint())
        .with("unrouted.exchange = ''")
        .with("retry = {delay_min = '20ms', delay_max = '20ms', attempts_max = 2}")
        .connected()
        .await;
    assert_eq!(bridge.post(array_of_new("s", 1)).await.status, 202);
    let letter = collector
        .spans_named("publish chat-sessions.dead-letter", 1)
        .await;
    let rejected = collector.spans_named(PUBLISH, 2).await;
    let request = collector.spans_named(REQUEST, 1).await.remove(0);
    for span in rejected.iter().chain(&letter) {
        assert!(span.is_error);
        assert_eq!(span.get("error.type"), "unroutable");
        assert_eq!(span.parent_id, request.id);
    }
    assert_eq!(collector.spans().len(), 5);
    assert!(!request.is_error);
}

#[tokio::test(flavor = "multi_thread")]
async fn sampler_and_switch_of_the_specification_apply() {
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ] {
        let collector = Collector::start(Manner::Accepts).await;
        let vhost = Broker::shared().await.vhost().await;
        let mut bridge = traced(BridgeBuilder::new(&vhost), &collector.endpoint())
            .environment(name, value)
            .connected()
            .await;
        post_traced(
            &bridge,
            &format!("00-{TRACE}-{PARENT}-01"),
            &array_of_new("s", 1),
        )
        .await;
        bridge.backlog_is_empty().await;
        // The end exports what is left.
        assert!(bridge.terminate().await.status.success());
        assert_eq!(collector.requests(), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_spans_are_exported_before_the_end() {
    let collector = Collector::start(Manner::Accepts).await;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = traced(BridgeBuilder::new(&vhost), &collector.endpoint())
        .environment("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .environment("OTEL_SERVICE_NAME", "bridge-2")
        .connected()
        .await;
    assert_eq!(bridge.post(array_of_new("s", 3)).await.status, 202);
    bridge.backlog_is_empty().await;
    assert_eq!(collector.requests(), 0);
    assert!(bridge.terminate().await.status.success());
    let spans = collector.spans();
    assert_eq!((collector.requests(), spans.len()), (1, 5));
    assert_eq!(spans[0].resource("service.name"), "bridge-2");
}

/// Posts webhooks to a bridge whose queue has room for few spans, and stops it. Returns its log.
async fn log_with(endpoint: &str) -> String {
    const WEBHOOKS: usize = 30;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = traced(BridgeBuilder::new(&vhost), endpoint)
        .environment("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        .environment("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        .connected()
        .await;
    for n in 0..WEBHOOKS {
        let began = Instant::now();
        assert_eq!(
            bridge.post(array_of_new(&format!("s{n}"), 1)).await.status,
            202
        );
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "answered after {took:?}");
    }
    bridge.backlog_is_empty().await;
    let exit = bridge.terminate().await;
    assert!(exit.status.success(), "{exit:?}");
    // Well below `shutdown.grace` (8 s), and the last exports have a second.
    assert!(exit.took < Duration::from_secs(4), "{exit:?}");
    bridge.stderr()
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_collector_delays_nothing() {
    let failing = Collector::start(Manner::Fails).await;
    let log = log_with(&failing.endpoint()).await;
    assert!(
        log.contains("spans lost") && log.contains("status code: 500"),
        "{log}"
    );
    // Once at first, and once at the end.
    assert!(log.matches("spans lost").count() <= 2, "{log}");

    let log = log_with(&format!("http://{}", free_address())).await;
    assert!(log.contains("spans lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_collector_delays_nothing() {
    let hanging = Collector::start(Manner::Hangs).await;
    let log = log_with(&hanging.endpoint()).await;
    assert_eq!(hanging.requests(), 1, "one export at a time");
    assert!(log.contains("the last spans are lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_endpoint_is_named_without_its_value() {
    let bridge = traced(BridgeBuilder::without_broker(), "collector:4317/hidden")
        .start()
        .await;
    let line = bridge.says("no traces are exported").await;
    assert!(line.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{line}");
    assert!(!bridge.stderr().contains("hidden"));
    assert_eq!(bridge.post(array_of_new("s", 1)).await.status, 202);
}
