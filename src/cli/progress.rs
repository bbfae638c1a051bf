//! Progress bars: on stderr, and only where somebody watches.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

fn bar(total: u64, template: &str, out: &Output) -> ProgressBar {
    let target = if out.is_quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("━╸─")),
        Err(_) => bar,
    }
}

/// A bar over the bytes of a file.
pub(crate) fn over_bytes(total: u64, out: &Output) -> ProgressBar {
    bar(total, "{msg} {bar:30.cyan} {binary_bytes:>10}/{binary_total_bytes} {eta:>4}", out)
}

/// A bar over events.
pub(crate) fn over_events(total: u64, out: &Output) -> ProgressBar {
    bar(total, "{msg} {bar:30.cyan} {human_pos:>10}/{human_len} {eta:>4}", out)
}
