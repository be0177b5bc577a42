//! Tables, laid out by `comfy-table`. On a terminal each row is one line, truncated cells end with
//! `…`, and a header `…` stands for columns that do not fit. Elsewhere nothing is truncated.

use std::io::{IsTerminal, stdout};

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Width, presets};
use deskbridge::foreign;

/// Spaces between columns.
const GAP: u16 = 2;
/// Terminal columns of the widest character.
const WIDEST: u16 = 2;
/// Marks truncated cells and omitted columns.
const CUT: &str = "…";

/// A column and its widths, in terminal columns.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The header.
    pub head: &'static str,
    /// Minimum width to which it is truncated; `u16::MAX`: never truncated, rather omitted.
    pub least: u16,
    /// The width in a table that is printed page by page, whose later rows are not known yet.
    pub usual: u16,
}

impl Column {
    /// A column.
    pub const fn new(head: &'static str, least: u16, usual: u16) -> Self {
        Self { head, least, usual }
    }
}

/// A table on standard output.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    columns: &'static [Column],
    room: Option<u16>,
}

impl Table {
    /// A table as wide as the terminal, or without a limit if standard output is not a terminal.
    pub fn of_output(columns: &'static [Column]) -> Self {
        let output = stdout();
        let size = rustix::termios::tcgetwinsize(&output).ok();
        let size = size.filter(|size| output.is_terminal() && size.ws_col > 0);
        let room = size.map(|size| size.ws_col);
        Self { columns, room }
    }

    /// The whole table with its header; columns are as wide as their contents.
    pub fn whole(self, rows: &[Vec<String>]) -> String {
        let table = self.filled(true, rows);
        let widths = table.column_max_content_widths();
        self.lay_out(table, &widths[..self.columns.len()])
    }

    /// Some rows, the first ones with the header; columns have their usual widths.
    pub fn page(self, rows: &[Vec<String>], is_first: bool) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let usual: Vec<_> = self.columns.iter().map(|column| column.usual).collect();
        self.lay_out(self.filled(is_first, rows), &usual)
    }

    /// All columns, and one that marks omitted columns in the header.
    fn filled(self, has_head: bool, rows: &[Vec<String>]) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_truncation_indicator(CUT)
            // Escaped cells cannot contain NUL, so a cell is never broken at a delimiter.
            .set_delimiter('\0');
        let one_line = |mut row: Row| {
            if self.room.is_some() {
                row.max_height(1);
            }
            row
        };
        if has_head {
            let heads = self.columns.iter().map(|column| column.head);
            table.set_header(one_line(heads.chain([CUT]).into()));
        }
        for row in rows {
            let cells = row.iter().map(|cell| foreign::line(cell).into_owned());
            table.add_row(one_line(cells.into()));
        }
        table
    }

    fn lay_out(self, mut table: comfy_table::Table, wanted: &[u16]) -> String {
        let widths = self.widths(wanted);
        let is_whole = widths.len() == wanted.len();
        for column in table.column_iter_mut() {
            let index = column.index;
            let width = |width: &u16| Width::Fixed(width.saturating_add(GAP));
            column.set_padding((0, GAP));
            column.set_constraint(match (widths.get(index).map(width), self.room) {
                (Some(width), Some(_)) => ColumnConstraint::Absolute(width),
                (Some(width), None) => ColumnConstraint::LowerBoundary(width),
                (None, _) if is_whole || index < wanted.len() => ColumnConstraint::Hidden,
                (None, _) => ColumnConstraint::ContentWidth,
            });
        }
        table.trim_fmt() + "\n"
    }

    /// The width of each column. Columns at the end that do not fit are missing.
    fn widths(self, wanted: &[u16]) -> Vec<u16> {
        let mut widths = wanted.to_vec();
        let Some(room) = self.room else {
            return widths;
        };
        let excess = |widths: &[u16]| {
            let is_whole = widths.len() == wanted.len();
            let rest = if is_whole { [].as_slice() } else { &[1] };
            let all = widths
                .iter()
                .chain(rest)
                .map(|width| width.saturating_add(GAP));
            all.fold(0, u16::saturating_add)
                .saturating_sub(GAP)
                .saturating_sub(room)
        };
        let columns = self.columns.iter().zip(wanted);
        let mut smallest: Vec<_> = columns
            .map(|(column, wanted)| column.least.min(*wanted))
            .collect();
        while excess(&smallest) > 0 && smallest.len() > 1 {
            smallest.pop();
        }
        if let [only] = smallest.as_mut_slice() {
            *only = WIDEST;
        }
        widths.truncate(smallest.len());
        // The most important columns come first and are truncated last.
        for index in (0..widths.len()).rev() {
            let shorter = widths[index].saturating_sub(excess(&widths));
            widths[index] = shorter.max(smallest[index]);
        }
        widths
    }
}

/// Text in lines of at most this many terminal columns, broken at spaces.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut table = comfy_table::Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns.try_into().unwrap_or(u16::MAX))
        .add_row([text]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            head: "ID",
            least: u16::MAX,
            usual: 8,
        },
        Column {
            head: "KEY",
            least: 4,
            usual: 7,
        },
        Column {
            head: "DETAIL",
            least: 6,
            usual: 10,
        },
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row(["12345678", "created", "a long detail that says a lot"]),
            row(["9", "-", "€€"]),
            row(["日本", "👍🏽ok", "\u{1b}[2J"]),
        ]
    }

    fn table(room: Option<u16>) -> Table {
        Table {
            columns: &COLUMNS,
            room,
        }
    }

    #[test]
    fn nothing_is_cut_if_there_is_room() {
        let expected = "ID        KEY      DETAIL\n\
                        12345678  created  a long detail that says a lot\n\
                        9         -        €€\n\
                        日本      👍🏽ok     \\u{1b}[2J\n";
        assert_eq!(table(None).whole(&rows()), expected);
        assert_eq!(table(Some(48)).whole(&rows()), expected);
    }

    #[test]
    fn cut_cells_and_columns_are_marked() {
        let expected = "ID        KEY      DETAIL\n\
                        12345678  created  a long de…\n\
                        9         -        €€\n\
                        日本      👍🏽ok     \\u{1b}[2J\n";
        assert_eq!(table(Some(29)).whole(&rows()), expected);
        let expected = "ID        KEY   …\n\
                        12345678  cre…\n\
                        9         -\n\
                        日本      👍🏽ok\n";
        assert_eq!(table(Some(17)).whole(&rows()), expected);
        let expected = "ID     …\n1234…\n9\n日本\n";
        assert_eq!(table(Some(8)).whole(&rows()), expected);
    }

    #[test]
    fn lines_fit_the_terminal_and_are_not_empty() {
        for room in 5..60 {
            let text = table(Some(room)).whole(&rows());
            assert_eq!(text.lines().count(), 4, "{text}");
            for line in text.lines() {
                let width = usize::from(comfy_width(line));
                assert!(0 < width && width <= room.into(), "{room}: {text}");
            }
        }
    }

    #[test]
    fn later_rows_align_with_their_headings() {
        let all = rows();
        let apart = |room| {
            let table = table(room);
            let first = table.page(&all[..1], true);
            first + &table.page(&all[1..], false)
        };
        let expected = "ID        KEY      DETAIL\n\
                        12345678  created  a long de…\n\
                        9         -        €€\n\
                        日本      👍🏽ok     \\u{1b}[2J\n";
        assert_eq!(apart(Some(29)), expected);
        let first = "DETAIL\n12345678  created  a long detail that says a lot\n";
        assert!(apart(None).contains(first));
        assert!(apart(None).contains("9         -        €€\n"));
        assert_eq!(table(None).page(&[], true), "");
    }

    /// Width of a line in terminal columns.
    fn comfy_width(line: &str) -> u16 {
        let mut table = comfy_table::Table::new();
        table.add_row([line]);
        table.column_max_content_widths()[0]
    }
}
