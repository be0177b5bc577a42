use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::*;

/// A sink that blocks while the test holds its lock.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn logged(config: &Telemetry, log: impl FnOnce(&Level)) -> String {
    let sink = Sink::default();
    let queue = LineQueue::start(sink.clone(), config.log_format).unwrap();
    let (subscriber, level) = subscriber(config, queue.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || log(&level));
    queue.flush_within(Duration::from_secs(10));
    sink.text()
}

/// Logs the text in every way: in the message, as `Display`, as `Debug`, as a string, as an error.
fn log_unsafe(text: &str) {
    let error = io::Error::other(text.to_owned());
    let error: &dyn std::error::Error = &error;
    tracing::info!(shown = %text, debug = ?text, text, error, "said: {text}");
}

const UNSAFE: &str = "a\r\n\u{1b}[2J\u{7f}\u{9b}2J\u{202e}\u{200b}\u{2028}\u{e0041}b";

fn is_safe(line: &str) -> bool {
    !line
        .chars()
        .any(|c| UNSAFE[1..].contains(c) && !c.is_ascii_graphic())
}

#[test]
fn foreign_text_is_escaped_in_every_field() {
    let text = logged(&Telemetry::default(), |_| log_unsafe(UNSAFE));
    let line = text.strip_suffix('\n').unwrap();
    assert!(is_safe(line), "{line:?}");
    assert!(
        line.contains("\\u{202e}\\u{200b}\\u{2028}\\u{e0041}b"),
        "{line}"
    );
}

#[test]
fn foreign_text_in_json_is_safe_and_equal() {
    let config = Telemetry {
        log_format: LogFormat::Json,
        ..Telemetry::default()
    };
    let text = logged(&config, |_| log_unsafe(UNSAFE));
    let line = text.strip_suffix('\n').unwrap();
    assert!(is_safe(line), "{line:?}");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["text"], UNSAFE);
}

#[test]
fn level_can_change_and_invalid_one_is_refused() {
    let text = logged(&Telemetry::default(), |level| {
        tracing::debug!("before");
        level.reload(parse_level("debug").unwrap()).unwrap();
        tracing::debug!("after");
    });
    assert!(!text.contains("before") && text.contains("after"), "{text}");
    assert!(parse_level("deskbridge=loud").is_err());
}

#[test]
fn blocked_sink_delays_nothing_and_counts_losses() {
    let sink = Sink::default();
    let queue = LineQueue::start(sink.clone(), LogFormat::Text).unwrap();
    let held = sink.0.lock().unwrap();
    let started = Instant::now();
    for line in 0..10 * QUEUE_LINES_MAX {
        writeln!(queue.clone(), "line {line}").unwrap();
    }
    queue.flush_within(Duration::from_millis(10));
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(held);
    wait_until(|| sink.text().contains("log lines did not fit and are lost"));
}

#[test]
fn failing_sink_is_retried() {
    struct Failing(std::sync::mpsc::Sender<()>);
    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.send(()).unwrap();
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let (tried, attempts) = channel();
    let mut queue = LineQueue::start(Failing(tried), LogFormat::Text).unwrap();
    for _ in 0..3 {
        queue.write_all(b"line\n").unwrap();
    }
    for _ in 0..3 {
        attempts.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}

#[test]
fn long_line_is_cut() {
    let text = logged(&Telemetry::default(), |_| {
        tracing::info!("{}", "x".repeat(1 << 20));
    });
    assert!(
        text.len() < LINE_BYTES_MAX + 16 && text.ends_with("…\n"),
        "{}",
        text.len()
    );
}

#[test]
fn long_json_line_can_be_parsed() {
    let config = Telemetry {
        log_format: LogFormat::Json,
        ..Telemetry::default()
    };
    let texts: Vec<_> = (0..100).map(|_| "ü\"\n".repeat(1000)).collect();
    let line = logged(&config, |_| {
        tracing::info!(?texts, kept = 7, "{}", "x".repeat(1 << 20));
    });
    assert!(line.len() <= LINE_BYTES_MAX + 1, "{}", line.len());
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["kept"], 7);
    assert!(line["message"].as_str().unwrap().ends_with("x…"), "{line}");
}

fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}
