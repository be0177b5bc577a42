//! What the archive indexes and how it is queried. The document of a row of `webhooks` is the words
//! of its events. The query is an FTS5 expression that matches every row with a selected event. It
//! may match other rows, too; each event that is found is compared with the selection.

use std::collections::HashSet;
use std::fmt::Write;

use uuid::Uuid;

use super::Selection;
use crate::journal::stored::{self, Part};
use crate::webhook::routing::STATUSES;
use crate::webhook::search::{Phrase, append_words, each_text};
use crate::webhook::{Content, cut};

/// Begins every mark. No word of a text begins with it, so marks and texts cannot be confused.
const MARK: char = '§';
/// A longer word is truncated.
const WORD_BYTES_MAX: usize = 64;
/// Texts of a row that are remembered, and the length up to which a text is. A remembered text is
/// not added again: the sessions of a webhook have companies, people and types in common.
const TEXTS_KNOWN_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 128;
/// Alternatives in one expression. A longer list is not part of the expression.
const ALTERNATIVES_MAX: usize = 64;
/// Words of a phrase in one expression. Further words are not part of it.
const PHRASE_WORDS_MAX: usize = 16;

/// Builds documents and reuses its buffers.
#[derive(Debug, Default)]
pub(super) struct Documents {
    document: String,
    words: String,
    /// The remembered texts of the row.
    texts: HashSet<String>,
}

impl Documents {
    /// Builds the document of a row, which must have been read with its bodies.
    pub(super) fn of(&mut self, part: &Part) -> &str {
        self.document.clear();
        self.texts.clear();
        mark(&mut self.document, 's', &part.envelope.source);
        let damaged = stored::damaged();
        for seq in part.seqs() {
            mark(&mut self.document, 'm', &message_mark(part.message_id(seq)));
            let content = part.content(seq).unwrap_or(&damaged);
            match content {
                Content::Session(fields) if STATUSES.contains(&&*fields.status) => {}
                Content::Session(_) => mark(&mut self.document, 'o', ""),
                Content::Reject(reject) => mark(&mut self.document, 'r', reject.reason.as_str()),
            }
            let body = part.body(seq).unwrap_or_default();
            each_text(content, body, |text| self.add(text));
        }
        &self.document
    }

    fn add(&mut self, text: &str) {
        if self.is_known(text) {
            return;
        }
        self.words.clear();
        append_words(text, &mut self.words);
        for word in self.words.split_ascii_whitespace() {
            self.document.push_str(cut(word, WORD_BYTES_MAX));
            self.document.push(' ');
        }
    }

    /// Whether the document already contains a text. If not, the text is remembered, and the caller
    /// must add it.
    fn is_known(&mut self, text: &str) -> bool {
        if text.len() > TEXT_BYTES_MAX {
            return false;
        }
        let is_known = self.texts.contains(text);
        if !is_known && self.texts.len() < TEXTS_KNOWN_MAX {
            self.texts.insert(text.to_owned());
        }
        is_known
    }
}

/// The expression of a selection; `None` if none of its conditions is in the archive.
pub(super) fn expression(selection: &Selection) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    all.extend(selection.search.phrases().filter_map(of_phrase));
    all.extend(any(&selection.sessions, |session| of_text(session)));
    all.extend(any(&selection.sources, |source| Some(of_mark('s', source))));
    all.extend(of_statuses(selection));
    all.extend(
        selection
            .message_id
            .map(|id| of_mark('m', &message_mark(id))),
    );
    (!all.is_empty()).then(|| all.join(" AND "))
}

fn of_statuses(selection: &Selection) -> Option<String> {
    let others = match &selection.statuses_but {
        // The mark `o` stands for every status that is not one of the known ones.
        Some(but)
            if STATUSES
                .iter()
                .all(|known| but.iter().any(|one| one == known)) =>
        {
            Some(of_mark('o', ""))
        }
        Some(_) => return None,
        None => None,
    };
    let status = |status: &String| {
        let reject = of_mark('r', status);
        Some(format!("({reject} OR {})", of_text(status)?))
    };
    let named = any(&selection.statuses, status);
    match (named, others) {
        (None, others) if selection.statuses.is_empty() => others,
        (Some(named), Some(others)) => Some(format!("({named} OR {others})")),
        (named, _) => named,
    }
}

/// An expression that matches any of these texts; `None` if one of them cannot be searched for.
fn any(texts: &[String], of: impl Fn(&String) -> Option<String>) -> Option<String> {
    if texts.is_empty() || texts.len() > ALTERNATIVES_MAX {
        return None;
    }
    let all: Option<Vec<_>> = texts.iter().map(of).collect();
    Some(format!("({})", all?.join(" OR ")))
}

fn of_text(text: &str) -> Option<String> {
    text.parse().ok().as_ref().and_then(of_phrase)
}

fn of_phrase(phrase: &Phrase) -> Option<String> {
    let words = phrase.words().take(PHRASE_WORDS_MAX);
    let quoted: Vec<_> = words
        .map(|word| format!("\"{}\"", cut(word, WORD_BYTES_MAX)))
        .collect();
    (!quoted.is_empty()).then(|| format!("({})", quoted.join(" AND ")))
}

fn of_mark(kind: char, text: &str) -> String {
    let mut word = String::new();
    mark(&mut word, kind, text);
    format!("\"{}\"", word.trim_end())
}

/// Appends a mark: a single word, whatever characters the text has.
fn mark(document: &mut String, kind: char, text: &str) {
    let _ = write!(document, "{MARK}{kind}");
    let parts = text.chars().filter(|character| character.is_alphanumeric());
    document.extend(parts.flat_map(char::to_lowercase));
    document.push(' ');
}

/// The first 32 bits of a `message_id`, which distinguish nearly all of them.
fn message_mark(message_id: Uuid) -> String {
    format!("{:08x}", message_id.as_fields().0)
}
