//! The probable reason why no element of a webhook is a valid session, for the log. Repeats names of
//! members, but no values.

use super::text::unescaped;
use super::walk::Walk;
use crate::webhook::{Content, DeadLetterReason, Webhook};

/// Maximum number of members of an element that are examined.
const MEMBERS_MAX: usize = 1000;

/// The probable mistake in a webhook; `None` if its first element is valid or it has no element.
#[must_use]
pub fn likeliest(webhook: &Webhook) -> Option<String> {
    let event = webhook.events.first()?;
    let Content::Reject(reject) = &event.content else {
        return None;
    };
    let detail = &reject.detail;
    let json = std::str::from_utf8(&event.body).ok();
    let json = json.filter(|_| reject.reason != DeadLetterReason::Malformed);
    let guess = json.and_then(in_another_case);
    Some(guess.map_or_else(|| detail.clone(), |guess| format!("{guess} ({detail})")))
}

/// A needed member whose name is in another case.
fn in_another_case(json: &str) -> Option<String> {
    let mut walk = Walk::through(json);
    if !walk.steps_over(b'{') {
        return None;
    }
    let members = std::iter::from_fn(|| walk.member()).take(MEMBERS_MAX);
    let names: Vec<_> = members.filter_map(|(name, _)| unescaped(name)).collect();
    ["id", "status"].into_iter().find_map(|needed| {
        let is_other = |name: &&Vec<u8>| name.eq_ignore_ascii_case(needed.as_bytes());
        let found = names.iter().find(is_other)?;
        let is_missing = !names.iter().any(|name| name == needed.as_bytes());
        let found = String::from_utf8_lossy(found);
        is_missing.then(|| format!("`{found}` instead of `{needed}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::samples;

    fn check(body: &[u8], expected: &str) {
        let webhook = samples::webhook(body.to_vec());
        let said = likeliest(&webhook).unwrap_or_default();
        assert!(said.contains(expected), "{said}, not {expected}");
    }

    #[test]
    fn member_in_another_case_is_named() {
        check(
            br#"[{"Id":"1","Status":"created"}]"#,
            "`Id` instead of `id`",
        );
        check(
            br#"[{"id":"1","STATUS":"created"}]"#,
            "`STATUS` instead of `status`",
        );
        check(br#"[{"\u0049d":"1","status":"x"}]"#, "`Id` instead of `id`");
    }

    #[test]
    fn without_a_guess_the_error_is_stated() {
        check(
            br#"[{"id":7,"Id":"1","status":"x"}]"#,
            "`id` is not a string but a number",
        );
        check(br#"[{"what he said":1}]"#, "missing field `id`");
        check(b"[7]", "not an object but a number");
        check(b"[", "line 1");
        let nothing = samples::webhook("[]");
        assert_eq!(likeliest(&nothing), None);
    }
}
