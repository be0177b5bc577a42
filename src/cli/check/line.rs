//! One line of the result: what is wrong, what is lost by it, what to type.

use std::fmt;

use serde::Serialize;

/// What has `serve` declare what is missing.
pub const DECLARE: &str = "`kill -HUP $(pidof deskbridge)` while `serve` runs (`kill -HUP 1` in its container); else start it";

/// Whether a finding stops or loses traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but is not what people want.
    Warning,
    /// Nothing is wrong; something to know.
    Note,
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Whether it stops or loses traffic.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What is lost by it.
    pub lost: Option<String>,
    /// What to do, or type.
    pub advice: Option<String>,
    /// Whether it says what was not looked at.
    #[serde(skip)]
    pub is_unseen: bool,
}

impl Line {
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
    pub fn losing(self, lost: impl Into<String>) -> Self {
        Self {
            lost: Some(lost.into()),
            ..self
        }
    }

    /// The same with what to do about it.
    pub fn trying(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    /// The same about something that is configured and not used.
    pub fn unused(self) -> Self {
        let severity = Severity::Warning;
        Self { severity, ..self }
    }

    fn new(severity: Severity, problem: impl Into<String>) -> Self {
        Self {
            severity,
            problem: problem.into(),
            lost: None,
            advice: None,
            is_unseen: false,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        write!(formatter, "{severity}: {}", self.problem)?;
        if let Some(lost) = &self.lost {
            write!(formatter, "; {lost}")?;
        }
        match &self.advice {
            Some(advice) => write!(formatter, "; try: {advice}"),
            None => Ok(()),
        }
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
