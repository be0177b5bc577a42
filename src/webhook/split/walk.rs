//! Scans a JSON text that is known to be valid: finds where strings and values end, decodes
//! nothing, never recurses. In an invalid text it would find wrong ends, but cause no other harm.

/// Most strings are shorter than this: comparing each byte then costs less than calling `memchr`.
const NEAR_BYTES: usize = 24;

/// A position in a text.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Levels of the most deeply nested value so far.
    pub deepest: usize,
}

impl<'a> Walk<'a> {
    /// Starts at the first byte.
    pub fn through(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            deepest: 0,
        }
    }

    /// Skips white space and then this byte, if it is the next one. Returns whether it was.
    pub fn steps_over(&mut self, byte: u8) -> bool {
        self.skip_white_space();
        let is_next = self.byte() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// The next value, with everything in it; `None` at the end of an array or object.
    pub fn value(&mut self) -> Option<&'a str> {
        self.skip_white_space();
        let start = self.at;
        match self.byte()? {
            b']' | b'}' => return None,
            b'"' => self.skip_string(),
            b'[' | b'{' => self.skip_nested(),
            _ => self.skip_scalar(),
        }
        self.text.get(start..self.at)
    }

    /// The next element of an array, and the comma after it.
    pub fn element(&mut self) -> Option<&'a str> {
        let value = self.value()?;
        self.steps_over(b',');
        Some(value)
    }

    /// The next member of an object, and the comma after it.
    pub fn member(&mut self) -> Option<(&'a str, &'a str)> {
        let key = self.value()?;
        self.steps_over(b':');
        Some((key, self.element()?))
    }

    /// The next string after this position, at any depth, with its quotation marks.
    pub fn string(&mut self) -> Option<&'a str> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += memchr::memchr(b'"', rest)?;
        let start = self.at;
        self.skip_string();
        self.text.get(start..self.at)
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn skip_while(&mut self, is_skipped: impl Fn(u8) -> bool) {
        while self.byte().is_some_and(&is_skipped) {
            self.at += 1;
        }
    }

    /// Moves from the opening quotation mark past the closing one.
    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(rest) = self.text.as_bytes().get(self.at..)
            && let Some(length) = end_or_escape(rest)
        {
            self.at += length + 1;
            if rest[length] == b'"' {
                return;
            }
            // After the backslash: skip the character that it escapes.
            self.at += 1;
        }
        self.at = self.text.len();
    }

    fn skip_nested(&mut self) {
        let mut levels = 0;
        while let Some(byte) = self.byte() {
            match byte {
                b'[' | b'{' => {
                    levels += 1;
                    self.deepest = self.deepest.max(levels);
                }
                b']' | b'}' => levels -= 1,
                b'"' => {
                    self.skip_string();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
            if levels == 0 {
                return;
            }
        }
    }

    fn skip_scalar(&mut self) {
        let is_end = |byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        self.skip_while(|byte| !is_end(byte));
    }
}

/// Where the next quotation mark or backslash is.
fn end_or_escape(text: &[u8]) -> Option<usize> {
    let (near, far) = text.split_at(text.len().min(NEAR_BYTES));
    let is_found = |byte: &u8| matches!(byte, b'"' | b'\\');
    near.iter()
        .position(is_found)
        .or_else(|| Some(near.len() + memchr::memchr2(b'"', b'\\', far)?))
}
