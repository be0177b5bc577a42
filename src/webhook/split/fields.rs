//! Reads the routing fields of one element, or why it has none. The element is known to be valid
//! JSON.

use super::kind::kind;
use super::members::{Member, last_element, members};
use super::text::{lossy, unescaped};
use crate::webhook::Fields;

/// Maximum nesting depth of an element; the element itself is the first level.
const DEPTH_MAX: usize = 128;

/// Maximum length of an unescaped id, in bytes: that of an AMQP short string.
const ID_BYTES_MAX: usize = 255;

/// Length of the longest JSON spelling of such an id: `\u0061` for each byte, between quotes. Ten
/// megabytes need not be unescaped to see that an id is too long.
const ID_TEXT_BYTES_MAX: usize = 6 * ID_BYTES_MAX + 2;

/// Reads what routing needs of an element.
///
/// # Errors
/// Why it cannot be routed, as text for people.
pub fn read(element: &str) -> Result<Fields, String> {
    let names = ["id", "status", "type", "pastStatus", "creator"];
    let Some(found) = members(element, names) else {
        return Err(format!("not an object but {}", kind(element)));
    };
    let [id, status, session_type, past_status, creator] = found.members;
    if found.levels > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    Ok(Fields {
        session: session(id)?.into(),
        status: lossy(required("status", status)?),
        attributes: [
            session_type.value.and_then(text),
            past_status.value.and_then(last_element).and_then(text),
            creator.value.and_then(company),
        ],
    })
}

fn session(member: Member) -> Result<String, String> {
    let too_long = || Err(format!("`id` is longer than {ID_BYTES_MAX} bytes"));
    let is_long = |value: &str| value.starts_with('"') && value.len() > ID_TEXT_BYTES_MAX;
    if !member.is_repeated && member.value.is_some_and(is_long) {
        return too_long();
    }
    let id = required("id", member)?;
    match id.len() {
        0 => Err("`id` is empty".into()),
        1..=ID_BYTES_MAX => String::from_utf8(id)
            .map_err(|_| "`id` contains a lone surrogate, which is not a character".into()),
        _ => too_long(),
    }
}

/// A string that occurs exactly once: of two, a consumer's parser could use the other one.
fn required(name: &str, member: Member) -> Result<Vec<u8>, String> {
    let value = member
        .value
        .ok_or_else(|| format!("missing field `{name}`"))?;
    if member.is_repeated {
        return Err(format!("duplicate field `{name}`"));
    }
    unescaped(value).ok_or_else(|| format!("`{name}` is not a string but {}", kind(value)))
}

fn company(creator: &str) -> Option<String> {
    let [company] = members(creator, ["company"])?.members;
    let [identifier] = members(company.value?, ["identifier"])?.members;
    text(identifier.value?)
}

fn text(value: &str) -> Option<String> {
    unescaped(value).map(lossy)
}
