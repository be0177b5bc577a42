//! Walks along a JSON text that is known to be valid: finds where strings and values end, decodes
//! nothing, never recurses. In a text that is not valid it would find wrong ends, no more.

/// A place in a text.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Levels of the most deeply nested value so far.
    pub deepest: usize,
}

impl<'a> Walk<'a> {
    /// At the first byte.
    pub fn through(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            deepest: 0,
        }
    }

    /// Steps over white space and then over this byte, if it is the next one.
    pub fn steps_over(&mut self, byte: u8) -> bool {
        self.skip_white_space();
        let is_next = self.byte() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// The next value with everything in it; `None` at the end of an array or object.
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

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// From one quotation mark behind the other.
    fn skip_string(&mut self) {
        self.at += 1;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            match memchr::memchr2(b'"', b'\\', rest) {
                Some(length) if rest[length] == b'"' => {
                    self.at += length + 1;
                    return;
                }
                // An escape and what it escapes.
                Some(length) => self.at += length + 2,
                None => {
                    self.at = self.text.len();
                    return;
                }
            }
        }
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
        while let Some(byte) = self.byte() {
            if matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r') {
                return;
            }
            self.at += 1;
        }
    }
}
