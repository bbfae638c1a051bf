//! Bytes that are compressed where that makes them fewer.
//!
//! ```text
//! 0  bytes                     as they are
//! 1  one zstd frame
//! ```
//! Whoever unpacks knows how many bytes it will get: nothing of what is stored decides how much memory that takes.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Packs one thing after another.
pub(super) struct Packer {
    compressor: Compressor<'static>,
}

impl Packer {
    /// One that compresses at this level of zstd.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub(super) fn new(level: i32) -> io::Result<Self> {
        Ok(Self { compressor: Compressor::new(level)? })
    }

    /// Appends `raw`, packed.
    pub(super) fn pack(&mut self, out: &mut Vec<u8>, raw: &[u8]) {
        match self.compressor.compress(raw) {
            Ok(fewer) if fewer.len() < raw.len() => {
                out.push(ZSTD);
                out.extend_from_slice(&fewer);
            }
            _ => {
                out.push(PLAIN);
                out.extend_from_slice(raw);
            }
        }
    }
}

/// What was packed, if that were `raw` bytes; `None` for anything else.
pub(super) fn unpack(packed: &[u8], raw: usize) -> Option<Vec<u8>> {
    let (codec, bytes) = packed.split_first()?;
    let unpacked = match *codec {
        PLAIN if bytes.len() == raw => bytes.to_vec(),
        ZSTD => expand(bytes, raw).ok()?,
        _ => return None,
    };
    (unpacked.len() == raw).then_some(unpacked)
}

/// Decompresses at most so many bytes.
fn expand(stored: &[u8], most: usize) -> io::Result<Vec<u8>> {
    thread_local! {
        /// Making one takes longer than a small block.
        static KEPT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(stored, most)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Packer::new(1).unwrap().pack(&mut out, raw);
        out
    }

    #[test]
    fn bytes_come_back_and_no_more_are_stored_than_one_besides() {
        let noise: Vec<u8> = (0..500_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        for raw in [b"".as_slice(), b"a", &[7; 100_000], &noise] {
            let packed = packed(raw);
            assert!(packed.len() <= raw.len() + 1);
            assert_eq!(unpack(&packed, raw.len()).as_deref(), Some(raw));
        }
        assert!(packed(&[7; 100_000]).len() < 100);
    }

    #[test]
    fn what_unpacks_to_more_or_fewer_bytes_than_was_said_is_refused() {
        let bomb = packed(&[0; 50 << 20]);
        for said in [0, 1, 4_096, (50 << 20) - 1, (50 << 20) + 1] {
            assert_eq!(unpack(&bomb, said), None);
        }
        assert_eq!(unpack(&packed(b"ab"), 1), None);
    }

    #[test]
    fn no_codec_and_an_unknown_one_are_refused() {
        assert_eq!(unpack(b"", 0), None);
        assert_eq!(unpack(b"\x02ab", 2), None);
    }
}
