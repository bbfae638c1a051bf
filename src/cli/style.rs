//! Colours: always written, and taken out by the stream where nobody can see them.

use clap::builder::styling::{AnsiColor, Style};

fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A title.
pub(crate) fn bold(text: impl std::fmt::Display) -> String {
    paint(Style::new().bold(), text)
}

/// What only some readers want.
pub(crate) fn dim(text: impl std::fmt::Display) -> String {
    paint(Style::new().dimmed(), text)
}

/// What is well, or to try.
pub(crate) fn good(text: impl std::fmt::Display) -> String {
    paint(AnsiColor::Green.on_default(), text)
}

/// What wants attention.
pub(crate) fn warn(text: impl std::fmt::Display) -> String {
    paint(AnsiColor::Yellow.on_default(), text)
}

/// What is wrong.
pub(crate) fn bad(text: impl std::fmt::Display) -> String {
    paint(AnsiColor::Red.on_default().bold(), text)
}

/// A name: a record, a field, a source.
pub(crate) fn name(text: impl std::fmt::Display) -> String {
    paint(AnsiColor::Cyan.on_default(), text)
}
