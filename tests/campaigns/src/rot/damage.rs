//! What a disk does to a file with time, and what kinds of files there are.

use std::fmt;

use crate::chance::Chance;

const SECTOR: usize = 512;
/// How often a place is sought that another damage would change.
const TRIES: usize = 20;

/// What a file of a store, of an archive or of a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    StoreId,
    Catalog,
    Head,
    Floors,
    Archives,
    Generation,
    Ballast,
    Lock,
    Front,
    SledLog,
    SledSettings,
    SledSnapshot,
    SledLarge,
    Values,
    Index,
    Base,
    Segment,
    SegmentIds,
    Blob,
    ArchiveFile,
    Backup,
    Other,
}

impl Kind {
    /// Of a path below the directory that holds `store`, `archive` and `backup`.
    pub fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["archive", ..] => Self::ArchiveFile,
            ["backup", ..] => Self::Backup,
            ["store", "store"] => Self::StoreId,
            ["store", "catalog"] => Self::Catalog,
            ["store", "head"] => Self::Head,
            ["store", "floors"] => Self::Floors,
            ["store", "archives"] => Self::Archives,
            ["store", "generation"] => Self::Generation,
            ["store", "ballast"] => Self::Ballast,
            ["store", "lock"] => Self::Lock,
            ["store", "front-0" | "front-1"] => Self::Front,
            ["store", "rows", "index"] => Self::Index,
            ["store", "rows", ..] => Self::Values,
            ["store", "base", ..] => Self::Base,
            ["store", "blobs", ..] => Self::Blob,
            ["store", "sealed", name] if name.ends_with(".ids") => Self::SegmentIds,
            ["store", "sealed", ..] => Self::Segment,
            ["store", dir, rest @ ..] if dir.starts_with("journal") => Self::of_sled(rest),
            _ => Self::Other,
        }
    }

    fn of_sled(parts: &[&str]) -> Self {
        match parts {
            ["db"] => Self::SledLog,
            ["conf"] => Self::SledSettings,
            ["blobs", ..] => Self::SledLarge,
            [name] if name.starts_with("snap.") => Self::SledSnapshot,
            _ => Self::Other,
        }
    }

    /// Whether everything in it follows from other files: whatever befalls it, all has to be as it was.
    pub fn is_derived(self) -> bool {
        matches!(self, Self::Values | Self::Index | Self::SegmentIds)
    }

    /// Whether the end of the log after the last checkpoint lies in it.
    pub fn holds_the_tail(self) -> bool {
        matches!(self, Self::Front | Self::SledLog | Self::SledLarge)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::StoreId => "store id",
            Self::Catalog => "catalogue",
            Self::Head => "head",
            Self::Floors => "floors",
            Self::Archives => "note of archives",
            Self::Generation => "generation",
            Self::Ballast => "ballast",
            Self::Lock => "lock",
            Self::Front => "front",
            Self::SledLog => "sled log",
            Self::SledSettings => "sled settings",
            Self::SledSnapshot => "sled snapshot",
            Self::SledLarge => "sled large value",
            Self::Values => "rows",
            Self::Index => "index of rows",
            Self::Base => "base",
            Self::Segment => "segment",
            Self::SegmentIds => "ids of a segment",
            Self::Blob => "large value",
            Self::ArchiveFile => "archive",
            Self::Backup => "backup",
            Self::Other => "other file",
        })
    }
}

/// One damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Flip {
        byte: usize,
        bit: u8,
    },
    Zero {
        sector: usize,
    },
    /// A sector holds what another file has at this place.
    Exchange {
        sector: usize,
        from: usize,
    },
    Truncate {
        length: usize,
    },
}

impl Damage {
    fn any(length: usize, other: usize, chance: &mut Chance) -> Self {
        let sector = chance.below(length.div_ceil(SECTOR)) * SECTOR;
        match chance.below(5) {
            0 | 1 => Self::Flip { byte: chance.below(length), bit: chance.below(8) as u8 },
            2 => Self::Zero { sector },
            3 => Self::Exchange { sector, from: chance.below(other.div_ceil(SECTOR)) * SECTOR },
            _ => Self::Truncate { length: chance.below(length) },
        }
    }

    /// The bytes of a file after it.
    fn done_to(self, file: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = file.to_vec();
        match self {
            Self::Flip { byte, bit } => bytes.iter_mut().skip(byte).take(1).for_each(|byte| *byte ^= 1 << bit),
            Self::Zero { sector } => bytes.iter_mut().skip(sector).take(SECTOR).for_each(|byte| *byte = 0),
            Self::Exchange { sector, from } => {
                let with = other.iter().skip(from);
                bytes.iter_mut().skip(sector).take(SECTOR).zip(with).for_each(|(byte, other)| *byte = *other);
            }
            Self::Truncate { length } => bytes.truncate(length),
        }
        bytes
    }
}

/// Damages a file that is not empty; `None` where no damage was found that changes it.
pub fn damage(file: &[u8], other: &[u8], chance: &mut Chance) -> Option<(Damage, Vec<u8>)> {
    for _ in 0..TRIES {
        let damage = Damage::any(file.len(), other.len(), chance);
        let bytes = damage.done_to(file, other);
        if bytes != file {
            return Some((damage, bytes));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_store_is_of_a_kind() {
        let kinds = [
            ("store/catalog", Kind::Catalog),
            ("store/front-1", Kind::Front),
            ("store/journal/db", Kind::SledLog),
            ("store/journal-3/conf", Kind::SledSettings),
            ("store/journal/snap.00000000000000AB", Kind::SledSnapshot),
            ("store/journal/blobs/12", Kind::SledLarge),
            ("store/rows/values-0000000000000001", Kind::Values),
            ("store/rows/index", Kind::Index),
            ("store/sealed/x-1-2.slsg", Kind::Segment),
            ("store/sealed/x-1-2.ids", Kind::SegmentIds),
            ("store/blobs/ab/cdef", Kind::Blob),
            ("archive/main/x.slbk", Kind::ArchiveFile),
            ("backup/first.slbk", Kind::Backup),
            ("store/again/x.log", Kind::Other),
        ];
        for (path, kind) in kinds {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
    }

    #[test]
    fn a_damage_changes_one_bit_one_sector_or_the_end() {
        let file: Vec<u8> = (0..2_000).map(|n| (n % 251) as u8 + 1).collect();
        let other = vec![9; 700];
        let changed = |damage: Damage| -> Vec<usize> {
            let bytes = damage.done_to(&file, &other);
            (0..file.len()).filter(|at| bytes.get(*at) != file.get(*at)).collect()
        };
        assert_eq!(changed(Damage::Flip { byte: 7, bit: 3 }), [7]);
        assert_eq!(changed(Damage::Zero { sector: 512 }), (512..1_024).collect::<Vec<_>>());
        assert_eq!(changed(Damage::Zero { sector: 1_536 }), (1_536..2_000).collect::<Vec<_>>());
        assert_eq!(changed(Damage::Truncate { length: 1_990 }), (1_990..2_000).collect::<Vec<_>>());
        let exchanged = changed(Damage::Exchange { sector: 0, from: 512 });
        assert!(exchanged.iter().all(|at| *at < 188) && exchanged.len() > 180);
    }

    #[test]
    fn damages_follow_from_chance_and_always_change_something() {
        let file: Vec<u8> = (0..900).map(|n| (n / 600) as u8).collect();
        let all = |seed| (0..200).map(|n| damage(&file, &file, &mut Chance::new(seed, n))).collect::<Vec<_>>();
        assert!(all(1).iter().flatten().all(|(_, bytes)| *bytes != file));
        assert_eq!(all(1), all(1));
        assert!(all(1).iter().flatten().count() > 190);
        assert!(damage(&[0], &[], &mut Chance::new(1, 1)).is_some());
    }
}
