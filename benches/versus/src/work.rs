//! The work that is measured: every piece by name, and how much of it is done.

use crate::report::Report;
use crate::{Result, copies, files, long, many, pouchdb, reads, replicas, samod, served, writes};

// The names of work that peers do too: their samples stand in the same rows.
pub const ALONE: &str = "one-field patches, one caller";
pub const CALLERS: &str = "one-field patches, 64 callers";
pub const CREATES: &str = "creates of ten fields, 256 a batch";
pub const EVEN: &str = "one-field patches, even, 256 a batch";
pub const ZIPF: &str = "one-field patches, Zipf, 256 a batch";
pub const HOT: &str = "get, hot, as a value";
pub const PULLED: &str = "pull of records into an empty replica";

/// How much is done in each round.
pub struct Sizes {
    /// Records of ten fields that are created, patched, read and pulled.
    pub records: usize,
    /// Patches under Zipf, linear or in part concurrent.
    pub patches: usize,
    /// Patches that are spread evenly.
    pub even: usize,
    /// Patches of one caller that waits for each.
    pub alone: usize,
    /// Patches of each of many callers.
    pub of_each: usize,
    pub gets: usize,
    /// Records with one patch each, that are derived again or backed up.
    pub rebuilt: usize,
    /// Changes that a full replica pulls.
    pub changed: usize,
    pub imported: usize,
    /// Copies of real issues.
    pub copies: usize,
    /// Changes of one record.
    pub changes: [usize; 2],
    /// Records of one event.
    pub many: usize,
    /// Devices that are connected and idle; that edit at once, and for how many seconds.
    pub idle: usize,
    pub devices: usize,
    pub seconds: usize,
    /// Records of peers, which are slow enough that few show their rates.
    pub peers: usize,
    /// Patches of one caller of a peer.
    pub peers_alone: usize,
}

impl Sizes {
    pub fn divided_by(scale: usize) -> Self {
        let of = |size: usize| (size / scale).max(4);
        Self {
            records: of(100_000),
            patches: of(400_000),
            even: of(51_200),
            alone: of(1_024),
            of_each: of(1_024),
            gets: of(200_000),
            rebuilt: of(50_000),
            changed: of(1_000),
            imported: of(20_000),
            copies: of(10_000),
            changes: [1_000, 10_000].map(of),
            many: of(1_000_000),
            idle: of(1_000),
            devices: of(200),
            seconds: of(60),
            peers: of(2_000),
            peers_alone: of(500),
        }
    }
}

type Work = fn(&Sizes, &mut Report) -> Result<()>;

/// Every piece of work, with the name by which `--only` finds it.
pub const ALL: &[(&str, Work)] = &[
    ("alone", writes::alone),
    ("callers", writes::callers),
    ("create", writes::create),
    ("batches", writes::batches),
    ("zipf", writes::zipf),
    ("concurrent", writes::concurrent),
    ("apart", writes::apart),
    ("jira", copies::edits_alone),
    ("get", reads::get),
    ("cold", reads::get_cold),
    ("long", long::registers),
    ("text", long::text),
    ("many", many::many),
    ("rebuild", replicas::rebuild),
    ("pull", replicas::pull),
    ("import", writes::import),
    ("backup", files::backup),
    ("copies", copies::copies),
    ("served-fresh", served::fresh),
    ("served-live", served::live),
    ("served-idle", served::idle),
    ("served-editing", served::editing),
    ("served-classic", served::classic),
    ("served-catch-up", served::catch_up),
    ("samod", samod::as_it_comes),
    ("samod-synced", samod::synced),
    ("pouchdb", pouchdb::pouchdb),
];
