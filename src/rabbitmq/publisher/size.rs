//! How large headers are on the wire. They have to fit into one frame: the broker ends a connection
//! on which they do not.

use lapin::types::{AMQPValue, FieldTable, ShortString};

/// Bytes of headers at most: a frame of 128 KiB, without what the other properties may take.
pub(in crate::rabbitmq) const HEADERS_BYTES_MAX: usize = (128 << 10) - (8 << 10);

/// Bytes of a table: each value behind its type, texts and tables behind their length.
pub(in crate::rabbitmq) fn table_bytes(table: &FieldTable) -> usize {
    let field = |(name, value): (&ShortString, &AMQPValue)| field_bytes(name, value);
    4 + table.into_iter().map(field).sum::<usize>()
}

/// Bytes of one entry of a table.
pub(in crate::rabbitmq) fn field_bytes(name: &ShortString, value: &AMQPValue) -> usize {
    1 + name.as_str().len() + value_bytes(value)
}

fn value_bytes(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => {
            4 + values.as_slice().iter().map(value_bytes).sum::<usize>()
        }
        AMQPValue::FieldTable(table) => table_bytes(table),
        _ => 8,
    }
}
