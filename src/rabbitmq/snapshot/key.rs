//! Routing keys in which some words depend on the session, and the binding keys that they can
//! match.

use std::fmt;

/// A routing key as a list of words; a word that depends on the session is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern(Vec<Option<String>>);

impl KeyPattern {
    /// A key in which every word is known.
    #[must_use]
    pub fn literal(key: &str) -> Self {
        Self(words(key).map(|word| Some(word.into())).collect())
    }

    /// A key in which a word with a placeholder, such as `{company}`, depends on the session.
    #[must_use]
    pub fn template(address: &str) -> Self {
        let known = |word: &str| (!word.contains('{')).then(|| word.to_owned());
        Self(words(address).map(known).collect())
    }

    /// Whether the key of some session can be equal to `key`.
    #[must_use]
    pub fn may_be(&self, key: &str) -> bool {
        let key: Vec<_> = words(key).collect();
        let mut pairs = self.0.iter().zip(&key);
        key.len() == self.0.len() && pairs.all(|(ours, word)| fits(ours.as_ref(), word))
    }

    /// Whether the key of some session can match this binding key of a topic exchange.
    #[must_use]
    pub fn may_match(&self, pattern: &str) -> bool {
        let pattern: Vec<_> = words(pattern).collect();
        matches(&self.0, &pattern)
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().map(|word| word.as_deref().unwrap_or("*"));
        formatter.write_str(&words.collect::<Vec<_>>().join("."))
    }
}

/// The words of a key; the empty key has none.
fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').filter(move |_| !key.is_empty())
}

fn fits(ours: Option<&String>, word: &str) -> bool {
    ours.is_none_or(|ours| ours == word)
}

/// Matches with backtracking to the last `#` only: the words that it stands for grow until the rest
/// matches. The time is therefore bounded by the product of both lengths.
fn matches(key: &[Option<String>], pattern: &[&str]) -> bool {
    let (mut at, mut next, mut retry) = (0, 0, None);
    while at < key.len() {
        match pattern.get(next) {
            Some(&"#") => {
                retry = Some((at, next + 1));
                next += 1;
            }
            Some(&word) if word == "*" || fits(key[at].as_ref(), word) => {
                (at, next) = (at + 1, next + 1);
            }
            _ => {
                let Some((from, rest)) = retry else {
                    return false;
                };
                retry = Some((from + 1, rest));
                (at, next) = (from + 1, rest);
            }
        }
    }
    pattern[next..].iter().all(|word| *word == "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &KeyPattern, pattern: &str, expected: bool) {
        assert_eq!(key.may_match(pattern), expected, "{key} {pattern}");
    }

    #[test]
    fn patterns_match_as_in_a_topic_exchange() {
        let key = KeyPattern::literal("chat-session.missed");
        for (pattern, expected) in [
            ("chat-session.missed", true),
            ("chat-session.*", true),
            ("*.missed", true),
            ("#", true),
            ("#.missed", true),
            ("chat-session.#", true),
            ("chat-session.missed.#", true),
            ("#.chat-session.#.missed.#", true),
            ("*", false),
            ("", false),
            ("chat-session", false),
            ("chat-session.miss", false),
            ("chat-session.missed.*", false),
            ("#.created", false),
            ("chat-session.created", false),
            ("chat-session.#.missed", true),
        ] {
            check(&key, pattern, expected);
        }
        check(&KeyPattern::literal(""), "#", true);
        check(&KeyPattern::literal(""), "*", false);
        check(&KeyPattern::literal("a.b.a.b.c"), "#.a.b.c", true);
        check(&KeyPattern::literal("a.b.missed"), "#.missed", true);
    }

    #[test]
    fn word_of_the_session_matches_any_word() {
        let key = KeyPattern::template("{company}.missed");
        assert_eq!(key.to_string(), "*.missed");
        check(&key, "acme.missed", true);
        check(&key, "acme.created", false);
        check(&key, "*.*", true);
        check(&KeyPattern::template("a.{company}"), "a.b.c", false);
        assert!(key.may_be("acme.missed"));
        assert!(!key.may_be("acme.created"));
        assert!(!KeyPattern::literal("a").may_be("a.b"));
    }
}
