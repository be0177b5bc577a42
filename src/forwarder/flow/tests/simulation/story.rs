//! What happened, as a hash that two runs of one seed must agree on, and as lines for people when
//! a seed is told again.

use std::collections::VecDeque;

/// Lines kept of a story that is told.
const LINES_MAX: usize = 80;

#[derive(Default)]
pub(super) struct Story {
    pub(super) hash: u64,
    pub(super) steps: u64,
    lines: Option<VecDeque<String>>,
}

impl Story {
    pub(super) fn told() -> Self {
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

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
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
