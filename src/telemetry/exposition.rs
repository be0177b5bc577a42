//! The text that Prometheus scrapes: registries encoded in its classic text format, whose `TYPE`
//! lines carry the names of the series. Knows no particular metric.

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

/// The prefix of every metric name, without the underscore.
pub const PREFIX: &str = "deskbridge";

/// The `Content-Type` of a page from [`classic`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Encodes all registries as one page.
///
/// # Panics
/// Never: writing to a string cannot fail.
///
/// `OpenMetrics` names a counter's family without the `_total` that its series carry; the classic
/// format requires the name of the series. The suffix is therefore added here.
#[must_use]
pub fn classic(registries: &[&Registry]) -> String {
    let mut page = String::with_capacity(16 << 10);
    for registry in registries {
        let mut text = String::with_capacity(8 << 10);
        encode_registry(&mut text, registry).expect("writing to a string cannot fail");
        append_classic(&text, &mut page);
    }
    page
}

fn append_classic(text: &str, page: &mut String) {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let suffix = match lines.peek() {
            Some(next) if line.starts_with("# HELP ") && next.ends_with(" counter") => "_total",
            _ if line.starts_with("# TYPE ") && line.ends_with(" counter") => "_total",
            _ => "",
        };
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", word, name, rest] => {
                page.extend(["# ", word, " ", name, suffix, " ", rest, "\n"]);
            }
            _ => page.extend([line, "\n"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn metric_names_match_their_series() {
        let mut registry = Registry::with_prefix(PREFIX);
        let counter = Counter::<u64>::default();
        counter.inc_by(3);
        registry.register("things", "Things that happened", counter);
        registry.register("level_total", "Not a counter", Gauge::<i64>::default());
        assert_eq!(
            classic(&[&registry]),
            "# HELP deskbridge_things_total Things that happened.\n\
             # TYPE deskbridge_things_total counter\n\
             deskbridge_things_total 3\n\
             # HELP deskbridge_level_total Not a counter.\n\
             # TYPE deskbridge_level_total gauge\n\
             deskbridge_level_total 0\n"
        );
    }
}
