//! Text for people: tables, counts and shortened values.

use comfy_table::{ContentArrangement, Table};
use serde_json::Value as Json;

use super::style;
use crate::shape;

/// A table with these column titles; rows are added by the caller.
pub(crate) fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !titles.is_empty() {
        table.set_header(titles.iter().map(style::bold));
    }
    table
}

/// How far a table may be indented; so much of a terminal's width is left free.
const INDENT: u16 = 6;

/// Where tables are read.
#[cfg(unix)]
#[derive(Clone, Copy)]
enum Paper {
    /// On this process's stdout, which is as wide as the library finds it.
    Ours,
    /// On another process's: a terminal of so many columns, or none.
    Lent(Option<u16>),
}

#[cfg(unix)]
thread_local! {
    /// A command runs in a thread of its own where others run beside it.
    static PAPER: std::cell::Cell<Paper> = const { std::cell::Cell::new(Paper::Ours) };
}

/// From now on this thread's tables are for another process: for its terminal of so many columns, or for none.
#[cfg(unix)]
pub(crate) fn print_for(columns: Option<u16>) {
    PAPER.set(Paper::Lent(columns));
}

/// Has the table know how wide it may be: by itself it looks at this process's stdout.
#[cfg(unix)]
fn fit(table: &mut Table) {
    if let Paper::Lent(columns) = PAPER.get() {
        table.force_no_tty();
        columns.map(|columns| table.set_width(columns));
    }
}

/// A table's text.
pub(crate) fn text(mut table: Table) -> String {
    #[cfg(unix)]
    fit(&mut table);
    if let Some(width) = table.width() {
        table.set_width(width.saturating_sub(INDENT));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A value on one line, shortened to `width` characters.
pub(crate) fn short(value: &Json, width: usize) -> String {
    shape::cut(&crate::event::json::canonical(value), width)
}

/// A value that may be absent, shortened.
pub(crate) fn short_or(value: Option<&Json>, absent: &str, width: usize) -> String {
    value.map_or_else(|| style::dim(absent), |value| short(value, width))
}

/// A count with its noun: `1 event`, `2 events`.
pub(crate) fn count(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{} {}", thousands(count), if count == 1 { one } else { many })
}

/// A number with its thousands apart: `12,345`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let separated = |(index, digit): (usize, char)| {
        let comma = index > 0 && (digits.len() - index).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(separated).collect()
}

/// A number of bytes: `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_table_is_as_wide_as_the_terminal_that_it_is_lent() {
        let widest = |columns| {
            print_for(columns);
            let mut table = table(&[]);
            table.add_row(["word ".repeat(20)]);
            text(table).lines().map(|line| line.chars().count()).max()
        };
        assert!(widest(Some(40)) <= Some(40));
        assert!(widest(None) >= Some(99), "no terminal has no width");
    }

    #[test]
    fn a_long_value_is_cut_at_a_character_and_control_characters_go() {
        assert_eq!(shape::cut("四个排序图", 4), "四个排…");
        assert_eq!(shape::cut("a\u{1b}[31m", 9), "a [31m");
    }
}
