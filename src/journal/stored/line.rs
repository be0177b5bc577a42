//! The fields of one event as one line of JSON.

use uuid::Uuid;

use crate::webhook::{Content, DeadLetterReason, Event, Fields, Reject};

/// Longer routing fields are cut before they are stored: no header or routing key shows more of
/// them.
const FIELD_BYTES_MAX: usize = 1024;

/// The parsed line of one event.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) message_id: Uuid,
    /// The offset of the body in the bodies of its part.
    pub(super) offset: usize,
    /// The length of the body in bytes.
    pub(super) length: usize,
    pub(super) content: Content,
}

/// A line as it is stored: the `message_id`, the offset and the length of the body. For a session
/// follow the session, the status and the attributes; for a reject, the reason in place of the
/// status and the detail in place of the first attribute.
type Columns<T> = (
    Uuid,
    usize,
    usize,
    Option<T>,
    Option<T>,
    Option<T>,
    Option<T>,
    Option<T>,
);

/// Appends the line of an event whose body begins at `offset`.
pub(super) fn write(event: &Event, offset: usize, lines: &mut Vec<u8>) {
    let (session, status, [first, second, third]) = match &event.content {
        Content::Session(fields) => {
            let attributes = fields.attributes.each_ref();
            (
                Some(&*fields.session),
                cut(&fields.status),
                attributes.map(|value| value.as_deref().map(cut)),
            )
        }
        Content::Reject(reject) => {
            let detail = Some(&*reject.detail);
            (None, reject.reason.as_str(), [detail, None, None])
        }
    };
    let (id, length) = (event.message_id, event.body.len());
    let columns: Columns<&str> = (
        id,
        offset,
        length,
        session,
        Some(status),
        first,
        second,
        third,
    );
    serde_json::to_writer(lines, &columns).expect("texts and numbers can be written as JSON");
}

impl Line {
    /// `None` if the line is not what this release writes.
    pub(super) fn read(line: &str) -> Option<Self> {
        let columns: Columns<String> = serde_json::from_str(line).ok()?;
        let (message_id, offset, length, session, status, first, second, third) = columns;
        let content = match session {
            Some(session) => Content::Session(Fields {
                session: session.into(),
                status: status?,
                attributes: [first, second, third],
            }),
            None => Content::Reject(Reject {
                reason: DeadLetterReason::from_name(&status?)?,
                detail: first.unwrap_or_default(),
            }),
        };
        Some(Self {
            message_id,
            offset,
            length,
            content,
        })
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(FIELD_BYTES_MAX)]
}
