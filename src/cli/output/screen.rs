//! Styled lines for one screen. Every text is escaped when it is added, so only styles of this
//! program reach the terminal.

use std::io::{IsTerminal, stdout};

use console::{Alignment, Style, pad_str, truncate_str};
use deskbridge::foreign;
use deskbridge::ops::check::{Finding, Severity};

use super::write;
use crate::cli::table::wrapped;

/// Columns of a label with the space after it.
const LABEL: usize = 12;
/// Leaves the alternate screen and shows the cursor.
const RESTORE: &str = "\x1b[?25h\x1b[?1049l";

/// Lines for standard output. On a terminal they are as wide as it at most.
pub struct Screen {
    lines: Vec<String>,
    size: Option<(usize, usize)>,
}

/// The alternate screen of the terminal; dropping it restores the previous contents.
pub struct Watched;

impl Screen {
    /// An empty screen, with the size of the terminal if standard output is one.
    pub fn new() -> Self {
        let terminal = console::Term::stdout();
        let size = stdout().is_terminal().then(|| terminal.size());
        let size = size.map(|(rows, columns)| (rows.into(), columns.into()));
        Self {
            lines: Vec::new(),
            size: size.filter(|(rows, columns)| *rows > 1 && *columns > LABEL),
        }
    }

    /// A line of two texts, one at the left and one at the right of the terminal.
    pub fn ends(&mut self, left: &str, right: &str) {
        let (left, right) = (foreign::line(left), foreign::line(right));
        let line = match self.size {
            Some((_, columns)) => {
                let room = columns.saturating_sub(console::measure_text_width(&right));
                format!(
                    "{}{right}",
                    pad_str(&left, room, Alignment::Left, Some("…"))
                )
            }
            None => format!("{left}  {right}"),
        };
        self.push(&Style::new().dim(), &line);
    }

    /// A line in a style.
    pub fn line(&mut self, style: &Style, text: &str) {
        self.push(style, &foreign::line(text));
    }

    /// A paragraph that continues on indented lines.
    pub fn paragraph(&mut self, style: &Style, indent: &str, text: &str) {
        let text = foreign::line(text);
        let lines = match self.size {
            Some((_, columns)) => wrapped(&text, columns.saturating_sub(indent.len())),
            None => vec![text.into_owned()],
        };
        for line in lines {
            self.push(style, &format!("{indent}{line}"));
        }
    }

    /// What is wrong, and what to do about it.
    pub fn finding(&mut self, indent: &str, finding: &Finding) {
        let style = match finding.severity {
            Severity::Error => Style::new().red(),
            Severity::Warning => Style::new().yellow(),
            Severity::Note => Style::new().dim(),
        };
        self.paragraph(&style, indent, &finding.problem);
        if let Some(fix) = &finding.fix {
            let indent = format!("{indent}  ");
            self.paragraph(&Style::new(), &indent, &format!("try: {fix}"));
        }
    }

    /// A line with a label; later lines of the same subject have an empty one.
    pub fn labelled(&mut self, label: &str, style: &Style, text: &str) {
        let label = pad_str(label, LABEL, Alignment::Left, None);
        let text = self.cut(&foreign::line(text), LABEL);
        let label = Style::new().bold().apply_to(label);
        self.lines.push(format!("{label}{}", style.apply_to(text)));
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.lines.push(String::new());
    }

    /// Prints all lines.
    ///
    /// # Errors
    /// As [`super::print`].
    pub fn print(&self) -> anyhow::Result<()> {
        write((self.lines.join("\n") + "\n").as_bytes())
    }

    /// Replaces the contents of the terminal. Lines that do not fit are left out, and counted in the
    /// last line.
    ///
    /// # Errors
    /// As [`super::print`].
    pub fn redraw(&self, _: &Watched) -> anyhow::Result<()> {
        let rows = self.size.map_or(usize::MAX, |(rows, _)| rows);
        let hidden = match self.lines.len() {
            count if count > rows => count - rows + 1,
            _ => 0,
        };
        let mut shown = self.lines[..self.lines.len() - hidden].to_vec();
        if hidden > 0 {
            shown.push(format!("… {hidden} more lines"));
        }
        // Home; each line erases the rest of the old one; then erase what is below.
        let text = shown.join("\x1b[K\n");
        write(format!("\x1b[H{text}\x1b[K\x1b[J").as_bytes())
    }

    fn push(&mut self, style: &Style, escaped: &str) {
        let line = self.cut(escaped, 0);
        self.lines.push(style.apply_to(line).to_string());
    }

    fn cut(&self, text: &str, used: usize) -> String {
        match self.size {
            Some((_, columns)) => truncate_str(text, columns.saturating_sub(used), "…").into(),
            None => text.to_owned(),
        }
    }
}

impl Watched {
    /// Switches the terminal to its alternate screen and hides the cursor.
    ///
    /// # Errors
    /// As [`super::print`].
    pub fn begin() -> anyhow::Result<Self> {
        write(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Self)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = write(RESTORE.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(size: Option<(usize, usize)>) -> Screen {
        Screen {
            lines: Vec::new(),
            size,
        }
    }

    #[test]
    fn lines_fit_the_terminal_and_are_escaped() {
        let mut screen = screen(Some((24, 20)));
        let plain = Style::new();
        screen.line(&plain, "a\u{1b}[2Jb");
        screen.line(&plain, "012345678901234567890123");
        screen.labelled("Broker", &plain, "日本語日本語");
        screen.paragraph(&plain, "  ", "one two three four five");
        screen.ends("left", "right");
        let expected = [
            "a\\u{1b}[2Jb",
            "0123456789012345678…",
            "Broker      日本語…",
            "  one two three four",
            "  five",
            "left           right",
        ];
        assert_eq!(screen.lines, expected);
    }

    #[test]
    fn nothing_is_cut_in_a_file() {
        let long = "word ".repeat(50) + "end";
        let mut screen = screen(None);
        screen.line(&Style::new(), &long);
        screen.paragraph(&Style::new(), "  ", &long);
        assert_eq!(screen.lines, [long.clone(), format!("  {long}")]);
    }
}
