//! The page of benchmarks: what lies between its two marks is replaced, everything else stays.

use std::fs;
use std::path::Path;

use crate::Result;

const BEGIN: &str = "<!-- versus: begin -->";
const END: &str = "<!-- versus: end -->";

/// Puts tables between the marks of a page; makes the page where there is none.
pub fn write(path: &Path, tables: &str) -> Result<()> {
    let page = if path.exists() { fs::read_to_string(path)? } else { format!("# Benchmarks\n\n{BEGIN}\n{END}\n") };
    let replaced = replaced(&page, tables).ok_or_else(|| expected(path))?;
    Ok(fs::write(path, replaced)?)
}

/// Fails where the page has no marks: better before hours of measuring than after.
pub fn check(path: &Path) -> Result<()> {
    let has_marks = !path.exists() || replaced(&fs::read_to_string(path)?, "").is_some();
    has_marks.then_some(()).ok_or_else(|| expected(path).into())
}

fn expected(path: &Path) -> String {
    format!("expected a line `{BEGIN}` and, after it, a line `{END}` in {}", path.display())
}

fn replaced(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = "before\n<!-- versus: begin -->\nold\n<!-- versus: end -->\nafter\n";
        let expected = "before\n<!-- versus: begin -->\n\nnew\n\n<!-- versus: end -->\nafter\n";
        assert_eq!(replaced(page, "\nnew\n").as_deref(), Some(expected));
        assert_eq!(replaced("no marks", "new"), None);
    }
}
