//! One finding: what is wrong, what is lost by it, what to type; and what follows from it.

use std::fmt;

use serde::Serialize;

/// What has `serve` declare what is missing.
pub const DECLARE: &str = "`kill -HUP $(pidof deskbridge)` while `serve` runs (`kill -HUP 1` in its container); else start it";

/// Whether a finding stops or loses traffic; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It stops or loses traffic.
    Error,
    /// It does neither, but should be changed.
    Warning,
    /// Information only.
    Note,
}

/// What a finding is about, and may be the cause of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Whether the broker takes our connections and messages at all.
    Broker,
    /// The exchange: that it is there, and routes as it should.
    Exchange(String),
    /// Whether we may publish to that exchange.
    Publishing(String),
    /// The queue: that it is there, and takes messages.
    Queue(String),
    /// Certificates of either side.
    Certificate,
}

/// What is wrong, or good to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it stops or loses traffic, or something that follows from it does.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What is lost by it.
    pub impact: Option<String>,
    /// What to do, or type.
    pub fix: Option<String>,
    /// What is over with it.
    pub consequences: Vec<Self>,
    /// Whether it says what was not looked at.
    #[serde(skip)]
    pub is_unseen: bool,
    #[serde(skip)]
    about: Vec<Subject>,
    #[serde(skip)]
    because: Vec<Subject>,
}

impl Finding {
    /// Something that stops or loses traffic.
    pub fn error(problem: impl Into<String>) -> Self {
        Self::new(Severity::Error, problem)
    }

    /// Something that does not.
    pub fn warning(problem: impl Into<String>) -> Self {
        Self::new(Severity::Warning, problem)
    }

    /// Something to know.
    pub fn note(text: impl Into<String>) -> Self {
        Self::new(Severity::Note, text)
    }

    /// Something that was not looked at.
    pub fn unseen(text: impl Into<String>) -> Self {
        Self {
            is_unseen: true,
            ..Self::note(text)
        }
    }

    /// The same with what is lost by it.
    pub fn losing(self, impact: impl Into<String>) -> Self {
        Self {
            impact: Some(impact.into()),
            ..self
        }
    }

    /// The same with what to do about it.
    pub fn trying(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }

    /// The same about something that is configured and not used.
    pub fn unused(self) -> Self {
        let severity = Severity::Warning;
        Self { severity, ..self }
    }

    /// The same where it also means that something was not looked at.
    pub fn leaving_unseen(self) -> Self {
        Self {
            is_unseen: true,
            ..self
        }
    }

    /// The same as the cause of whatever is [`because`](Self::because) of one of these.
    pub fn about(mut self, subjects: impl IntoIterator<Item = Subject>) -> Self {
        self.about.extend(subjects);
        self
    }

    /// The same as what follows from a finding about one of these, if there is one.
    pub fn because(mut self, subjects: impl IntoIterator<Item = Subject>) -> Self {
        self.because.extend(subjects);
        self
    }

    fn new(severity: Severity, problem: impl Into<String>) -> Self {
        Self {
            severity,
            problem: problem.into(),
            impact: None,
            fix: None,
            consequences: Vec::new(),
            is_unseen: false,
            about: Vec::new(),
            because: Vec::new(),
        }
    }

    /// For people: one line, and one for each consequence. What is to be done is said of the cause.
    pub fn lines(&self) -> Vec<String> {
        let consequences = self.consequences.iter().map(|one| {
            let problem = &one.problem;
            match &one.impact {
                Some(impact) => format!("  so: {problem}; {impact}"),
                None => format!("  so: {problem}"),
            }
        });
        [self.to_string()].into_iter().chain(consequences).collect()
    }

    fn explains(&self, other: &Self) -> bool {
        self.severity != Severity::Note
            && self.about.iter().any(|about| other.because.contains(about))
    }
}

/// Puts what follows from something under it, and the worst first.
pub fn grouped(findings: Vec<Finding>) -> Vec<Finding> {
    let mut causes: Vec<Option<usize>> = vec![None; findings.len()];
    for (index, finding) in findings.iter().enumerate() {
        let explains = |candidate: &usize| {
            findings[*candidate].explains(finding) && root(&causes, *candidate) != index
        };
        let candidates = (0..findings.len()).filter(explains);
        causes[index] = candidates.min_by_key(|candidate| findings[*candidate].severity);
    }
    let roots: Vec<_> = (0..findings.len())
        .map(|index| root(&causes, index))
        .collect();
    let mut slots: Vec<_> = findings.into_iter().map(Some).collect();
    let mut grouped = Vec::new();
    for index in 0..slots.len() {
        if roots[index] != index {
            continue;
        }
        let Some(mut cause) = slots[index].take() else {
            continue;
        };
        for follower in 0..slots.len() {
            if roots[follower] == index && follower != index {
                cause.consequences.extend(slots[follower].take());
            }
        }
        let worst = cause.consequences.iter().map(|one| one.severity).min();
        cause.severity = worst.map_or(cause.severity, |worst| worst.min(cause.severity));
        grouped.push(cause);
    }
    grouped.sort_by_key(|finding| finding.severity);
    grouped
}

/// Which one it follows from in the end.
fn root(causes: &[Option<usize>], mut index: usize) -> usize {
    while let Some(cause) = causes[index] {
        index = cause;
    }
    index
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        write!(formatter, "{severity}: {}", self.problem)?;
        if let Some(impact) = &self.impact {
            write!(formatter, "; {impact}")?;
        }
        if let Some(fix) = &self.fix {
            write!(formatter, "; try: {fix}")?;
        }
        Ok(())
    }
}

/// `1 event`, `2 events`.
pub fn counted(count: impl TryInto<u64>, what: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// A word of a shell's command line.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A regular expression for just these names.
pub fn exactly<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(regex::escape).collect();
    match names.as_slice() {
        [name] => format!("^{name}$"),
        _ => format!("^({})$", names.join("|")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> [Subject; 1] {
        [Subject::Queue(name.into())]
    }

    fn shown(findings: Vec<Finding>) -> String {
        let grouped = grouped(findings);
        let lines: Vec<_> = grouped.iter().flat_map(Finding::lines).collect();
        lines.join("\n")
    }

    #[test]
    fn the_cause_comes_first_with_what_follows() {
        let findings = vec![
            Finding::note("n"),
            Finding::warning("w"),
            Finding::error("route closed").because(queue("a")),
            Finding::warning("slow")
                .because(queue("c"))
                .about(queue("b")),
            Finding::warning("missing").about(queue("a")),
            Finding::error("late").because(queue("b")),
        ];
        assert_eq!(
            shown(findings),
            "error: slow\n  so: late\nerror: missing\n  so: route closed\nwarning: w\nnote: n"
        );
    }

    #[test]
    fn what_follows_from_a_consequence_has_one_cause() {
        let chain = vec![
            Finding::error("third").because(queue("b")),
            Finding::error("second")
                .because(queue("a"))
                .about(queue("b")),
            Finding::error("first").about(queue("a")),
        ];
        assert_eq!(shown(chain), "error: first\n  so: third\n  so: second");
    }

    #[test]
    fn two_that_explain_each_other_are_both_shown() {
        let circle = vec![
            Finding::error("one").because(queue("a")).about(queue("b")),
            Finding::error("two").because(queue("b")).about(queue("a")),
        ];
        let shown = shown(circle);
        assert!(shown.contains("one") && shown.contains("two"), "{shown}");
    }
}
