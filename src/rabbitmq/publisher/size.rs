//! Computes the size of headers on the wire. They must fit into one frame: the broker closes a
//! connection on which they do not.

use lapin::types::{AMQPValue, FieldTable, ShortString};

/// Limit for the headers in bytes: a frame of 128 KiB, less 8 KiB for the other properties.
pub(in crate::rabbitmq) const HEADERS_BYTES_MAX: usize = (128 << 10) - (8 << 10);

/// Encoded size of a table in bytes: each value has a type prefix, texts and tables also a length
/// prefix.
pub(in crate::rabbitmq) fn table_bytes(table: &FieldTable) -> usize {
    let field = |(name, value): (&ShortString, &AMQPValue)| field_bytes(name, value);
    4 + table.into_iter().map(field).sum::<usize>()
}

/// Encoded size of one entry of a table in bytes. Values of fixed size count as
/// 8 bytes, an upper bound.
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
