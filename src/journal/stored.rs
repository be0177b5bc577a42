//! A webhook as a row of `webhooks`: written once, read by all. A read never fails because of what
//! a row contains: an event that differs from what was received no longer matches its `message_id`.
//!
//! The fields of each event are one line, so that damage to one line leaves the others readable. A
//! large webhook is stored in parts: to read one event, only its part is read.

mod line;
mod values;

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, MAIN_DB, OptionalExtension, Row, params};

use line::Line;
use uuid::Uuid;
pub(super) use values::{Values, log_unknown, timestamp};

use super::interface::Seq;
use crate::memory;
use crate::webhook::{Content, DeadLetterReason, Envelope, Event, Reject, identity};

/// Events in one part, at most.
pub(super) const PART_EVENTS_MAX: usize = 256;
/// A part that contains event `n` begins at `n - PART_REACH` or later.
pub(super) const PART_REACH: Seq = 256;
/// Bytes of bodies in one part, at most, unless a single body is larger.
const PART_BYTES_MAX: usize = 256 << 10;
/// Large bodies are read in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// The columns of `webhooks w` in the order that [`Part::read`] expects.
macro_rules! columns {
    () => {
        columns!(bodies: "CASE WHEN octet_length(w.bodies) < 1048576 THEN w.bodies END")
    };
    (bodies: $bodies:literal) => {
        concat!(
            "w.first, w.events, w.first_index, w.webhook_id, w.source, w.received_at, \
             w.traceparent, w.tracestate, w.fields, octet_length(w.bodies), ",
            $bodies
        )
    };
}
pub(super) use columns;

const CONTAINING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM webhooks w WHERE w.first <= ?1 ORDER BY w.first DESC LIMIT 1"
);

/// Splits a webhook into parts, in order.
pub(super) fn parts(events: &[Arc<Event>]) -> impl Iterator<Item = &[Arc<Event>]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |event: &&Arc<Event>| {
            bytes += event.body.len();
            bytes <= PART_BYTES_MAX
        };
        let count = rest.iter().take(PART_EVENTS_MAX).take_while(fits).count();
        let (part, others) = rest.split_at_checked(count.max(1))?;
        rest = others;
        Some(part)
    })
}

/// Groups numbered events by webhook. The events of a group are consecutive, and belong to the same
/// webhook; each group comes with its first number.
pub(super) fn by_webhook(
    events: &[(Seq, Arc<Event>)],
) -> impl Iterator<Item = (Seq, Vec<Arc<Event>>)> {
    let is_next = |(seq, event): &(Seq, Arc<Event>), (next_seq, next): &(Seq, Arc<Event>)| {
        *next_seq == seq + 1
            && next.envelope.webhook_id == event.envelope.webhook_id
            && next.index == event.index + 1
    };
    events.chunk_by(is_next).map(|webhook| {
        let events = webhook.iter().map(|(_, event)| Arc::clone(event));
        (webhook[0].0, events.collect())
    })
}

/// Writes consecutive events of one webhook as one row; returns the bytes of its fields and bodies.
pub(super) fn write(
    database: &Connection,
    first: Seq,
    events: &[Arc<Event>],
) -> rusqlite::Result<u64> {
    let Some(leader) = events.first() else {
        return Ok(0);
    };
    let (mut fields, mut bytes) = (Vec::new(), 0);
    for event in events {
        if !fields.is_empty() {
            fields.push(b'\n');
        }
        line::write(event, bytes, &mut fields);
        bytes += event.body.len();
    }
    let fields = String::from_utf8(fields).expect("JSON is UTF-8");
    let bodies = match events {
        // Inserted as zeros and then overwritten in place: a bound value would be copied twice.
        _ if bytes >= memory::LARGE_BYTES => ToSqlOutput::ZeroBlob(bytes as u64),
        [event] => ToSqlOutput::Borrowed(ValueRef::Blob(&event.body)),
        _ => {
            let bodies: Vec<&[u8]> = events.iter().map(|event| &*event.body).collect();
            ToSqlOutput::Owned(bodies.concat().into())
        }
    };
    let envelope = &leader.envelope;
    database
        .prepare_cached(
            "INSERT INTO webhooks (first, events, first_index, webhook_id, source, received_at,
               traceparent, tracestate, fields, bodies)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            first,
            u32::try_from(events.len()).unwrap_or(u32::MAX),
            leader.index,
            envelope.webhook_id.as_bytes(),
            envelope.source,
            envelope.received_at.as_microsecond(),
            envelope.traceparent,
            envelope.tracestate,
            fields,
            bodies,
        ])?;
    if bytes >= memory::LARGE_BYTES {
        let mut bodies = database.blob_open(MAIN_DB, "webhooks", "bodies", first, false)?;
        let mut offset = 0;
        for event in events {
            bodies.write_at(&event.body, offset)?;
            offset += event.body.len();
        }
        bodies.close()?;
    }
    Ok((fields.len() + bytes) as u64)
}

/// A row of `webhooks` that was read.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) first: Seq,
    pub(super) events: u32,
    first_index: u32,
    /// The envelope that its events share.
    pub(super) envelope: Arc<Envelope>,
    /// One per event; `None` for a line that cannot be read.
    lines: Vec<Option<Line>>,
    /// The length of all bodies together.
    bytes: usize,
    /// Bytes of fields and bodies, counted as by [`write`].
    pub(super) size: u64,
    /// `None` if they are large, or were not selected.
    bodies: Option<Bytes>,
    /// The first column with a value that this release never writes.
    unknown: Option<&'static str>,
}

/// The row of `webhooks` that was read last: the next event is often in the same row.
#[derive(Debug, Default)]
pub(super) struct LastPart(Option<Part>);

/// An event, and whether it differs from what was received.
pub(super) struct Stored {
    pub(super) event: Event,
    pub(super) is_damaged: bool,
}

impl Stored {
    /// Stands for an event whose row is lost.
    pub(super) fn lost() -> Self {
        let event = Event {
            envelope: Arc::default(),
            index: 0,
            message_id: Uuid::nil(),
            content: damaged(),
            body: Bytes::new(),
        };
        Self {
            event,
            is_damaged: true,
        }
    }
}

impl Part {
    /// The row that contains an event; `None` if there is no such row.
    pub(super) fn containing(database: &Connection, seq: Seq) -> rusqlite::Result<Option<Self>> {
        let found = database
            .prepare_cached(CONTAINING)?
            .query_row([seq], Self::read)
            .optional()?;
        Ok(found.filter(|part| seq <= part.last()))
    }

    /// Reads a row with the columns of [`columns`].
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut values = Values::of(row);
        let events = values.number::<u32>(1, "events")?.unwrap_or_default();
        let fields = values.needed_text(8, "fields")?;
        let mut lines: Vec<_> = fields.lines().map(Line::read).collect();
        if lines.len() != events as usize {
            values.unknown.get_or_insert("fields");
            lines.resize_with((events as usize).min(PART_EVENTS_MAX), || None);
        }
        let envelope = Envelope {
            webhook_id: values.uuid(3, "webhook_id")?,
            source: values.needed_text(4, "source")?.into(),
            received_at: values.timestamp(5, "received_at")?.unwrap_or_default(),
            traceparent: values.text(6, "traceparent")?,
            tracestate: values.text(7, "tracestate")?,
        };
        let bytes: usize = values.number(9, "bodies")?.unwrap_or_default();
        Ok(Self {
            size: (fields.len() + bytes) as u64,
            bytes,
            first: row.get(0)?,
            events: u32::try_from(lines.len()).unwrap_or_default(),
            first_index: values.number(2, "first_index")?.unwrap_or_default(),
            envelope: Arc::new(envelope),
            lines,
            bodies: values.bytes(10)?.map(Bytes::copy_from_slice),
            unknown: values.unknown,
        })
    }

    /// Whether every column holds a value that this release could have written.
    pub(super) fn is_sound(&self) -> bool {
        self.unknown.is_none()
    }

    /// The number of the last event in the row.
    pub(super) fn last(&self) -> Seq {
        self.first + Seq::from(self.events) - 1
    }

    /// The numbers of the events in the row.
    pub(super) fn seqs(&self) -> RangeInclusive<Seq> {
        self.first..=self.last()
    }

    /// An event without its body.
    pub(super) fn event_without_body(&self, seq: Seq) -> Event {
        Event {
            envelope: Arc::clone(&self.envelope),
            index: self.first_index + u32::try_from(seq - self.first).unwrap_or_default(),
            message_id: self.message_id(seq),
            content: self.content(seq).cloned().unwrap_or_else(damaged),
            body: Bytes::new(),
        }
    }

    /// The length of the body of an event.
    pub(super) fn length(&self, seq: Seq) -> u64 {
        self.body_range(seq).len() as u64
    }

    /// Whether the whole row was read and is sound, with at most `bytes_max` bytes of bodies.
    pub(super) fn is_indexable(&self, bytes_max: usize) -> bool {
        self.is_sound() && self.bytes <= bytes_max && self.bodies.is_some()
    }

    /// The body of an event; `None` if the bodies are large or were not read.
    pub(super) fn body(&self, seq: Seq) -> Option<&[u8]> {
        self.bodies.as_ref()?.get(self.body_range(seq))
    }

    /// An event with its body.
    pub(super) fn stored(&self, database: &Connection, seq: Seq) -> rusqlite::Result<Stored> {
        let body_range = self.body_range(seq);
        let body = match &self.bodies {
            // Copied, because a slice would keep the bodies of the whole part in memory.
            Some(bodies) => Bytes::copy_from_slice(bodies.get(body_range).unwrap_or_default()),
            None => read_at(database, self.first, body_range)?,
        };
        let event = Event {
            body,
            ..self.event_without_body(seq)
        };
        log_unknown(seq, self.unknown);
        let is_readable = self.is_sound() && self.line(seq).is_some();
        Ok(Stored {
            is_damaged: !is_readable || !identity::is_intact(&event),
            event,
        })
    }

    /// The `message_id` of an event; nil if its line cannot be read.
    pub(super) fn message_id(&self, seq: Seq) -> Uuid {
        self.line(seq)
            .map(|line| line.message_id)
            .unwrap_or_default()
    }

    /// The content of an event; `None` if its line cannot be read.
    pub(super) fn content(&self, seq: Seq) -> Option<&Content> {
        self.line(seq).map(|line| &line.content)
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq - self.first).ok()
    }

    fn line(&self, seq: Seq) -> Option<&Line> {
        self.lines.get(self.index(seq)?)?.as_ref()
    }

    /// The byte range of an event's body. For an event whose line is damaged: all bytes between the
    /// bodies of its neighbours.
    fn body_range(&self, seq: Seq) -> std::ops::Range<usize> {
        if let Some(line) = self.line(seq) {
            let end = line.offset.saturating_add(line.length);
            return line.offset.min(self.bytes)..end.min(self.bytes);
        }
        let index = self.index(seq).unwrap_or_default();
        let (before, after) = self.lines.split_at(index.min(self.lines.len()));
        let start = before.iter().flatten().next_back();
        let start = start.map_or(0, |line| line.offset.saturating_add(line.length));
        let end = after.iter().flatten().next();
        let end = end.map_or(self.bytes, |line| line.offset).min(self.bytes);
        start.min(end)..end
    }
}

impl LastPart {
    /// The row that contains an event; `None` if there is no such row.
    pub(super) fn containing(
        &mut self,
        database: &Connection,
        seq: Seq,
    ) -> rusqlite::Result<Option<&Part>> {
        // A damaged row may claim the events of another row.
        let is_in = |part: &Part| part.is_sound() && part.seqs().contains(&seq);
        if !self.0.as_ref().is_some_and(is_in) {
            self.0 = Part::containing(database, seq)?;
        }
        Ok(self.0.as_ref())
    }
}

/// The number of the newest event; 0 if the journal is empty. If the newest row is damaged and claims
/// no event, it counts as one.
pub(super) fn newest(database: &Connection) -> rusqlite::Result<Seq> {
    let newest = "SELECT coalesce(max(first), 0) FROM webhooks";
    let newest: Seq = database
        .prepare_cached(newest)?
        .query_row([], |row| row.get(0))?;
    let part = Part::containing(database, newest)?;
    Ok(part.map_or(newest, |part| part.last()))
}

/// The content of an event whose fields cannot be read.
pub(super) fn damaged() -> Content {
    Content::Reject(Reject {
        reason: DeadLetterReason::Damaged,
        detail: String::new(),
    })
}

fn read_at(
    database: &Connection,
    first: Seq,
    body_range: std::ops::Range<usize>,
) -> rusqlite::Result<Bytes> {
    let bodies = database.blob_open(MAIN_DB, "webhooks", "bodies", first, true)?;
    let mut body = memory::Buffer::with_capacity(body_range.len());
    let mut piece = vec![0; PIECE_BYTES];
    for start in body_range.clone().step_by(PIECE_BYTES) {
        let wanted = piece.len().min(body_range.end - start);
        bodies.read_at_exact(&mut piece[..wanted], start)?;
        body.extend_from_slice(&piece[..wanted]);
    }
    Ok(body.freeze())
}
