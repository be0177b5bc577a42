//! The attributes of an event: what routing keys, headers and listings show of its body besides the
//! session and the status. This list names them; `split::fields` reads their values.

/// The names of one attribute.
#[derive(Debug)]
pub struct Attribute {
    /// The name in the output of `events`.
    pub name: &'static str,
    /// The placeholder in templates of routing keys.
    pub placeholder: &'static str,
    /// The header of messages, if they have one for it.
    pub header: Option<&'static str>,
    /// Where it is in the body, for the documentation of routing keys.
    pub description: &'static str,
}

/// All attributes. The journal stores their values in this order.
pub const ATTRIBUTES: [Attribute; 3] = [
    Attribute {
        name: "session_type",
        placeholder: "type",
        header: Some("session-type"),
        description: "The session's type, or `none`.",
    },
    Attribute {
        name: "previous_status",
        placeholder: "previous_status",
        header: Some("previous-status"),
        description: "The last of `pastStatus`, or `none`.",
    },
    Attribute {
        name: "company",
        placeholder: "company",
        header: None,
        description: "`creator.company.identifier`, or `none`; `_` replaces special characters.",
    },
];

/// The values of one event in the order of [`ATTRIBUTES`]; `None` if the body has no such string.
pub type AttributeValues = [Option<String>; ATTRIBUTES.len()];
