//! A table of text that fits the terminal: columns are cut, the last ones left out, until it does.
//! Where nobody looks at it (a file, a pipe) nothing is cut.

use std::io::{IsTerminal, stdout};

/// Between columns.
const GAP: usize = 2;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// Characters it may be cut to; `usize::MAX` if it never is.
    pub least: usize,
}

/// Columns of a terminal, if it is one or `COLUMNS` says so.
pub fn width() -> Option<usize> {
    let told = std::env::var("COLUMNS").ok();
    let told = told.and_then(|text| text.parse().ok());
    told.or_else(|| {
        let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
        (stdout().is_terminal() && size.ws_col > 0).then(|| size.ws_col.into())
    })
}

/// Lays rows out under their heads, within so many characters.
pub fn layout(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let widths = widths(columns, rows, width.unwrap_or(usize::MAX));
    let heads = columns.iter().map(|column| column.head.to_owned());
    let mut text = String::new();
    for row in std::iter::once(heads.collect()).chain(rows.iter().cloned()) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{:<width$}", cut(cell, *width)))
            .collect();
        text.push_str(cells.join(&" ".repeat(GAP)).trim_end());
        text.push('\n');
    }
    text
}

/// How wide each column is; the last ones are missing if they find no room.
fn widths(columns: &[Column], rows: &[Vec<String>], room: usize) -> Vec<usize> {
    let longest = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        longest.max(columns[index].head.chars().count())
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(longest).collect();
    loop {
        let gaps = GAP * widths.len().saturating_sub(1);
        let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
        if excess == 0 || widths.is_empty() {
            return widths;
        }
        let spare = |index: &usize| widths[*index].saturating_sub(columns[*index].least);
        match (0..widths.len()).max_by_key(spare) {
            Some(widest) if spare(&widest) > 0 => {
                widths[widest] -= excess.min(spare(&widest).div_ceil(2));
            }
            _ => {
                widths.pop();
            }
        }
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            head: "ID",
            least: usize::MAX,
        },
        Column {
            head: "KEY",
            least: 4,
        },
        Column {
            head: "DETAIL",
            least: 6,
        },
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row(["12345678", "created", "a long detail that says a lot"]),
            row(["9", "-", "€€"]),
        ]
    }

    #[test]
    fn nothing_is_cut_where_there_is_room() {
        let expected = "ID        KEY      DETAIL\n\
                        12345678  created  a long detail that says a lot\n\
                        9         -        €€\n";
        assert_eq!(layout(&COLUMNS, &rows(), None), expected);
        assert_eq!(layout(&COLUMNS, &rows(), Some(48)), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_columns_and_never_an_id() {
        for width in 8..48 {
            let text = layout(&COLUMNS, &rows(), Some(width));
            assert!(
                text.lines().all(|line| line.chars().count() <= width),
                "{text}"
            );
            assert!(text.contains("12345678"), "{text}");
        }
        let text = layout(&COLUMNS, &rows(), Some(30));
        assert!(text.contains("12345678  crea"), "{text}");
        assert!(text.contains('…'), "{text}");
    }
}
