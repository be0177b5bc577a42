//! `instance~c~number` or `instance~m~number`: who a user is.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Who a user is, over all instances, such as `nzlancomdev~c~11220`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId {
    /// The instance they belong to.
    pub instance: String,
    /// Which of the two lists they are in.
    pub kind: UserKind,
    /// Their number there.
    pub number: u64,
}

/// Which list of an instance a user is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserKind {
    /// `c`: somebody of a customer.
    Contact,
    /// `m`: somebody of the service desk.
    Member,
}

/// The text is not `instance~c~number` or `instance~m~number`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a user id of three parts, such as `acme~c~11220`")]
pub struct NotAUserId;

impl FromStr for UserId {
    type Err = NotAUserId;

    fn from_str(text: &str) -> Result<Self, NotAUserId> {
        let (rest, number) = text.rsplit_once('~').ok_or(NotAUserId)?;
        let (instance, kind) = rest.rsplit_once('~').ok_or(NotAUserId)?;
        let kind = match kind {
            "c" => UserKind::Contact,
            "m" => UserKind::Member,
            _ => return Err(NotAUserId),
        };
        let number = number.parse().map_err(|_| NotAUserId)?;
        let id = Self {
            instance: instance.into(),
            kind,
            number,
        };
        // `+7` and `007` are numbers too, but would be written differently.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(NotAUserId)
        }
    }
}

impl TryFrom<String> for UserId {
    type Error = NotAUserId;

    fn try_from(text: String) -> Result<Self, NotAUserId> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.to_string()
    }
}

impl JsonSchema for UserId {
    fn schema_name() -> Cow<'static, str> {
        "UserId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Who a user is, over all instances: `instance~c~number` a contact, \
                `instance~m~number` a member.",
            "type": "string",
            "pattern": "^.*~[cm]~(0|[1-9][0-9]*)$",
            "examples": ["nzlancomdev~c~11220"],
        })
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            UserKind::Contact => 'c',
            UserKind::Member => 'm',
        };
        write!(formatter, "{}~{kind}~{}", self.instance, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, UserKind, u64)>) {
        let read = text.parse::<UserId>().ok();
        let parts = read
            .as_ref()
            .map(|id| (id.instance.as_str(), id.kind, id.number));
        assert_eq!(parts, expected, "{text}");
    }

    #[test]
    fn a_user_id_has_an_instance_a_kind_and_a_number() {
        check(
            "nzlancomdev~c~11220",
            Some(("nzlancomdev", UserKind::Contact, 11220)),
        );
        check(
            "nzlancomdev~m~268",
            Some(("nzlancomdev", UserKind::Member, 268)),
        );
        check("a~b~m~0", Some(("a~b", UserKind::Member, 0)));
        check("~c~1", Some(("", UserKind::Contact, 1)));
        let texts = [
            "", "~", "a~c", "a~x~1", "a~C~1", "a~c~", "a~c~-1", "a~c~+1", "a~c~01",
        ];
        for text in texts
            .into_iter()
            .chain(["a~c~18446744073709551616", "c~1", "a~c~1 "])
        {
            check(text, None);
        }
    }
}
