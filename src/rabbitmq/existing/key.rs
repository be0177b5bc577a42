//! Routing keys of which some words depend on the session, and the binding keys they may match.

use std::fmt;

/// A routing key; a word that is not known beforehand is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Vec<Option<String>>);

impl Key {
    /// A key that is known whole.
    #[must_use]
    pub fn literal(key: &str) -> Self {
        Self(words(key).map(|word| Some(word.into())).collect())
    }

    /// What two keys of one template have in common. Values hold no dot, so both have the same
    /// words but for those that depend on the session.
    #[must_use]
    pub fn common(one: &str, other: &str) -> Self {
        let pairs = words(one).zip(words(other));
        Self(
            pairs
                .map(|(one, other)| (one == other).then(|| one.into()))
                .collect(),
        )
    }

    /// Whether some session's key is this one.
    #[must_use]
    pub fn may_be(&self, key: &str) -> bool {
        let key: Vec<_> = words(key).collect();
        key.len() == self.0.len()
            && self
                .0
                .iter()
                .zip(key)
                .all(|(ours, word)| fits(ours.as_ref(), word))
    }

    /// Whether some session's key matches this binding key of a topic exchange.
    #[must_use]
    pub fn may_match(&self, pattern: &str) -> bool {
        let pattern: Vec<_> = words(pattern).collect();
        matches(&self.0, &pattern)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(formatter, "{dot}{}", word.as_deref().unwrap_or("*"))?;
        }
        Ok(())
    }
}

/// The empty key has no word.
fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').filter(move |_| !key.is_empty())
}

fn fits(ours: Option<&String>, word: &str) -> bool {
    ours.is_none_or(|ours| ours == word)
}

/// By the last `#` seen: what it stands for grows until the rest matches, so that no pattern takes
/// longer than the product of both lengths.
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
    fn check(key: &Key, pattern: &str, expected: bool) {
        assert_eq!(key.may_match(pattern), expected, "{key} {pattern}");
    }

    #[test]
    fn patterns_match_as_in_a_topic_exchange() {
        let key = Key::literal("chat-session.missed");
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
        ] {
            check(&key, pattern, expected);
        }
        check(&Key::literal(""), "#", true);
        check(&Key::literal(""), "*", false);
        check(&Key::literal("a.b.a.b.c"), "#.a.b.c", true);
    }

    #[test]
    fn a_word_that_depends_on_the_session_may_be_any() {
        let key = Key::common("none.missed", "some.missed");
        assert_eq!(key.to_string(), "*.missed");
        check(&key, "acme.missed", true);
        check(&key, "acme.created", false);
        check(&key, "*.*", true);
        assert!(key.may_be("acme.missed"));
        assert!(!key.may_be("acme.created"));
        assert!(!Key::literal("a").may_be("a.b"));
    }
}
