//! Tables: laid out by `comfy-table`. On a terminal a row is one line, what is cut ends with `…`, and a
//! column that finds no room is left out behind a head `…`. Elsewhere nothing is cut.

use std::io::{IsTerminal, stdout};

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Width, presets};
use deskbridge::telemetry::foreign;

/// Between columns.
const GAP: u16 = 2;
/// Columns of the widest character.
const WIDEST: u16 = 2;
/// Marks what is cut or left out.
const CUT: &str = "…";

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// What it may be cut to; `u16::MAX` if it never is while another one can go.
    pub least: u16,
    /// How wide it is where later rows are not known yet.
    pub usual: u16,
}

/// A table on standard output.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    columns: &'static [Column],
    room: Option<u16>,
}

impl Table {
    /// As wide as the terminal, if it is one.
    pub fn of_output(columns: &'static [Column]) -> Self {
        let output = stdout();
        let size = rustix::termios::tcgetwinsize(&output).ok();
        let size = size.filter(|size| output.is_terminal() && size.ws_col > 0);
        let room = size.map(|size| size.ws_col);
        Self { columns, room }
    }

    /// All of it: columns are as wide as what is in them.
    pub fn whole(self, rows: &[Vec<String>]) -> String {
        let heads = self.columns.iter().map(|column| column.head);
        let mut measured = comfy_table::Table::new();
        measured.set_header(heads);
        for row in rows {
            measured.add_row(escaped(row));
        }
        self.lay_out(&measured.column_max_content_widths(), true, rows)
    }

    /// Some of its rows, the first ones under their heads; columns are as wide as usual.
    pub fn page(self, rows: &[Vec<String>], is_first: bool) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let usual: Vec<_> = self.columns.iter().map(|column| column.usual).collect();
        self.lay_out(&usual, is_first, rows)
    }

    fn lay_out(self, wanted: &[u16], has_head: bool, rows: &[Vec<String>]) -> String {
        let widths = self.widths(wanted);
        let is_whole = widths.len() == self.columns.len();
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_truncation_indicator(CUT)
            // Nothing is escaped to it: a cell is never broken at a word.
            .set_delimiter('\0');
        let one_line = |mut row: Row| {
            if self.room.is_some() {
                row.max_height(1);
            }
            row
        };
        if has_head {
            let heads = self.columns.iter().map(|column| column.head);
            let rest = (!is_whole).then_some(CUT);
            table.set_header(one_line(heads.take(widths.len()).chain(rest).into()));
        }
        for row in rows {
            table.add_row(one_line(escaped(row).take(widths.len()).into()));
        }
        let last = table.column_count() - 1;
        for (column, width) in table.column_iter_mut().zip(&widths) {
            let gap = if column.index == last { 0 } else { GAP };
            let width = Width::Fixed(width.saturating_add(gap));
            column.set_padding((0, gap));
            column.set_constraint(match self.room {
                Some(_) => ColumnConstraint::Absolute(width),
                None => ColumnConstraint::LowerBoundary(width),
            });
        }
        if let Some(rest) = table.column_mut(widths.len()) {
            rest.set_padding((0, 0));
        }
        let mut text = table.trim_fmt();
        text.push('\n');
        text
    }

    /// How wide each column is; the last ones are missing if they find no room.
    fn widths(self, wanted: &[u16]) -> Vec<u16> {
        let mut widths = wanted.to_vec();
        let Some(room) = self.room else {
            return widths;
        };
        let least = |index: usize| self.columns[index].least.min(wanted[index]);
        loop {
            let count = widths.len();
            let rest = if count < wanted.len() { GAP + 1 } else { 0 };
            let taken = |widths: &[u16]| {
                let gaps = GAP.saturating_mul(u16::try_from(count).unwrap_or(u16::MAX) - 1) + rest;
                widths.iter().copied().fold(gaps, u16::saturating_add)
            };
            let smallest: Vec<u16> = (0..count).map(least).collect();
            if taken(&smallest) > room && count > 1 {
                widths.pop();
                continue;
            }
            // The columns that say most come first, and are cut last.
            for index in (0..count).rev() {
                let excess = taken(&widths).saturating_sub(room);
                let floor = if count == 1 { WIDEST } else { smallest[index] };
                widths[index] = widths[index].saturating_sub(excess).max(floor);
            }
            return widths;
        }
    }
}

fn escaped(row: &[String]) -> impl Iterator<Item = String> {
    row.iter().map(|cell| foreign::line(cell).into_owned())
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
    fn nothing_is_cut_where_there_is_room() {
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
    fn no_line_is_longer_than_the_terminal_and_none_empty() {
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
    fn rows_that_come_later_stand_under_their_heads() {
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

    /// Columns of a terminal.
    fn comfy_width(line: &str) -> u16 {
        let mut table = comfy_table::Table::new();
        table.add_row([line]);
        table.column_max_content_widths()[0]
    }
}
