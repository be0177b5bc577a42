//! The Prometheus text format, parsed into a map.

use std::collections::BTreeMap;

/// One scrape: values by `name{label="value",…}`, exactly as in the text.
#[derive(Debug, Clone)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// Parses the text format; panics at an invalid line.
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(samples.map(parse_sample).collect())
    }

    /// The sum over all label sets of a metric, 0 if there is none. The name is without the common
    /// prefix: `sum("sessions_accepted_total")`.
    pub fn sum(&self, name: &str) -> f64 {
        self.matching(name, &[]).map(|(_, value)| value).sum()
    }

    /// The sum over the samples that have these labels.
    pub fn sum_where(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// Metric names without labels.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.keys().map(|sample| bare(sample)).collect();
        names.dedup();
        names
    }

    fn matching<'a>(
        &'a self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> impl Iterator<Item = (&'a String, f64)> {
        let name = format!("deskbridge_{name}");
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        self.0
            .iter()
            .filter(move |(sample, _)| {
                bare(sample) == name && labels.iter().all(|label| sample.contains(label.as_str()))
            })
            .map(|(sample, value)| (sample, *value))
    }
}

fn bare(sample: &str) -> &str {
    sample.split('{').next().unwrap()
}

fn parse_sample(line: &str) -> (String, f64) {
    let end_of_labels = line.rfind('}').map_or(0, |position| position + 1);
    let value_at = end_of_labels
        + line[end_of_labels..]
            .find(' ')
            .unwrap_or_else(|| panic!("not a sample: {line}"));
    let value = line[value_at..].split_whitespace().next().unwrap();
    (
        line[..value_at].to_owned(),
        value
            .parse()
            .unwrap_or_else(|_| panic!("not a sample: {line}")),
    )
}
