//! What can be searched for in an event: the words of its text. Pure; does not know the index.
//!
//! The text of an event is every string value of its body, except those of members whose name ends
//! with `Id` or `DateTime`. A malformed body is one text. A word is a run of letters and digits,
//! compared case-insensitively.

use std::str::FromStr;

use super::session::{ChatSession, Lenient, User};
use super::split::strings::each_value;
use super::{Content, DeadLetterReason, Event};

/// Words that follow each other in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// In lower case, each with a space before and after it.
    words: String,
}

/// A phrase without any word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected at least one letter or digit")]
pub struct NoWord;

/// What the text of an event must contain: all phrases that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Anywhere in the text.
    pub text: Option<Phrase>,
    /// In the name or the identifier of the creator's company.
    pub company: Option<Phrase>,
    /// In the name of a person: the creator, or one of `users`, `participants` and `targetUsers`.
    pub name: Option<Phrase>,
}

impl FromStr for Phrase {
    type Err = NoWord;

    fn from_str(text: &str) -> Result<Self, NoWord> {
        let words = bounded_words(text);
        if words.trim().is_empty() {
            return Err(NoWord);
        }
        Ok(Self { words })
    }
}

impl Phrase {
    /// The words, in lower case.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.split_ascii_whitespace()
    }

    fn is_in(&self, text: &str) -> bool {
        bounded_words(text).contains(&self.words)
    }
}

impl Search {
    /// Whether no phrase is given, so that every event matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.phrases().next().is_none()
    }

    /// All given phrases.
    pub fn phrases(&self) -> impl Iterator<Item = &Phrase> {
        let phrases = [&self.text, &self.company, &self.name];
        phrases.into_iter().flatten()
    }

    /// Whether an event matches. Its body must be in memory.
    #[must_use]
    pub fn selects(&self, event: &Event) -> bool {
        let mut missing: Vec<_> = self.phrases().collect();
        each_text(&event.content, &event.body, |text| {
            if !missing.is_empty() {
                let text = bounded_words(text);
                missing.retain(|phrase| !text.contains(&phrase.words));
            }
        });
        missing.is_empty() && self.selects_people(event)
    }

    fn selects_people(&self, event: &Event) -> bool {
        if self.company.is_none() && self.name.is_none() {
            return true;
        }
        let session = serde_json::from_slice::<Lenient<ChatSession>>(&event.body).ok();
        let Some(session) = session.as_ref().and_then(Lenient::get) else {
            return false;
        };
        let is_in = |phrase: &Phrase, text: &Lenient<String>| {
            text.get().is_some_and(|text| phrase.is_in(text))
        };
        let creator = session.creator.get();
        let company = creator.and_then(|creator| creator.company.get());
        let is_company = |phrase: &Phrase| {
            company.is_some_and(|company| {
                is_in(phrase, &company.name) || is_in(phrase, &company.identifier)
            })
        };
        let is_name = |phrase: &Phrase| {
            let mut people = creator.into_iter().chain(people(session));
            people.any(|person| is_in(phrase, &person.name))
        };
        self.company.as_ref().is_none_or(is_company) && self.name.as_ref().is_none_or(is_name)
    }
}

fn people(session: &ChatSession) -> impl Iterator<Item = &User> {
    let lists = [&session.users, &session.participants, &session.target_users];
    let people = lists.into_iter().filter_map(Lenient::get).flatten();
    people.filter_map(Lenient::get)
}

/// Calls `take` with each text of an event.
pub fn each_text(content: &Content, body: &[u8], mut take: impl FnMut(&str)) {
    let is_malformed =
        matches!(content, Content::Reject(reject) if reject.reason == DeadLetterReason::Malformed);
    match str::from_utf8(body) {
        Ok(json) if !is_malformed => each_value(json, |key, value| {
            if !key.ends_with("Id") && !key.ends_with("DateTime") {
                take(&value);
            }
        }),
        _ => take(&String::from_utf8_lossy(body)),
    }
}

/// Appends the words of a text, each in lower case and followed by a space.
pub fn append_words(text: &str, words: &mut String) {
    let mut is_inside = false;
    for character in text.chars() {
        let is_part = character.is_alphanumeric();
        if character.is_ascii_alphanumeric() {
            words.push(character.to_ascii_lowercase());
        } else if is_part {
            words.extend(character.to_lowercase());
        } else if is_inside {
            words.push(' ');
        }
        is_inside = is_part;
    }
    if is_inside {
        words.push(' ');
    }
}

fn bounded_words(text: &str) -> String {
    let mut words = String::with_capacity(text.len() + 2);
    words.push(' ');
    append_words(text, &mut words);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::samples::{COMPLETED, event};

    fn phrase(text: &str) -> Phrase {
        text.parse().unwrap()
    }

    fn selects(search: &Search, body: &[u8]) -> bool {
        search.selects(&event(body.to_vec()))
    }

    fn text(text: &str) -> Search {
        Search {
            text: Some(phrase(text)),
            ..Search::default()
        }
    }

    #[test]
    fn phrase_matches_adjacent_words() {
        for found in [
            "liam tait",
            "LIAM",
            "from Liam Tait at",
            "deskdirectorltd",
            "1530162945-9852",
            "completed",
        ] {
            assert!(selects(&text(found), COMPLETED), "{found}");
        }
        for absent in [
            "tait liam",
            "lia",
            "Tait DeskDirector",
            "creator",
            "nzlancomdev",
            "2018",
        ] {
            assert!(!selects(&text(absent), COMPLETED), "{absent}");
        }
        assert!(selects(&text("not json"), b"<p>Not JSON</p>"));
        assert!(selects(
            &text("MÜLLER"),
            br#"{"id":"a","status":"x","n":"m\u00fcller"}"#
        ));
        assert_eq!("-- !".parse::<Phrase>(), Err(NoWord));
    }

    #[test]
    fn company_and_name_match_only_their_fields() {
        let company = |name| Search {
            company: Some(phrase(name)),
            ..Search::default()
        };
        let name = |name| Search {
            name: Some(phrase(name)),
            ..Search::default()
        };
        for (search, expected) in [
            (company("DeskDirector"), true),
            (company("deskdirectorltd"), true),
            (company("Liam"), false),
            (name("liam tait"), true),
            (name("Warwick"), true),
            (name("DeskDirector"), false),
            (name("Chat Request"), false),
        ] {
            assert_eq!(selects(&search, COMPLETED), expected, "{search:?}");
        }
        let both = Search {
            text: Some(phrase("handled")),
            ..name("Liam")
        };
        assert!(selects(&both, COMPLETED));
        assert!(!selects(&name("Liam"), b"Liam, but no JSON"));
    }
}
