//! The progress bar of a long command, on standard error if that is a terminal.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress towards a total, if it is known, of `what`, such as `events`.
pub fn bar(total: Option<u64>, what: &'static str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = if total.is_some() {
        "{elapsed_precise} {wide_bar} {pos}/{len} {prefix}, {per_sec}, {eta} left"
    } else {
        "{elapsed_precise} {spinner} {pos} {prefix}, {per_sec}"
    };
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
    bar.with_style(style).with_prefix(what)
}
