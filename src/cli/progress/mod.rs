//! Progress bars: on stderr, and only where somebody watches.

#[cfg(unix)]
mod lent;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

fn bar(total: u64, template: &str, out: &Output) -> ProgressBar {
    let (target, template) = target(template, out);
    let bar = ProgressBar::with_draw_target(Some(total), target);
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style.progress_chars("━╸─")),
        Err(_) => bar,
    }
}

/// Where a bar is drawn, and how there.
fn target(template: &str, out: &Output) -> (ProgressDrawTarget, String) {
    if out.is_quiet() {
        return (ProgressDrawTarget::hidden(), template.to_owned());
    }
    #[cfg(unix)]
    if let Some(loan) = out.stderr().loan() {
        let target = if loan.is_watched { lent::target(loan) } else { ProgressDrawTarget::hidden() };
        return (target, lent::template(template, out.stderr().has_colours()));
    }
    (ProgressDrawTarget::stderr(), template.to_owned())
}

/// A bar over the bytes of a file.
pub(crate) fn over_bytes(total: u64, out: &Output) -> ProgressBar {
    bar(total, "{msg} {bar:30.cyan} {binary_bytes:>10}/{binary_total_bytes} {eta:>4}", out)
}

/// A bar over events.
pub(crate) fn over_events(total: u64, out: &Output) -> ProgressBar {
    bar(total, "{msg} {bar:30.cyan} {human_pos:>10}/{human_len} {eta:>4}", out)
}
