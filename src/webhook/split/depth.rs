//! How deep a JSON text is nested, without recursion. The text is known to be valid.

/// Whether arrays and objects are nested deeper than `levels`; the outermost is level 1.
pub fn is_deeper_than(levels: usize, text: &str) -> bool {
    // Most texts have fewer brackets than levels are allowed, wherever they stand.
    let has_enough_brackets = memchr::memchr2_iter(b'[', b'{', text.as_bytes())
        .nth(levels)
        .is_some();
    has_enough_brackets && nests_deeper_than(levels, text.as_bytes())
}

fn nests_deeper_than(levels: usize, text: &[u8]) -> bool {
    let mut depth = 0;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
        if depth > levels {
            return true;
        }
    }
    false
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}
