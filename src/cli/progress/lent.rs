//! Bars on the terminal of another process: what the library knows of terminals it knows of our own alone.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressDrawTarget, TermLike};

use crate::cli::caller::Loan;

/// How often a second a bar is drawn, as on a terminal of our own.
const DRAWN_PER_SECOND: u8 = 20;

/// What a terminal that does not say its size is taken for: rows and columns.
const SIZE: (u16, u16) = (24, 80);

/// A terminal of another process, drawn as a whole at each flush.
#[derive(Debug)]
struct Terminal {
    loan: Arc<Loan>,
    pending: Mutex<Vec<u8>>,
}

/// Draws on it.
pub(super) fn target(loan: &Arc<Loan>) -> ProgressDrawTarget {
    let terminal = Terminal { loan: Arc::clone(loan), pending: Mutex::default() };
    ProgressDrawTarget::term_like_with_hz(Box::new(terminal), DRAWN_PER_SECOND)
}

/// The template with the colours that go there: the library's own follow our stderr.
pub(super) fn template(template: &str, has_colours: bool) -> String {
    let bar = if has_colours { "\u{1b}[36m{bar:30}\u{1b}[0m" } else { "{bar:30}" };
    template.replace("{bar:30.cyan}", bar)
}

impl Terminal {
    fn pending(&self) -> MutexGuard<'_, Vec<u8>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.pending().extend_from_slice(text.as_ref());
        Ok(())
    }

    /// Moves the cursor so many times, if at all: zero would be one to a terminal.
    fn go(&self, by: usize, direction: char) -> io::Result<()> {
        if by == 0 { Ok(()) } else { self.add(format!("\u{1b}[{by}{direction}")) }
    }

    fn size(&self) -> (u16, u16) {
        let size = rustix::termios::tcgetwinsize(&self.loan.file).map(|size| (size.ws_row, size.ws_col));
        size.ok().filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or(SIZE)
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.size().1
    }

    fn height(&self) -> u16 {
        self.size().0
    }

    fn move_cursor_up(&self, by: usize) -> io::Result<()> {
        self.go(by, 'A')
    }

    fn move_cursor_down(&self, by: usize) -> io::Result<()> {
        self.go(by, 'B')
    }

    fn move_cursor_right(&self, by: usize) -> io::Result<()> {
        self.go(by, 'C')
    }

    fn move_cursor_left(&self, by: usize) -> io::Result<()> {
        self.go(by, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *self.pending());
        (&*self.loan).write_all(&drawn)
    }
}
