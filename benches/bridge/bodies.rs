//! Chat sessions as DeskDirector documents them, assembled from fixed texts: generating a million
//! of them must not cost more than the measured work.

use serde::{Deserialize, Serialize};

const SAMPLE: &str = include_str!("../../tests/data/completed.json");
const STATUSES: [&str; 3] = ["created", "handled", "completed"];
const MARKS: [&str; 3] = ["@id@", "@status@", "@company@"];

/// The shape of a load's sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shape {
    /// Number of distinct session ids; more sessions than that are further events of the same ids.
    pub distinct: usize,
    /// Number of distinct companies.
    pub companies: usize,
    /// Number of distinct statuses, at most three.
    pub statuses: usize,
    /// Bytes of an element; `None`: as long as the published example.
    pub bytes: Option<usize>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            distinct: usize::MAX,
            companies: 1,
            statuses: STATUSES.len(),
            bytes: None,
        }
    }
}

/// Generates elements.
pub struct Elements {
    shape: Shape,
    /// Unique to this load, so that its session ids are.
    prefix: String,
    /// The text before each mark of [`MARKS`], in the order of the text, and the text after the
    /// last.
    pieces: Vec<(String, Option<usize>)>,
}

impl Elements {
    pub fn new(shape: Shape) -> Self {
        let prefix = uuid::Uuid::new_v4().simple().to_string();
        let pieces = pieces(&template(&shape, prefix.len()));
        Self {
            shape,
            prefix,
            pieces,
        }
    }

    /// The element with this number.
    pub fn element(&self, number: usize) -> Vec<u8> {
        let shape = &self.shape;
        // Ids of equal length, so that all elements have equal length.
        let id = format!("{}-{:07}", self.prefix, number % shape.distinct);
        let status = STATUSES[(number / shape.distinct + number) % shape.statuses];
        let company = format!("company-{:03}", number % shape.companies);
        let values = [id.as_str(), status, company.as_str()];
        let mut element = String::with_capacity(2048);
        for (text, mark) in &self.pieces {
            element.push_str(text);
            element.push_str(mark.map_or("", |mark| values[mark]));
        }
        element.into_bytes()
    }

    /// The elements of one webhook.
    pub fn array(&self, numbers: std::ops::Range<usize>) -> Vec<u8> {
        let elements: Vec<_> = numbers.map(|number| self.element(number)).collect();
        [b"[", elements.join(&b","[..]).as_slice(), b"]"].concat()
    }
}

fn template(shape: &Shape, prefix_bytes: usize) -> String {
    let Some(bytes) = shape.bytes else {
        let sample: serde_json::Value = serde_json::from_str(SAMPLE).expect("JSON");
        let mut session = sample[0].clone();
        session["id"] = MARKS[0].into();
        session["status"] = MARKS[1].into();
        session["creator"]["company"]["identifier"] = MARKS[2].into();
        return session.to_string();
    };
    let head = format!(
        r#"{{"id":"{}","status":"{}","type":"request","creator":{{"company":{{"identifier":"{}"}}}},"note":""#,
        MARKS[0], MARKS[1], MARKS[2]
    );
    let written = head.len() + prefix_bytes;
    format!("{head}{}\"}}", "x".repeat(bytes.saturating_sub(written)))
}

fn pieces(template: &str) -> Vec<(String, Option<usize>)> {
    let mut rest = template;
    let mut pieces = Vec::new();
    let next = |rest: &str| {
        let found = MARKS.iter().enumerate();
        let found = found.filter_map(|(mark, text)| Some((rest.find(text)?, mark)));
        found.min()
    };
    while let Some((at, mark)) = next(rest) {
        pieces.push((rest[..at].to_owned(), Some(mark)));
        rest = &rest[at + MARKS[mark].len()..];
    }
    pieces.push((rest.to_owned(), None));
    pieces
}
