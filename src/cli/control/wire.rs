//! The bytes of the control channel.
//!
//! Invariant: nothing is read that is longer than its limit, and no length is believed before it was compared with one.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::{Error, ErrorKind};

/// How long a hello is.
pub(super) const HELLO_BYTES: usize = 32;

/// How much a request may take. Linux gives a process at most 2 MiB of arguments, unless its stack is unusual.
pub(super) const REQUEST_BYTES: usize = 4 << 20;

/// How much input goes over at a time.
pub(super) const INPUT_BYTES: usize = 64 << 10;

/// How long the words of a refusal may be.
const WORDS_BYTES: usize = 4 << 10;

const MAGIC: [u8; 8] = *b"slcontrl";
const PROTOCOL: u32 = 1;
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// What each side says first: the magic word, the version of the protocol, and that of the program, whose arguments the
/// other has to understand as it does.
pub(super) fn hello() -> [u8; HELLO_BYTES] {
    let mut hello = [0; HELLO_BYTES];
    let parts = MAGIC.iter().copied().chain(PROTOCOL.to_le_bytes()).chain(PROGRAM.bytes());
    hello.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
    hello
}

/// Whether the other side's hello is ours.
pub(super) fn check(theirs: &[u8; HELLO_BYTES]) -> Result<(), Error> {
    if *theirs == hello() {
        return Ok(());
    }
    let Some((protocol, program)) = theirs.strip_prefix(&MAGIC).and_then(|rest| rest.split_first_chunk()) else {
        return Err(Error::new(ErrorKind::Client, "expected syncledger at the other end, got something else"));
    };
    let program = String::from_utf8_lossy(program);
    let (protocol, program) = (u32::from_le_bytes(*protocol), program.trim_end_matches('\0').escape_debug());
    let message = format!("expected syncledger {PROGRAM} at the other end, got {program} (protocol {protocol})");
    Err(Error::new(ErrorKind::UpgradeNeeded, message)
        .with_hint("end the process that holds the store, and start it again with the same version"))
}

/// What the caller's streams are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin_is_terminal: bool,
    pub(super) stdout_has_colours: bool,
    pub(super) stderr_has_colours: bool,
    pub(super) stderr_is_watched: bool,
}

impl Streams {
    fn to_byte(self) -> u8 {
        let flags =
            [self.stdin_is_terminal, self.stdout_has_colours, self.stderr_has_colours, self.stderr_is_watched];
        flags.into_iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(flag))
    }

    fn of_byte(byte: u8) -> Self {
        let flag = |at: u8| byte >> at & 1 == 1;
        Self {
            stdin_is_terminal: flag(0),
            stdout_has_colours: flag(1),
            stderr_has_colours: flag(2),
            stderr_is_watched: flag(3),
        }
    }
}

/// What the caller wants to be run, and what it sees from where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) streams: Streams,
    /// The directory that the caller is in.
    pub(super) dir: PathBuf,
    /// The store as the caller's arguments or environment name it: answers repeat that.
    pub(super) store: PathBuf,
    /// With the program's name.
    pub(super) arguments: Vec<OsString>,
}

impl Request {
    /// A byte of streams, then the directory, the store and each argument, with their lengths before them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.streams.to_byte()];
        let arguments = self.arguments.iter().map(OsString::as_os_str);
        for part in [self.dir.as_os_str(), self.store.as_os_str()].into_iter().chain(arguments) {
            bytes.extend(length(part.as_bytes()));
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&streams, mut rest) = bytes.split_first()?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk()?;
            let (part, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            parts.push(OsStr::from_bytes(part).to_owned());
            rest = after;
        }
        let mut parts = parts.into_iter();
        let (dir, store) = (parts.next()?.into(), parts.next()?.into());
        Some(Self { streams: Streams::of_byte(streams), dir, store, arguments: parts.collect() })
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// What the holder says.
#[derive(Debug)]
pub(super) enum Said {
    /// Ctrl-C is to be for the command, which ends in its own time. It waits until the caller says that it is so: what it
    /// prints next must not be seen before.
    Listens,
    /// The command wants input.
    Wants,
    /// The command has ended.
    Ended(u8),
    /// Nothing was run.
    Refused(Error),
}

impl Said {
    pub(super) fn write(&self, into: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Listens => into.write_all(b"l"),
            Self::Wants => into.write_all(b"w"),
            Self::Ended(code) => into.write_all(&[b'e', *code]),
            Self::Refused(error) => {
                let words = [error.kind().code(), error.message(), error.hint().unwrap_or_default()].join("\0");
                let words = words.as_bytes().get(..WORDS_BYTES).unwrap_or(words.as_bytes());
                into.write_all(&[b"r", length(words).as_slice(), words].concat())
            }
        }
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        match byte(from)? {
            b'l' => Ok(Self::Listens),
            b'w' => Ok(Self::Wants),
            b'e' => Ok(Self::Ended(byte(from)?)),
            b'r' => Ok(Self::Refused(refusal(&part(from, WORDS_BYTES)?))),
            other => Err(unknown(other)),
        }
    }
}

fn refusal(words: &[u8]) -> Error {
    let words = String::from_utf8_lossy(words);
    let mut words = words.split('\0');
    let kind = words.next().and_then(ErrorKind::from_code).unwrap_or(ErrorKind::Server);
    let error = Error::new(kind, words.next().unwrap_or("the process that holds the store refused the command"));
    match words.next() {
        None | Some("") => error,
        Some(hint) => error.with_hint(hint),
    }
}

/// What the caller says once its request is sent.
#[derive(Debug)]
pub(super) enum Heard {
    /// What the command wanted: an empty input is the end of it.
    Input(Vec<u8>),
    /// The input cannot be read: the operating system's number of why.
    Unreadable(i32),
    /// Ctrl-C is for the command from now on.
    Listens,
    /// Somebody pressed Ctrl-C.
    Cancel,
}

impl Heard {
    pub(super) fn write(&self, into: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Input(bytes) => into.write_all(&[b"i", length(bytes).as_slice(), bytes].concat()),
            Self::Unreadable(number) => into.write_all(&[b"u".as_slice(), &number.to_le_bytes()].concat()),
            Self::Listens => into.write_all(b"l"),
            Self::Cancel => into.write_all(b"c"),
        }
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        match byte(from)? {
            b'i' => Ok(Self::Input(part(from, INPUT_BYTES)?)),
            b'u' => Ok(Self::Unreadable(i32::from_le_bytes(array(from)?))),
            b'l' => Ok(Self::Listens),
            b'c' => Ok(Self::Cancel),
            other => Err(unknown(other)),
        }
    }
}

fn byte(from: &mut impl Read) -> io::Result<u8> {
    array::<1>(from).map(|[byte]| byte)
}

pub(super) fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Bytes with their length before them.
pub(super) fn part(from: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(u32::from_le_bytes(array(from)?)).unwrap_or(usize::MAX);
    if length > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("expected at most {most} bytes, got {length}"),
        ));
    }
    let mut bytes = Vec::new();
    match from.take(length as u64).read_to_end(&mut bytes)? == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn unknown(byte: u8) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("expected a message of the control channel, got byte {byte}"))
}

/// The bytes with their length before them.
pub(super) fn with_length(bytes: &[u8]) -> Vec<u8> {
    [length(bytes).as_slice(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn request() -> Request {
        Request {
            streams: Streams {
                stdin_is_terminal: true,
                stdout_has_colours: false,
                stderr_has_colours: true,
                stderr_is_watched: false,
            },
            dir: "/somewhere".into(),
            store: OsString::from_vec(b"led\xffger".to_vec()).into(),
            arguments: vec!["syncledger".into(), OsString::new(), OsString::from_vec(vec![0xfe])],
        }
    }

    #[test]
    fn a_request_comes_back_whatever_bytes_its_names_have() {
        assert_eq!(Request::decode(&request().encode()), Some(request()));
    }

    #[test]
    fn a_request_that_is_cut_anywhere_lacks_a_part_or_is_none() {
        let whole = request().encode();
        for cut in 0..whole.len() {
            assert_ne!(Request::decode(&whole[..cut]), Some(request()), "cut at {cut}");
        }
        let mut lying = whole;
        lying[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Request::decode(&lying), None);
    }

    #[test]
    fn another_version_is_told_from_something_else() {
        assert!(check(&hello()).is_ok());
        let (mut newer, mut other) = (hello(), hello());
        newer[8] += 1;
        other[0] += 1;
        assert_eq!(check(&newer).unwrap_err().kind(), ErrorKind::UpgradeNeeded);
        assert_eq!(check(&other).unwrap_err().kind(), ErrorKind::Client);
    }

    #[test]
    fn a_refusal_comes_back_with_its_kind_and_its_hint_and_no_longer_than_allowed() {
        let mut bytes = Vec::new();
        let error = Error::new(ErrorKind::Locked, "busy").with_hint("try again");
        Said::Refused(error).write(&mut bytes).unwrap();
        let Said::Refused(read) = Said::read(&mut bytes.as_slice()).unwrap() else { panic!("{bytes:?}") };
        assert_eq!((read.kind(), read.message(), read.hint()), (ErrorKind::Locked, "busy", Some("try again")));
        bytes.clear();
        Said::Refused(Error::new(ErrorKind::Locked, "x".repeat(1 << 20))).write(&mut bytes).unwrap();
        assert!(Said::read(&mut bytes.as_slice()).is_ok());
    }

    #[test]
    fn a_part_that_says_to_be_longer_than_allowed_is_not_read() {
        let bytes = [u32::MAX.to_le_bytes().as_slice(), b"abc"].concat();
        assert_eq!(part(&mut bytes.as_slice(), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(part(&mut with_length(b"abc").as_slice(), 3).unwrap(), b"abc");
    }
}
