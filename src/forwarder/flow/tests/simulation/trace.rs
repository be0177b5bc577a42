//! A record of the steps: as a hash, which must be the same in two runs of a seed, and as lines for
//! people when a seed is run again.

use std::collections::VecDeque;

/// Number of lines kept: the last ones.
const LINES_MAX: usize = 80;

#[derive(Default)]
pub(super) struct Trace {
    pub(super) hash: u64,
    pub(super) steps: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(super) fn with_lines() -> Self {
        Self {
            lines: Some(VecDeque::new()),
            ..Self::default()
        }
    }

    pub(super) fn mark(&mut self, what: u64) {
        self.hash = (self.hash ^ what)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    pub(super) fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() >= LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line());
        }
    }

    pub(super) fn lines(&self) -> String {
        let indented = |text: String, line: &String| text + "    " + line + "\n";
        self.lines.iter().flatten().fold(String::new(), indented)
    }
}
