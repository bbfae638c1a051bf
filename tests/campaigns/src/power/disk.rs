//! What a disk guarantees after every record, and what it may hold besides when power fails there.
//!
//! - Bytes are guaranteed once an fsync or fdatasync that began after their write has succeeded. Later ones may be there,
//!   missing, or torn at sectors of 512 bytes; a sector that is there holds what the file had there at some moment.
//! - A file's length is guaranteed likewise; later changes of it may or may not have happened.
//! - A name that was made, moved or removed is guaranteed once its directory was fsynced after; until then it may or may
//!   not have happened, by itself, whatever happened to others. A rename happens as a whole.
//!
//! Under the lenient model, as on ext4 with ordered data, names change in their order, an fsync of a new file guarantees its
//! name, and a file never grows over bytes that are missing.
//!
//! Invariant: what is guaranteed never depends on chance.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::trace::Record;
use crate::Result;
use crate::chance::Chance;

const SECTOR: usize = 512;

/// A file or directory, for as long as the trace: names come and go.
type Node = usize;
/// A directory and a name in it.
type Place = (Node, String);
/// What names lead to.
type Tree = BTreeMap<Place, Node>;

const ROOT: Node = 0;

/// Which guarantees there are.
#[derive(Clone, Debug, Default)]
pub struct Guarantees {
    /// Names change in order, fsync of a file guarantees its name, and a file grows by bytes that are there.
    pub in_order: bool,
    /// An fdatasync guarantees nothing: to see that the campaign finds that out.
    pub no_fdatasync: bool,
    /// The ends of the paths of files and directories that are guaranteed at once: to look past faults that are known.
    pub spared: Vec<String>,
}

impl Guarantees {
    fn spare(&self, path: &str) -> bool {
        self.spared.iter().any(|end| path.ends_with(end))
    }
}

/// A change of a file that no fsync has guaranteed yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

#[derive(Clone, Debug, Default)]
struct File {
    is_spared: bool,
    guaranteed: Vec<u8>,
    /// Each with the number of its record.
    pending: Vec<(usize, Change)>,
}

/// A change of names.
#[derive(Clone, Debug)]
enum Naming {
    Make { at: Place, node: Node },
    Move { from: Place, to: Place, node: Node },
    Remove { at: Place, node: Node },
}

#[derive(Clone, Debug)]
struct PendingName {
    record: usize,
    naming: Naming,
    guaranteed: bool,
}

/// The disk after some records.
#[derive(Default)]
pub struct Disk {
    guarantees: Guarantees,
    /// The number of the next record.
    record: usize,
    nodes: usize,
    /// `None` for directories.
    files: BTreeMap<Node, File>,
    /// Which file or directory has an inode now.
    inodes: BTreeMap<u64, Node>,
    /// The names as the program sees them.
    seen: Tree,
    /// The names that are guaranteed, but for those still in `names`.
    tree: Tree,
    /// Changes of names in their order: the first is not guaranteed.
    names: Vec<PendingName>,
    /// Fsyncs that have begun: what they are of, and which record that was.
    syncs: BTreeMap<u64, (Node, usize)>,
}

/// Which of the changes that nothing guarantees have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    None,
    All,
    /// Those before one of them.
    First,
    /// Any.
    Some,
}

impl Fate {
    pub fn of(chance: &mut Chance) -> Self {
        match chance.below(8) {
            0 => Self::None,
            1 => Self::All,
            2 | 3 => Self::First,
            _ => Self::Some,
        }
    }
}

/// A file or directory of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Dir,
    File(Vec<u8>),
}

/// Everything that a disk holds, by path, directories before what is in them.
pub type Image = BTreeMap<String, Found>;

impl Disk {
    pub fn new(guarantees: Guarantees) -> Self {
        Self { guarantees, nodes: 1, ..Self::default() }
    }

    /// A disk that guarantees all of an image, which lies in a directory.
    pub fn holding(image: &Image, dir: &Path, guarantees: Guarantees) -> Result<Self> {
        let mut disk = Self::new(guarantees);
        for (path, found) in image {
            let node = disk.make(std::fs::metadata(dir.join(path))?.ino(), path)?;
            if let Found::File(bytes) = found {
                disk.files.insert(node, File { guaranteed: bytes.clone(), ..disk.new_file(path) });
            }
        }
        disk.tree.clone_from(&disk.seen);
        disk.names.clear();
        Ok(disk)
    }

    /// The disk after one more record.
    pub fn follow(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::Begin { inode } => drop(self.inodes.insert(*inode, ROOT)),
            Record::Create { inode, path } => {
                let node = self.make(*inode, path)?;
                self.files.insert(node, self.new_file(path));
            }
            Record::MakeDir { inode, path } => drop(self.make(*inode, path)?),
            Record::Truncate { inode, length } => self.change(*inode, Change::Truncate { length: *length }),
            Record::Write { inode, offset, bytes } => {
                self.change(*inode, Change::Write { offset: *offset, bytes: bytes.clone() });
            }
            Record::Rename { from, to } => {
                let (from, to) = (self.place(from)?, self.place(to)?);
                let node = self.node(&from)?;
                self.name(Naming::Move { from, to, node });
            }
            Record::Unlink { path } | Record::RemoveDir { path } => {
                let at = self.place(path)?;
                let node = self.node(&at)?;
                self.name(Naming::Remove { at, node });
            }
            Record::SyncBegin { inode, number } => {
                let begun = self.inodes.get(inode).map(|node| (*node, self.record));
                self.syncs.extend(begun.map(|begun| (*number, begun)));
            }
            Record::SyncEnd { number, data_only } => {
                if let Some((node, record)) = self.syncs.remove(number)
                    && !(*data_only && self.guarantees.no_fdatasync)
                {
                    self.guarantee(node, record);
                }
            }
            Record::Said { .. } => {}
        }
        self.record += 1;
        Ok(())
    }

    fn make(&mut self, inode: u64, path: &str) -> Result<Node> {
        let node = self.nodes;
        self.nodes += 1;
        self.inodes.insert(inode, node);
        let at = self.place(path)?;
        self.name(Naming::Make { at, node });
        if let Some(name) = self.names.last_mut().filter(|_| self.guarantees.spare(path)) {
            name.guaranteed = true;
            self.settle_names();
        }
        Ok(node)
    }

    fn new_file(&self, path: &str) -> File {
        File { is_spared: self.guarantees.spare(path), ..File::default() }
    }

    fn place(&self, path: &str) -> Result<Place> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut node = ROOT;
        for part in dir.split('/').filter(|part| !part.is_empty()) {
            node = self.node(&(node, part.to_owned()))?;
        }
        Ok((node, name.to_owned()))
    }

    fn node(&self, place: &Place) -> Result<Node> {
        let found = self.seen.get(place).copied();
        found.ok_or_else(|| format!("record {}: `{}` was never made: something escaped", self.record, place.1).into())
    }

    /// A file that is none of ours has no node.
    fn change(&mut self, inode: u64, change: Change) {
        let file = self.inodes.get(&inode).and_then(|node| self.files.get_mut(node));
        match file {
            Some(file) if file.is_spared => change.happen(&mut file.guaranteed),
            Some(file) => file.pending.push((self.record, change)),
            None => {}
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.happen(&mut self.seen);
        self.names.push(PendingName { record: self.record, naming, guaranteed: false });
    }

    /// An fsync that began at a record has succeeded.
    fn guarantee(&mut self, node: Node, until: usize) {
        let is_new_file = |naming: &Naming| matches!(naming, Naming::Make { node: made, .. } if *made == node);
        let lenient = self.guarantees.in_order;
        let is_meant = |naming: &Naming| naming.is_in(node) || (lenient && is_new_file(naming));
        if let Some(file) = self.files.get_mut(&node) {
            file.guarantee(until);
        }
        let mut last = None;
        for (at, name) in self.names.iter_mut().enumerate().filter(|(_, name)| name.record < until) {
            if is_meant(&name.naming) {
                name.guaranteed = true;
                last = Some(at);
            }
        }
        if let Some(last) = last.filter(|_| lenient) {
            self.names.iter_mut().take(last + 1).for_each(|name| name.guaranteed = true);
        }
        self.settle_names();
    }

    /// What comes before everything that is not guaranteed has happened.
    fn settle_names(&mut self) {
        let settled = self.names.iter().take_while(|name| name.guaranteed).count();
        self.names.drain(..settled).for_each(|name| name.naming.happen(&mut self.tree));
    }

    /// What the disk may hold if power fails now.
    pub fn image(&self, names: Fate, bytes: Fate, chance: &mut Chance) -> Image {
        let mut tree = self.tree.clone();
        let fate = if self.guarantees.in_order && names == Fate::Some { Fate::First } else { names };
        let guaranteed: Vec<bool> = self.names.iter().map(|name| name.guaranteed).collect();
        for (name, happened) in self.names.iter().zip(choose(&guaranteed, fate, chance)) {
            if happened {
                name.naming.happen(&mut tree);
            }
        }
        let mut image = Image::new();
        self.gather(&tree, ROOT, "", bytes, chance, &mut image);
        image
    }

    fn gather(&self, tree: &Tree, dir: Node, path: &str, bytes: Fate, chance: &mut Chance, image: &mut Image) {
        for ((_, name), node) in tree.range((dir, String::new())..(dir + 1, String::new())) {
            let path = format!("{path}{name}");
            match self.files.get(node) {
                Some(file) => {
                    drop(image.insert(path, Found::File(file.after_a_cut(bytes, self.guarantees.in_order, chance))))
                }
                None => {
                    image.insert(path.clone(), Found::Dir);
                    self.gather(tree, *node, &format!("{path}/"), bytes, chance, image);
                }
            }
        }
    }
}

impl Naming {
    /// Whether fsync of a directory guarantees it.
    fn is_in(&self, dir: Node) -> bool {
        match self {
            Self::Make { at, .. } | Self::Remove { at, .. } => at.0 == dir,
            Self::Move { from, to, .. } => from.0 == dir || to.0 == dir,
        }
    }

    fn happen(&self, tree: &mut Tree) {
        let forget = |tree: &mut Tree, at: &Place, node| {
            if tree.get(at) == Some(node) {
                tree.remove(at);
            }
        };
        match self {
            Self::Make { at, node } => drop(tree.insert(at.clone(), *node)),
            Self::Remove { at, node } => forget(tree, at, node),
            Self::Move { from, to, node } => {
                forget(tree, from, node);
                tree.insert(to.clone(), *node);
            }
        }
    }
}

/// Which of some changes happened; those that are guaranteed have, whatever chance says.
fn choose(guaranteed: &[bool], fate: Fate, chance: &mut Chance) -> Vec<bool> {
    let least = guaranteed.iter().rposition(|guaranteed| *guaranteed).map_or(0, |last| last + 1);
    let first = chance.between(least, guaranteed.len());
    let often = *chance.pick(&[2, 2, 8]).unwrap_or(&2);
    let mostly = chance.one_in(2);
    let chosen = guaranteed.iter().enumerate().map(|(at, guaranteed)| {
        let happened = match fate {
            Fate::None => false,
            Fate::All => true,
            Fate::First => at < first,
            Fate::Some => chance.one_in(often) != mostly,
        };
        *guaranteed || happened
    });
    chosen.collect()
}

impl File {
    fn guarantee(&mut self, until: usize) {
        let count = self.pending.iter().take_while(|(record, _)| *record < until).count();
        self.pending.drain(..count).for_each(|(_, change)| change.happen(&mut self.guaranteed));
    }

    /// The bytes that may be found after a power cut.
    fn after_a_cut(&self, fate: Fate, in_order: bool, chance: &mut Chance) -> Vec<u8> {
        let (mut cached, mut stored) = (self.guaranteed.clone(), self.guaranteed.clone());
        let mut lengths = vec![stored.len()];
        let (mut length, mut is_whole) = (stored.len(), true);
        let happened = choose(&vec![false; self.pending.len()], fate, chance);
        for ((_, change), happened) in self.pending.iter().zip(happened) {
            let grows = matches!(change, Change::Write { offset, bytes } if offset + bytes.len() > cached.len());
            let torn = fate == Fate::Some && chance.one_in(3);
            // Under the lenient model, what is cut off here is cut off for good.
            is_whole &= !(in_order && grows && (torn || !happened));
            change.happen(&mut cached);
            if is_whole {
                lengths.push(cached.len());
            }
            if happened {
                change.store(&cached, &mut stored, torn, chance);
                length = if is_whole { cached.len() } else { length };
            }
        }
        if fate == Fate::Some && !in_order && chance.one_in(2) {
            length = chance.pick(&lengths).copied().unwrap_or(length);
        }
        stored.resize(length, 0);
        stored
    }
}

impl Change {
    fn happen(&self, file: &mut Vec<u8>) {
        match self {
            Self::Truncate { length } => file.resize(*length, 0),
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                if let Some(place) = file.get_mut(*offset..end) {
                    place.copy_from_slice(bytes);
                }
            }
        }
    }

    /// Brings the sectors that this changed from the cache to the disk, all or, where it is torn, some.
    fn store(&self, cached: &[u8], stored: &mut Vec<u8>, torn: bool, chance: &mut Chance) {
        match self {
            Self::Truncate { length } => stored.truncate(*length),
            Self::Write { offset, bytes } => {
                let (first, end) = (offset / SECTOR, (offset + bytes.len()).div_ceil(SECTOR));
                for sector in (first..end).filter(|_| !torn || chance.one_in(2)) {
                    let (from, to) = (sector * SECTOR, cached.len().min((sector + 1) * SECTOR));
                    if stored.len() < to {
                        stored.resize(to, 0);
                    }
                    if let (Some(place), Some(bytes)) = (stored.get_mut(from..to), cached.get(from..to)) {
                        place.copy_from_slice(bytes);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DIR: u64 = 10;
    const FILE: u64 = 11;

    fn create(path: &str) -> Record {
        Record::Create { inode: FILE, path: path.to_owned() }
    }

    fn write(offset: usize, byte: u8, length: usize) -> Record {
        Record::Write { inode: FILE, offset, bytes: vec![byte; length] }
    }

    fn synced(inode: u64, number: u64, data_only: bool) -> [Record; 2] {
        [Record::SyncBegin { inode, number }, Record::SyncEnd { number, data_only }]
    }

    fn after(guarantees: &Guarantees, records: &[Record]) -> Disk {
        let mut disk = Disk::new(guarantees.clone());
        disk.follow(&Record::Begin { inode: DIR }).unwrap();
        records.iter().for_each(|record| disk.follow(record).unwrap());
        disk
    }

    /// What a file may be in many images: `None` where it is not there.
    fn found(disk: &Disk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
        let images = (0..600).map(|image| {
            let mut chance = Chance::new(1, image);
            let (names, bytes) = (Fate::of(&mut chance), Fate::of(&mut chance));
            disk.image(names, bytes, &mut chance)
        });
        let file = |image: Image| match image.get(path) {
            Some(Found::File(bytes)) => Some(bytes.clone()),
            _ => None,
        };
        images.map(file).collect()
    }

    #[test]
    fn what_is_synced_with_its_name_is_there_and_nothing_else_has_to_be() {
        let mut records = vec![create("f"), write(0, 1, 3)];
        records.extend(synced(FILE, 1, true));
        let by_itself = after(&Guarantees::default(), &records);
        assert_eq!(found(&by_itself, "f"), [None, Some(vec![1; 3])].into());
        let lenient = Guarantees { in_order: true, ..Guarantees::default() };
        assert_eq!(found(&after(&lenient, &records), "f"), [Some(vec![1; 3])].into());
        records.extend(synced(DIR, 2, false));
        assert_eq!(found(&after(&Guarantees::default(), &records), "f"), [Some(vec![1; 3])].into());
        let broken = Guarantees { no_fdatasync: true, ..Guarantees::default() };
        assert!(found(&after(&broken, &records), "f").contains(&Some(Vec::new())));
    }

    #[test]
    fn only_what_was_written_before_an_fsync_began_is_guaranteed_by_its_end() {
        let [begin, end] = synced(FILE, 1, false);
        let mut records = vec![create("f"), write(0, 1, 1)];
        records.extend(synced(DIR, 2, false));
        records.extend([begin, write(1, 2, 1), end]);
        let disk = after(&Guarantees::default(), &records);
        assert_eq!(found(&disk, "f"), [vec![1], vec![1, 0], vec![1, 2]].map(Some).into());
    }

    #[test]
    fn a_write_is_torn_at_sectors_and_a_sector_holds_what_was_there_at_a_moment() {
        let mut records = vec![create("f"), write(0, 1, 2 * SECTOR)];
        records.extend([synced(FILE, 1, false), synced(DIR, 2, false)].concat());
        records.extend([write(100, 2, 600), write(300, 3, 100)]);
        let states = found(&after(&Guarantees::default(), &records), "f");
        let whole: Vec<Vec<u8>> = states.into_iter().flatten().collect();
        let firsts: BTreeSet<_> = whole.iter().map(|file| (file[0], file[150], file[350])).collect();
        // Never the second write without the first, where they share a sector.
        assert_eq!(firsts, [(1, 1, 1), (1, 2, 2), (1, 2, 3)].into());
        assert!(
            whole.iter().any(|file| file[150] == 1 && file[600] == 2),
            "the first sector is missing, the second there"
        );
    }

    #[test]
    fn a_rename_happens_as_a_whole_or_not_at_all() {
        let mut records = vec![create("f"), write(0, 1, 1)];
        records.extend([synced(FILE, 1, false), synced(DIR, 2, false)].concat());
        records.push(Record::Rename { from: "f".to_owned(), to: "g".to_owned() });
        let disk = after(&Guarantees::default(), &records);
        for image in 0..100 {
            let mut chance = Chance::new(2, image);
            let names: Vec<String> = disk.image(Fate::Some, Fate::Some, &mut chance).into_keys().collect();
            assert!(names == ["f"] || names == ["g"], "{names:?}");
        }
        records.extend(synced(DIR, 3, false));
        assert_eq!(found(&after(&Guarantees::default(), &records), "g"), [Some(vec![1])].into());
    }
}
