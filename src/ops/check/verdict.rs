//! The verdict, which is the last line: all findings in one word. Pure.

use std::fmt;

use serde::Serialize;

use super::finding::{Finding, Severity};
use crate::ops::counted;

/// All findings in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was inspected, and nothing is wrong.
    Healthy,
    /// Something is wrong, but it neither stops nor loses traffic.
    Degraded,
    /// Traffic stops, or messages that the broker has confirmed can be lost.
    Failing,
    /// Nothing wrong was found, but not everything could be inspected.
    Incomplete,
}

/// The verdict and the counts that it is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The verdict.
    pub verdict: Verdict,
    /// Number of errors, without consequences.
    pub errors: usize,
    /// Number of warnings, without consequences.
    pub warnings: usize,
    /// What could not be inspected.
    pub not_inspected: Vec<String>,
}

impl Summary {
    /// Summarizes findings that are [grouped](super::finding::Findings::grouped).
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        let count = |severity| {
            let of_it = findings.iter().filter(|one| one.severity == severity);
            of_it.count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let not_inspected = findings
            .iter()
            .flat_map(|one| one.consequences.iter().chain([one]))
            .filter(|one| one.is_unseen);
        let not_inspected: Vec<_> = not_inspected.map(|one| one.problem.clone()).collect();
        let verdict = match (errors, warnings, not_inspected.len()) {
            (0, 0, 0) => Verdict::Healthy,
            (0, 0, _) => Verdict::Incomplete,
            (0, _, _) => Verdict::Degraded,
            _ => Verdict::Failing,
        };
        Self {
            verdict,
            errors,
            warnings,
            not_inspected,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [(self.errors, "error"), (self.warnings, "warning")];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, what)| counted(count, what)).collect();
        let counts = counts.join(", ");
        match self.verdict {
            Verdict::Healthy => write!(
                formatter,
                "healthy: nothing stops webhooks or events, or loses messages"
            ),
            Verdict::Degraded => write!(
                formatter,
                "degraded: {counts}, and nothing that stops webhooks or events, or loses messages"
            ),
            Verdict::Failing => {
                write!(
                    formatter,
                    "failing: {counts}; webhooks or events stop, or messages can be lost"
                )
            }
            Verdict::Incomplete => write!(
                formatter,
                "incomplete: nothing that was inspected stops webhooks or events, or loses messages"
            ),
        }?;
        if !self.not_inspected.is_empty() {
            write!(formatter, "; not everything could be inspected")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Findings;
    use super::*;

    fn check(kinds: &[&str], expected: &str) {
        let mut list = Findings::default();
        for kind in kinds {
            match *kind {
                "note" => list.note("n"),
                "unseen" => list.note("u").not_inspected(),
                "warning" => list.warning("w"),
                "unseen warning" => list.warning("w").not_inspected(),
                _ => list.error("e"),
            };
        }
        let shown = Summary::of(&list.0).to_string();
        assert!(shown.starts_with(expected), "{shown}\n{expected}");
    }

    #[test]
    fn verdict_is_the_worst_severity() {
        check(&[], "healthy: ");
        check(&["note"], "healthy: ");
        check(&["unseen"], "incomplete: ");
        check(&["warning", "note"], "degraded: 1 warning, ");
        check(
            &["warning", "error", "unseen"],
            "failing: 1 error, 1 warning; ",
        );
        check(&["warning", "unseen"], "degraded: 1 warning, ");
        check(&["unseen warning"], "degraded: 1 warning, ");
    }
}
