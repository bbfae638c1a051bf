//! A line of a device to the server that obeys no more than TCP promises: what comes through is whole and in order up to where it ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Result;
use crate::chance::Chance;

/// How long a line that is dead, or on which nothing comes, is left before it is looked at again.
const GLANCE: Duration = Duration::from_millis(20);
/// How many bytes come through at once, and on a line that crawls.
const CHUNK: usize = 16 << 10;
const CRAWL: usize = 256;

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// All comes so many milliseconds late.
    Late(u64),
    /// Little comes through at once.
    Crawling,
    /// One of four chunks comes in part, and the line is cut there.
    Cutting,
    /// Lines are accepted and stay open, and nothing comes through. Once the weather is another these lines are closed: the network
    /// has forgotten them.
    Dead,
}

impl Weather {
    pub fn any(chance: &mut Chance) -> Self {
        match chance.below(8) {
            0..3 => Self::Clear,
            3 => Self::Late(5 + chance.below(200) as u64),
            4 => Self::Crawling,
            5 | 6 => Self::Cutting,
            _ => Self::Dead,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear lines",
            Self::Late(_) => "late lines",
            Self::Crawling => "crawling lines",
            Self::Cutting => "cutting lines",
            Self::Dead => "dead lines",
        }
    }
}

/// Where the server is now; it may be nowhere.
pub type Upstream = Arc<Mutex<Option<SocketAddr>>>;

struct Inner {
    weather: Mutex<Weather>,
    upstream: Upstream,
    cuts: AtomicU64,
    is_over: AtomicBool,
    seed: u64,
    lines: AtomicU64,
}

impl Inner {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy, until dropped.
pub struct Proxy {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::Relaxed);
    }
}

impl Proxy {
    pub fn open(upstream: Upstream, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (weather, cuts, is_over, lines) = (Mutex::new(Weather::Clear), 0.into(), false.into(), 0.into());
        let inner = Arc::new(Inner { weather, upstream, cuts, is_over, seed, lines });
        let serving = inner.clone();
        std::thread::spawn(move || serve(&listener, &serving));
        Ok(Self { inner, address })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, weather: Weather) {
        *self.inner.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// How many lines were cut within a chunk.
    pub fn cuts(&self) -> u64 {
        self.inner.cuts.load(Ordering::Relaxed)
    }
}

fn serve(listener: &TcpListener, inner: &Arc<Inner>) {
    while !inner.is_over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((device, _)) => {
                let inner = inner.clone();
                std::thread::spawn(move || connect(device, &inner));
            }
            Err(_) => std::thread::sleep(GLANCE / 4),
        }
    }
}

/// One line, both ways, until it ends.
fn connect(device: TcpStream, inner: &Arc<Inner>) {
    while inner.weather() == Weather::Dead && !inner.is_over.load(Ordering::Relaxed) {
        std::thread::sleep(GLANCE);
        if inner.weather() != Weather::Dead {
            return;
        }
    }
    let upstream = *inner.upstream.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Ok(server)) = upstream.map(TcpStream::connect) else { return };
    let number = inner.lines.fetch_add(1, Ordering::Relaxed);
    let (Ok(from_server), Ok(to_device)) = (server.try_clone(), device.try_clone()) else { return };
    let back = {
        let (inner, chance) = (inner.clone(), Chance::new(inner.seed, 2 * number));
        std::thread::spawn(move || pump(from_server, to_device, &inner, chance))
    };
    pump(device, server, inner, Chance::new(inner.seed, 2 * number + 1));
    let _ = back.join();
}

/// One way of a line. Where it ends both ways end.
fn pump(mut from: TcpStream, mut to: TcpStream, inner: &Inner, mut chance: Chance) {
    let _ = from.set_read_timeout(Some(GLANCE));
    let mut was_dead = false;
    while !inner.is_over.load(Ordering::Relaxed) {
        let weather = inner.weather();
        if weather == Weather::Dead {
            was_dead = true;
            std::thread::sleep(GLANCE);
            continue;
        }
        if was_dead || !pass(&mut from, &mut to, (weather, inner), &mut chance) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Passes a chunk on, if there is one. Whether the line goes on.
fn pass(from: &mut TcpStream, to: &mut TcpStream, (weather, inner): (Weather, &Inner), chance: &mut Chance) -> bool {
    let mut chunk = [0; CHUNK];
    let most = if weather == Weather::Crawling { CRAWL } else { CHUNK };
    let read = match from.read(chunk.get_mut(..most).unwrap_or_default()) {
        Ok(0) => return false,
        Ok(read) => read,
        Err(fault) => return matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    match weather {
        Weather::Late(late_ms) => std::thread::sleep(Duration::from_millis(late_ms)),
        Weather::Crawling => std::thread::sleep(GLANCE),
        _ => {}
    }
    let is_cut = weather == Weather::Cutting && chance.one_in(4);
    let sent = if is_cut { chance.below(read) } else { read };
    inner.cuts.fetch_add(is_cut.into(), Ordering::Relaxed);
    to.write_all(chunk.get(..sent).unwrap_or_default()).is_ok() && !is_cut
}
