//! The last line: all findings in one word. Pure.

use std::fmt;

use serde::Serialize;

use super::finding::{Finding, Severity, counted};

/// All findings in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was looked at, and nothing is wrong.
    Healthy,
    /// Something is not as it should be, but stops and loses nothing.
    Degraded,
    /// Traffic stops, or what was confirmed can be lost.
    Failing,
    /// Nothing wrong was found, but not everything could be looked at.
    Incomplete,
}

/// The verdict and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The word.
    pub verdict: Verdict,
    /// Causes that stop or lose traffic.
    pub errors: usize,
    /// Causes that do not.
    pub warnings: usize,
    /// What could not be looked at.
    pub not_inspected: Vec<String>,
}

impl Summary {
    /// Of findings that are [grouped](super::finding::grouped).
    pub fn of(findings: &[Finding]) -> Self {
        let count = |severity| {
            let of_it = findings.iter().filter(|one| one.severity == severity);
            of_it.count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let unseen = findings
            .iter()
            .flat_map(|one| one.consequences.iter().chain([one]))
            .filter(|one| one.is_unseen);
        let not_inspected: Vec<_> = unseen.map(|one| one.problem.clone()).collect();
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
        let (errors, warnings) = (
            counted(self.errors, "error"),
            counted(self.warnings, "warning"),
        );
        let and = match self.warnings {
            0 => String::new(),
            _ => format!(", {warnings}"),
        };
        let unseen = match self.not_inspected.len() {
            0 => "",
            _ => "; not everything could be inspected",
        };
        match self.verdict {
            Verdict::Healthy => write!(formatter, "healthy: nothing stops or loses traffic"),
            Verdict::Degraded => write!(
                formatter,
                "degraded: {warnings}, and nothing that stops or loses traffic{unseen}"
            ),
            Verdict::Failing => write!(
                formatter,
                "failing: {errors}{and}; traffic stops or can be lost{unseen}"
            ),
            Verdict::Incomplete => write!(
                formatter,
                "incomplete: nothing that was inspected stops or loses traffic{unseen}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(findings: &[Finding], expected: &str) {
        let shown = Summary::of(findings).to_string();
        assert!(shown.starts_with(expected), "{shown}\n{expected}");
    }

    #[test]
    fn one_word_says_the_worst() {
        let (note, unseen) = (Finding::note("n"), Finding::unseen("u"));
        let (warning, error) = (Finding::warning("w"), Finding::error("e"));
        check(&[], "healthy: ");
        check(std::slice::from_ref(&note), "healthy: ");
        check(std::slice::from_ref(&unseen), "incomplete: ");
        check(&[warning.clone(), note], "degraded: 1 warning, ");
        check(
            &[warning.clone(), error, unseen.clone()],
            "failing: 1 error, 1 warning; ",
        );
        check(&[warning.clone(), unseen], "degraded: 1 warning, ");
        check(&[warning.leaving_unseen()], "degraded: 1 warning, ");
    }
}
