//! `hold`: a store that stays open for the commands of other processes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::cli::app::App;
use crate::cli::control::Control;
use crate::cli::interrupt::Interrupt;
use crate::cli::stop::Outcome;
use crate::cli::style;

/// How long to wait for the end of stdin before looking whether somebody pressed Ctrl-C.
const GLANCE: Duration = Duration::from_millis(100);

const AFTER_HELP: &str = "\
In a bash script:
  coproc HOLD { syncledger hold; }
  read -r <&\"${HOLD[0]}\"
  … many commands …
  eval \"exec ${HOLD[1]}>&-\"; wait";

/// Keep the store open, so that other commands on it need not open it each time. It holds the store and runs the others'
/// commands until Ctrl-C or SIGTERM; or, where its stdin is a pipe, until that ends. The line that it prints says that it
/// is ready.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Hold {}

impl Hold {
    pub(crate) fn run(self, app: &mut App) -> Outcome {
        let store = app.store()?;
        let interrupt = Interrupt::listen_for_all()?;
        let control = Control::listen(&store)?;
        let stdin = piped_stdin()?;
        announce(app, if stdin.is_some() { "stdin ends" } else { "Ctrl-C" })?;
        wait(stdin, &interrupt)?;
        drop(control);
        Ok(store.close()?)
    }
}

fn announce(app: &mut App, end: &str) -> Outcome {
    let dir = app.globals.store.display().to_string();
    let object = json!({ "store": dir, "pid": std::process::id() });
    app.out.answer(&object, || format!("{} {dir} until {end}", style::good("holding")))?;
    app.out.flush()
}

/// Stdin, where it has an other end that somebody can close. Nothing has ended where it is `/dev/null`, which is what runs in
/// the background is given; and who reads a terminal from there is stopped.
fn piped_stdin() -> io::Result<Option<File>> {
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let kind = stdin.metadata()?.file_type();
    Ok(Some(stdin).filter(|_| kind.is_fifo() || kind.is_socket()))
}

/// Waits until stdin ends; what comes there until then is nothing to us.
fn wait(mut stdin: Option<File>, interrupt: &Interrupt) -> io::Result<()> {
    let mut ignored = [0; 4096];
    while !interrupt.is_set() {
        let is_ready = is_ready(stdin.as_ref())?;
        if let Some(stdin) = stdin.as_mut().filter(|_| is_ready)
            && stdin.read(&mut ignored)? == 0
        {
            break;
        }
    }
    Ok(())
}

fn is_ready(stdin: Option<&File>) -> io::Result<bool> {
    let mut watched: Vec<_> = stdin.map(|stdin| PollFd::new(stdin, PollFlags::IN)).into_iter().collect();
    let glance = Timespec { tv_sec: 0, tv_nsec: GLANCE.subsec_nanos().into() };
    match poll(&mut watched, Some(&glance)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        other => Ok(other? > 0),
    }
}
