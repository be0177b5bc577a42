//! Looks up members of a JSON object, and the last element of an array, without decoding anything
//! but keys that have escapes. Values are slices of the text, so no number, escape or shape in them
//! can cause an error, and a million keys cost a million comparisons. The text is known to be valid
//! JSON.

use super::text::unescaped;
use super::walk::Walk;

/// What an object has under one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Member<'a> {
    /// The text of the value; of the last one if there are several.
    pub value: Option<&'a str>,
    /// Whether there are several.
    pub is_repeated: bool,
}

/// What was found in an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Members<'a, const N: usize> {
    /// In the order of the requested names.
    pub members: [Member<'a>; N],
    /// Nesting depth of arrays and objects; the object itself is the first level.
    pub levels: usize,
}

/// The members of these names, compared after unescaping. `None` if this is not an object.
pub fn members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<Members<'a, N>> {
    let mut walk = Walk::through(text);
    let mut members = [Member::default(); N];
    if !walk.steps_over(b'{') {
        return None;
    }
    while let Some((key, value)) = walk.member() {
        if let Some(index) = names.iter().position(|name| is_called(key, name)) {
            members[index] = Member {
                value: Some(value),
                is_repeated: members[index].value.is_some(),
            };
        }
    }
    let levels = 1 + walk.deepest;
    Some(Members { members, levels })
}

/// The text of the last element, if this is an array that has one.
pub fn last_element(text: &str) -> Option<&str> {
    let mut walk = Walk::through(text);
    let is_array = walk.steps_over(b'[');
    let elements = std::iter::from_fn(|| walk.element());
    is_array.then(|| elements.last())?
}

/// Whether a key, with its quotation marks, is this name. Names contain nothing to escape, so a key
/// without escapes is compared directly.
fn is_called(key: &str, name: &str) -> bool {
    if key.len() < name.len() + 2 {
        return false;
    }
    if key.as_bytes().contains(&b'\\') {
        return unescaped(key).is_some_and(|key| key == name.as_bytes());
    }
    &key[1..key.len() - 1] == name
}
