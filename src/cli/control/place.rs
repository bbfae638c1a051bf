//! Where the socket is: `control` in the store's directory, which may be deeper than a socket's address can say.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

const NAME: &str = "control";

/// It is made in a directory of this name that only our user enters: a socket has the rights of the process's mask until it
/// is given its own.
const CRADLE: &str = "control.new";

/// How long a directory may be that is written into an address. Linux has room for 107 bytes, macOS for 103.
const LONGEST: usize = 80;

/// The directory by a short way that is good as long as this value.
struct Way {
    path: PathBuf,
    _opened: Option<File>,
}

impl Way {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn to(dir: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        if dir.as_os_str().len() <= LONGEST {
            return Ok(Self { path: dir.to_owned(), _opened: None });
        }
        let opened = File::open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        Ok(Self { path, _opened: Some(opened) })
    }

    /// Here only the address itself leads there.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn to(dir: &Path) -> io::Result<Self> {
        if dir.as_os_str().len() <= LONGEST {
            return Ok(Self { path: dir.to_owned(), _opened: None });
        }
        let message = format!("expected a path of at most {LONGEST} bytes, got {}", dir.as_os_str().len());
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// Reaches whoever listens there.
pub(super) fn connect(dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Way::to(dir)?.path.join(NAME))
}

/// Listens there, in place of a holder of before who is dead: who calls this has the store's lock.
pub(super) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let cradle = dir.join(CRADLE);
    unless_absent(fs::remove_dir_all(&cradle))?;
    DirBuilder::new().mode(0o700).create(&cradle)?;
    let listener = UnixListener::bind(Way::to(dir)?.path.join(CRADLE).join(NAME))?;
    fs::set_permissions(cradle.join(NAME), Permissions::from_mode(0o600))?;
    fs::rename(cradle.join(NAME), dir.join(NAME))?;
    fs::remove_dir(&cradle)?;
    Ok(listener)
}

/// Takes it away, so that callers need not find out that nobody answers.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    unless_absent(fs::remove_file(dir.join(NAME)))
}

fn unless_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
        _ => Ok(()),
    }
}

/// Whether the other end is of the same user. The file's mode says so too; who runs as root reads past it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn is_same_user(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

/// Here the file's mode alone says so.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn is_same_user(_: &UnixStream) -> bool {
    true
}
