//! One finding: what is wrong, what is lost because of it, what to type, and its consequences.

use std::fmt;

use crate::rabbitmq::topology::Object;
use serde::Serialize;

use crate::rabbitmq::snapshot::FoundQueue;

/// The severity of a finding; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Stops or loses traffic.
    Error,
    /// Neither stops nor loses traffic, but should be fixed.
    Warning,
    /// Information only.
    Note,
}

impl Severity {
    /// An error, or else a warning.
    #[must_use]
    pub fn of(is_error: bool) -> Self {
        if is_error { Self::Error } else { Self::Warning }
    }
}

/// What a finding is about. It links causes and their consequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Whether the broker accepts connections and messages at all.
    Broker,
    /// Whether the exchange exists and routes as planned.
    Exchange(String),
    /// Whether the bridge may publish to the exchange.
    Publishing(String),
    /// Whether the queue exists and accepts messages.
    Queue(String),
    /// Whether the certificates of both sides are valid.
    Certificate,
}

/// Something that is wrong, or a note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity: its own, or that of its worst consequence.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What is lost because of it.
    pub impact: Option<String>,
    /// What to do, or to type.
    pub fix: Option<String>,
    /// Findings that are solved together with this one.
    pub consequences: Vec<Self>,
    /// Whether it means that something was not inspected.
    #[serde(skip)]
    pub is_unseen: bool,
    #[serde(skip)]
    about: Vec<Subject>,
    #[serde(skip)]
    because: Vec<Subject>,
    /// Whether it is as severe as its consequences.
    takes_severity: bool,
}

/// The findings so far. Each method adds one, which the methods of [`Finding`] complete.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// A finding that stops or loses traffic.
    pub fn error(&mut self, problem: impl Into<String>) -> &mut Finding {
        self.add(Severity::Error, problem)
    }

    /// A finding that does not stop or lose traffic but should be fixed.
    pub fn warning(&mut self, problem: impl Into<String>) -> &mut Finding {
        self.add(Severity::Warning, problem)
    }

    /// Information only.
    pub fn note(&mut self, text: impl Into<String>) -> &mut Finding {
        self.add(Severity::Note, text)
    }

    /// A finding of this severity.
    pub fn add(&mut self, severity: Severity, problem: impl Into<String>) -> &mut Finding {
        self.0.push_mut(Finding {
            severity,
            problem: problem.into(),
            impact: None,
            fix: None,
            consequences: Vec::new(),
            is_unseen: false,
            about: Vec::new(),
            because: Vec::new(),
            takes_severity: false,
        })
    }

    /// Moves consequences below their causes, and sorts the causes by severity, the worst first.
    pub fn grouped(self) -> Vec<Finding> {
        let findings = self.0;
        let mut causes: Vec<Option<usize>> = vec![None; findings.len()];
        for (index, finding) in findings.iter().enumerate() {
            let explains = |candidate: &usize| {
                findings[*candidate].explains(finding) && root(&causes, *candidate) != index
            };
            let candidates = (0..findings.len()).filter(explains);
            causes[index] = candidates.min_by_key(|candidate| findings[*candidate].severity);
        }
        let of_group = findings.into_iter().enumerate().map(|(index, finding)| {
            let root = root(&causes, index);
            (root, root != index, finding)
        });
        let mut of_group: Vec<_> = of_group.collect();
        of_group.sort_by_key(|(root, is_consequence, _)| (*root, *is_consequence));
        let mut grouped: Vec<Finding> = Vec::new();
        for (_, is_consequence, finding) in of_group {
            match grouped.last_mut().filter(|_| is_consequence) {
                Some(cause) => {
                    cause.severity = cause.severity.min(finding.severity);
                    cause.consequences.push(finding);
                }
                None => grouped.push(finding),
            }
        }
        grouped.sort_by_key(|finding| finding.severity);
        grouped
    }
}

/// The index of the root cause.
fn root(causes: &[Option<usize>], mut index: usize) -> usize {
    while let Some(cause) = causes[index] {
        index = cause;
    }
    index
}

impl Finding {
    /// Sets what is lost because of it.
    pub fn impact(&mut self, impact: impl Into<String>) -> &mut Self {
        self.impact = Some(impact.into());
        self
    }

    /// Sets what to do about it.
    pub fn fix(&mut self, fix: impl Into<String>) -> &mut Self {
        self.fix = Some(fix.into());
        self
    }

    /// Marks that it is as severe as its consequences.
    pub fn takes_severity(&mut self) -> &mut Self {
        self.takes_severity = true;
        self
    }

    /// Marks that it also means that something was not inspected.
    pub fn not_inspected(&mut self) -> &mut Self {
        self.is_unseen = true;
        self
    }

    /// Makes it a possible cause of every finding that is [`because`](Self::because) of one of
    /// these subjects.
    pub fn about(&mut self, subjects: impl IntoIterator<Item: Into<Subject>>) -> &mut Self {
        self.about.extend(subjects.into_iter().map(Into::into));
        self
    }

    /// Makes it a consequence of a finding [`about`](Self::about) one of these subjects, if there
    /// is one.
    pub fn because(&mut self, subjects: impl IntoIterator<Item: Into<Subject>>) -> &mut Self {
        self.because.extend(subjects.into_iter().map(Into::into));
        self
    }

    /// Lines of text: one for the finding, and one for each consequence. Only the cause has a fix.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let consequences = self.consequences.iter().map(|one| {
            let problem = &one.problem;
            match &one.impact {
                Some(impact) => format!("  consequence: {problem}; {impact}"),
                None => format!("  consequence: {problem}"),
            }
        });
        [self.to_string()].into_iter().chain(consequences).collect()
    }

    /// A finding is caused only by one that is at least as severe, or becomes so by it.
    fn explains(&self, other: &Self) -> bool {
        self.severity != Severity::Note
            && (self.takes_severity || self.severity <= other.severity)
            && self.about.iter().any(|about| other.because.contains(about))
    }
}

impl From<&FoundQueue> for Subject {
    fn from(queue: &FoundQueue) -> Self {
        Self::Queue(queue.name.clone())
    }
}

impl From<&Object> for Subject {
    fn from(object: &Object) -> Self {
        match object {
            Object::Exchange(exchange) => Self::Exchange(exchange.name.clone()),
            Object::Queue(queue) => Self::Queue(queue.name.clone()),
            Object::Binding(binding) => Self::Queue(binding.queue.clone()),
        }
    }
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

/// The names in backquotes, separated by commas.
pub fn listed(names: impl IntoIterator<Item: fmt::Display>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
impl Findings {
    /// Checks the findings, in order, by the beginnings of their lines.
    #[track_caller]
    pub fn begin_with(&self, expected: &[&str]) {
        let found: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        let mut pairs = found.iter().zip(expected);
        let fits = pairs.all(|(found, expected)| found.starts_with(expected));
        let is_it = fits && found.len() == expected.len();
        assert!(is_it, "{found:#?}\nexpected {expected:#?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> [Subject; 1] {
        [Subject::Queue(name.into())]
    }

    #[track_caller]
    fn check(list: Findings, expected: &str) {
        let lines: Vec<_> = list.grouped().iter().flat_map(Finding::lines).collect();
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn cause_comes_before_its_consequences() {
        let mut list = Findings::default();
        list.note("n");
        list.warning("w");
        list.error("route closed").because(queue("a"));
        list.warning("slow").because(queue("c")).about(queue("b"));
        list.warning("missing").about(queue("a")).takes_severity();
        list.error("late").because(queue("b"));
        check(
            list,
            "error: missing\n  consequence: route closed\nerror: late\nwarning: w\nwarning: slow\nnote: n",
        );
    }

    #[test]
    fn chained_consequences_have_one_cause() {
        let mut chain = Findings::default();
        chain.error("third").because(queue("b"));
        chain.error("second").because(queue("a")).about(queue("b"));
        chain.error("first").about(queue("a"));
        check(
            chain,
            "error: first\n  consequence: third\n  consequence: second",
        );
    }

    #[test]
    fn circular_causes_are_both_shown() {
        let mut circle = Findings::default();
        circle.error("one").because(queue("a")).about(queue("b"));
        circle.error("two").because(queue("b")).about(queue("a"));
        check(circle, "error: two\n  consequence: one");
    }
}
