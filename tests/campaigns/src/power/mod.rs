//! Power fails anywhere in what the program does, and the disk holds what it guarantees and any of the rest.
//!
//! ```text
//! record: the program under a recorder ─► trace      replay: trace up to a cut ─► image ─► open, check
//! ```
//! Of some images the opening is recorded too, and power fails once more in that.
//!
//! Everything about an image follows from the seed, its number and its trace: one that failed is run alone with
//! `--trace FILE --image N` and the same seed. The trace has to stay where it is, for archives are found by their path.
//! Where an image failed only at its second cut, chance has a part: how the threads of the opening ran.

mod disk;
mod image;
mod record;
mod trace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Result;
use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::promise::Promises;
use crate::shim;
use crate::tally::Tally;
use disk::{Disk, Fate, Guarantees, Image};
use trace::Record;

/// How many images are made of a trace.
const IMAGES_OF_A_TRACE: u64 = 100;
/// One in how many images is cut a second time.
const CUT_AGAIN: usize = 4;

struct Campaign {
    seed: u64,
    guarantees: Guarantees,
    /// Traces, and images that failed.
    dir: PathBuf,
    shim: PathBuf,
    totals: Totals,
    tally: Tally,
}

#[derive(Default)]
struct Totals {
    images: u64,
    /// Images of a second cut.
    again: u64,
    /// Acknowledged events that the images had to have.
    events: usize,
    failed: u64,
    /// By kind: lost, torn, wrong.
    found: BTreeMap<String, u64>,
    /// How many images of each pair of fates there were, of names and of bytes.
    fates: BTreeMap<(Fate, Fate), u64>,
}

/// Where a trace is cut, and what of the rest happened.
struct Cut {
    image: u64,
    record: usize,
    names: Fate,
    bytes: Fate,
    chance: Chance,
}

/// A trace that is cut.
struct Tape<'a> {
    path: &'a Path,
    records: &'a [Record],
}

/// Runs the campaign. Whether nothing was lost, torn or wrong.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let images = arguments.number("images")?.unwrap_or(400);
    match (arguments.path("trace"), arguments.number("image")?) {
        (Some(trace), image) => {
            let trace = trace.canonicalize()?;
            let numbers = image.map_or_else(|| (0..images).collect(), |image| vec![image]);
            // An archive is found by its path, so images lie where the program worked.
            let mut campaign = Campaign::new(arguments, trace.parent().unwrap_or(Path::new("/")).to_owned())?;
            campaign.replay(&trace, &numbers)?;
            campaign.end(arguments)
        }
        (None, Some(_)) => Err("an image follows from its trace too: give --trace FILE with --image".into()),
        (None, None) => {
            let traces = arguments.number("traces")?.unwrap_or_else(|| images.div_ceil(IMAGES_OF_A_TRACE)).max(1);
            let dir = TempDir::with_prefix_in("campaign-power-", arguments.path("dir").unwrap_or_else(memory))?;
            let mut campaign = Campaign::new(arguments, dir.path().canonicalize()?)?;
            campaign.record_and_replay(traces, images)?;
            let sound = campaign.end(arguments)?;
            if !sound {
                println!("kept: {}", dir.keep().display());
            }
            Ok(sound)
        }
    }
}

/// A directory in memory, where there is one: fsyncs cost nothing there, and are recorded all the same.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

impl Campaign {
    fn new(arguments: &Arguments, dir: PathBuf) -> Result<Self> {
        let guarantees = Guarantees {
            in_order: arguments.switch("ext4"),
            no_fdatasync: arguments.switch("broken-fsync"),
            spared: arguments.texts("spare"),
        };
        let (seed, shim) = (arguments.number("seed")?.unwrap_or(1), shim::compile(&dir, "power", record::SHIM)?);
        let name = if guarantees.in_order { "power, ext4" } else { "power" };
        Ok(Self { seed, guarantees, dir, shim, totals: Totals::default(), tally: Tally::begin(name, seed, 0) })
    }

    /// Where the program works, and where each image lies while it is checked.
    fn worked(&self) -> PathBuf {
        self.dir.join("worked")
    }

    fn record_and_replay(&mut self, traces: u64, images: u64) -> Result<()> {
        for number in 0..traces {
            let (trace, worked) = (self.dir.join(format!("trace-{number}")), self.worked());
            std::fs::create_dir(&worked)?;
            record::record(&self.shim, &worked, &trace, &mut Chance::new(self.seed, u64::MAX - number))?;
            std::fs::remove_dir_all(&worked)?;
            let failed = self.totals.failed;
            self.replay(&trace, &(number..images).step_by(traces as usize).collect::<Vec<_>>())?;
            println!("trace {} of {traces}: {}", number + 1, self.totals.line());
            if self.totals.failed == failed {
                std::fs::remove_file(&trace)?;
            }
        }
        Ok(())
    }

    /// Cuts a trace once for each of these numbers.
    fn replay(&mut self, path: &Path, numbers: &[u64]) -> Result<()> {
        let records = &trace::read(path)?;
        let tape = Tape { path, records };
        let mut cuts: Vec<Cut> = numbers.iter().map(|image| Cut::of(self.seed, *image, records)).collect();
        cuts.sort_by_key(|cut| cut.record);
        let mut cuts = cuts.into_iter().peekable();
        let (mut disk, mut promises) = (Disk::new(self.guarantees.clone()), Promises::default());
        for at in 0..=records.len() {
            while let Some(cut) = cuts.next_if(|cut| cut.record == at) {
                self.cut(&tape, &disk, &promises, cut)?;
            }
            let Some(record) = records.get(at) else { break };
            disk.follow(record)?;
            if let Record::Said { words } = record {
                promises.take(words);
            }
        }
        // While nothing was cut the program had nothing to complain of, killed though it was.
        let faults: Vec<String> = promises.faults.drain(..).map(|fault| format!("wrong {fault}")).collect();
        if !faults.is_empty() {
            self.tell(&format!("recording {} with seed {} failed", path.display(), self.seed), &faults);
        }
        Ok(())
    }

    /// Builds and checks one image, and of some another from a cut in that check.
    fn cut(&mut self, tape: &Tape<'_>, disk: &Disk, promises: &Promises, mut cut: Cut) -> Result<()> {
        let image = disk.image(cut.names, cut.bytes, &mut cut.chance);
        let again = cut.chance.one_in(CUT_AGAIN).then(|| self.dir.join(format!("again-{}", cut.image)));
        self.totals.images += 1;
        self.totals.events += promises.events();
        *self.totals.fates.entry((cut.names, cut.bytes)).or_default() += 1;
        image::build(&self.worked(), &image)?;
        let held = Disk::holding(&image, &self.worked(), self.guarantees.clone())?;
        let recorded = again.as_deref().map(|trace| (self.shim.as_path(), trace));
        let found = image::check(&self.worked(), promises, self.seed, recorded)?;
        std::fs::remove_dir_all(self.worked())?;
        self.judge(tape, &cut, "", &image, &found)?;
        let Some(again) = again else { return Ok(()) };
        if found.is_empty() {
            self.cut_again(tape, held, &again, promises, cut)?;
        }
        Ok(std::fs::remove_file(again)?)
    }

    /// Power fails once more, while the image is opened and checked.
    fn cut_again(
        &mut self,
        tape: &Tape<'_>,
        mut disk: Disk,
        again: &Path,
        promises: &Promises,
        mut first: Cut,
    ) -> Result<()> {
        let records = &trace::read(again)?;
        let mut cut = Cut::of(first.chance.next(), first.image, records);
        records.iter().take(cut.record).try_for_each(|record| disk.follow(record))?;
        let image = disk.image(cut.names, cut.bytes, &mut cut.chance);
        self.totals.again += 1;
        image::build(&self.worked(), &image)?;
        let found = image::check(&self.worked(), promises, self.seed, None)?;
        std::fs::remove_dir_all(self.worked())?;
        let how = format!(" when it was cut again, in its opening: {}", told(records, &cut));
        self.judge(tape, &cut, &how, &image, &found)
    }

    /// Tells what was found, and keeps the image as it was before it was opened.
    fn judge(&mut self, tape: &Tape<'_>, cut: &Cut, how: &str, image: &Image, found: &[String]) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        let kept = self.dir.join(format!("image-{}", cut.image));
        let how = if how.is_empty() { format!(": {}", told(tape.records, cut)) } else { how.to_owned() };
        self.tell(&format!("image {} of seed {} failed{how}", cut.image, self.seed), found);
        println!("  kept: {}", kept.display());
        let (seed, trace, switches) = (self.seed, tape.path.display(), self.switches());
        println!("  again: campaigns power --seed {seed}{switches} --trace {trace} --image {}", cut.image);
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        image::build(&kept, image)
    }

    fn tell(&mut self, what: &str, found: &[String]) {
        self.totals.failed += 1;
        self.tally.problem(what);
        for line in found {
            println!("  {line}");
            let kind = line.split(' ').next().unwrap_or_default();
            *self.totals.found.entry(kind.to_owned()).or_default() += 1;
        }
    }

    fn switches(&self) -> String {
        let Guarantees { in_order, no_fdatasync, spared } = &self.guarantees;
        let ext4 = if *in_order { " --ext4" } else { "" };
        let broken = if *no_fdatasync { " --broken-fsync" } else { "" };
        let spared = if spared.is_empty() { String::new() } else { format!(" --spare {}", spared.join(",")) };
        format!("{ext4}{broken}{spared}")
    }

    /// Tells the totals. Whether nothing failed.
    fn end(self, arguments: &Arguments) -> Result<bool> {
        for ((names, bytes), count) in &self.totals.fates {
            println!(
                "{count:5} images with {names:?} of the names and {bytes:?} of the bytes that nothing guarantees"
            );
        }
        println!("power: {} (seed {}{})", self.totals.line(), self.seed, self.switches());
        let Self { mut tally, totals, .. } = self;
        tally.runs = totals.images;
        tally.count("cut again in their opening", totals.again);
        tally.count("acknowledged events looked for", totals.events as u64);
        tally.end(arguments)
    }
}

impl Totals {
    fn line(&self) -> String {
        let of = |kind| self.found.get(kind).copied().unwrap_or(0);
        let Self { images, again, events, failed, .. } = self;
        format!(
            "{images} images and {again} cut again, {events} acknowledged events to be there: \
             {failed} images failed: {} lost, {} torn, {} wrong",
            of("lost"),
            of("torn"),
            of("wrong")
        )
    }
}

impl Cut {
    /// Anywhere, but often where names change and after something was said.
    fn of(seed: u64, image: u64, records: &[Record]) -> Self {
        let mut chance = Chance::new(seed, image);
        let record = match chance.below(5) {
            0 | 1 => near(records, Record::is_of_names, &mut chance),
            2 => near(records, |record| matches!(record, Record::Said { .. }), &mut chance),
            _ => chance.between(0, records.len()),
        };
        let (names, bytes) = (Fate::of(&mut chance), Fate::of(&mut chance));
        Self { image, record, names, bytes, chance }
    }
}

/// A place within some records after one of a kind.
fn near(records: &[Record], is_meant: impl Fn(&Record) -> bool, chance: &mut Chance) -> usize {
    let meant: Vec<usize> = (0..records.len()).filter(|at| records.get(*at).is_some_and(&is_meant)).collect();
    let at = chance.pick(&meant).copied().unwrap_or(0);
    (at + chance.between(0, 4)).min(records.len())
}

/// Where a cut is, with the last records before it.
fn told(records: &[Record], cut: &Cut) -> String {
    let last = records.get(cut.record.saturating_sub(4)..cut.record).unwrap_or_default();
    let shortly = |record: &Record| match record {
        Record::Write { inode, offset, bytes } => {
            format!("Write {{ inode: {inode}, {} bytes at {offset} }}", bytes.len())
        }
        other => format!("{other:?}"),
    };
    let Cut { record, names, bytes, .. } = cut;
    let last = last.iter().map(shortly).collect::<Vec<_>>().join(", ");
    format!(
        "cut at record {record} of {}, {names:?} of the names, {bytes:?} of the bytes, after {last}",
        records.len()
    )
}
