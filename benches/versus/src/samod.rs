//! samod, a store of Automerge documents with its files: a document for each record.
//!
//! Its file storage writes a file for each change, calls no `fsync`, and drops faults. It is measured as it comes, and with
//! each written file and its directory synced, which is what makes a change durable.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, ROOT, ScalarValue};
use futures::{StreamExt, TryStreamExt, stream};
use samod::storage::{Storage, StorageKey, TokioFilesystemStorage};
use samod::transport::channel::ChannelDialer;
use samod::{BackoffConfig, DocHandle, DocumentId, Repo};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::Result;
use crate::bench::bytes_below;
use crate::record::{Rng, one_field, ten_fields};
use crate::report::{Report, Sample, Took, Watch};
use crate::work::{self, Sizes};

/// How many documents are worked on at once, where not one after the other.
const AT_ONCE: usize = 64;
const FIRST_BESIDE: usize = 1_000_000;
/// After so long without a file written, something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// samod's file storage, which counts what it has written and syncs it where asked to.
#[derive(Clone)]
struct Files {
    files: TokioFilesystemStorage,
    dir: PathBuf,
    syncs: bool,
    puts: Arc<watch::Sender<usize>>,
}

impl Files {
    fn new(dir: &Path, syncs: bool) -> Self {
        let files = TokioFilesystemStorage::new(dir);
        Self { files, dir: dir.to_owned(), syncs, puts: Arc::new(watch::Sender::new(0)) }
    }

    /// How many files were written so far.
    fn written(&self) -> usize {
        *self.puts.borrow()
    }

    /// Waits until so many files are written.
    async fn wait_for(&self, puts: usize) -> Result<()> {
        let mut seen = self.puts.subscribe();
        let wait = seen.wait_for(|written| *written >= puts);
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.map_err(|_| format!("samod had not written {puts} files after {PATIENCE:?}"))??;
        Ok(())
    }

    /// Where the storage puts a key: the first part of it is a directory in one named by its first two letters.
    fn path(&self, key: &StorageKey) -> PathBuf {
        let mut path = self.dir.clone();
        for (nth, part) in key.into_iter().enumerate() {
            match part.split_at_checked(2).filter(|_| nth == 0) {
                Some((first, rest)) => path.extend([first, rest]),
                None => path.push(part),
            }
        }
        path
    }
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_data()?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

impl Storage for Files {
    fn load(&self, key: StorageKey) -> impl Future<Output = Option<Vec<u8>>> + Send {
        self.files.load(key)
    }

    fn load_range(
        &self,
        prefix: StorageKey,
    ) -> impl Future<Output = std::collections::HashMap<StorageKey, Vec<u8>>> + Send {
        self.files.load_range(prefix)
    }

    async fn put(&self, key: StorageKey, data: Vec<u8>) {
        let path = self.path(&key);
        self.files.put(key, data).await;
        if self.syncs {
            let synced = tokio::task::spawn_blocking(move || sync(&path)).await;
            // What was not synced does not count: whoever waits for it gives up and says so.
            let Ok(Ok(())) = synced else { return };
        }
        self.puts.send_modify(|puts| *puts += 1);
    }

    fn delete(&self, key: StorageKey) -> impl Future<Output = ()> + Send {
        self.files.delete(key)
    }
}

/// A repository in a directory of its own.
struct Shelf {
    repo: Repo,
    files: Files,
    dir: TempDir,
}

impl Shelf {
    async fn new(syncs: bool) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let files = Files::new(dir.path(), syncs);
        let repo = Repo::builder(tokio::runtime::Handle::current()).with_storage(files.clone()).load().await;
        Ok(Self { repo, files, dir })
    }

    /// Makes a document for each record, many at once, until all are written.
    async fn create(&self, records: usize) -> Result<Vec<DocHandle>> {
        let before = self.files.written();
        let create = |number: usize| self.add(number);
        let handles = stream::iter(0..records).map(create).buffer_unordered(AT_ONCE).try_collect().await?;
        self.files.wait_for(before + records).await?;
        Ok(handles)
    }

    async fn add(&self, number: usize) -> Result<DocHandle> {
        let mut document = Automerge::new();
        set(&mut document, &ten_fields(number))?;
        Ok(self.repo.create(document).await.map_err(|_| "samod stopped")?)
    }

    fn sample(&self, count: usize, took: Took) -> Sample {
        let sample = Sample::of(count, "events");
        match self.files.syncs {
            true => Sample { samod_synced: Some(took), ..sample },
            false => Sample { samod: Some(took), ..sample },
        }
    }

    /// With the bytes on disk for each of the documents, which were all just written.
    fn sample_of_all(&self, documents: usize, took: Took) -> Sample {
        let peer_bytes = Some(bytes_below(self.dir.path()) as f64 / documents as f64);
        Sample { peer_bytes, ..self.sample(documents, took) }
    }
}

/// Puts the fields of a JSON object, in one change.
fn set(document: &mut Automerge, fields: &Value) -> Result<(), AutomergeError> {
    let put_all = |transaction: &mut automerge::transaction::Transaction<'_>| {
        let mut fields = fields.as_object().into_iter().flatten();
        fields.try_for_each(|(name, value)| transaction.put(ROOT, name, scalar(value)))
    };
    document.transact(put_all).map(drop).map_err(|failure| failure.error)
}

fn scalar(value: &Value) -> ScalarValue {
    match value {
        Value::String(text) => ScalarValue::Str(text.as_str().into()),
        Value::Bool(truth) => ScalarValue::Boolean(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => ScalarValue::Int(whole),
            None => ScalarValue::F64(number.as_f64().unwrap_or_default()),
        },
        _ => ScalarValue::Null,
    }
}

/// Creates, patches and replication, as samod comes.
pub fn as_it_comes(sizes: &Sizes, report: &mut Report) -> Result<()> {
    report.note(
        "samod keeps a document for each record and a file for each change, and does not sync its files. Its creates, \
         replication and patches of many callers are 64 at once, not in batches.",
    );
    Runtime::new()?.block_on(measure(sizes, false, report))
}

/// The same with each file synced.
pub fn synced(sizes: &Sizes, report: &mut Report) -> Result<()> {
    Runtime::new()?.block_on(measure(sizes, true, report))
}

async fn measure(sizes: &Sizes, syncs: bool, report: &mut Report) -> Result<()> {
    let shelf = Shelf::new(syncs).await?;
    let watch = Watch::start();
    let handles = shelf.create(sizes.peers).await?;
    report.add(work::CREATES, shelf.sample_of_all(sizes.peers, watch.stop()));
    let watch = Watch::start();
    let steps = alone(&shelf, &handles, sizes.peers_alone).await?;
    report.add(work::ALONE, shelf.sample(sizes.peers_alone, watch.stop_with(steps)));
    let (watch, rounds) = (Watch::start(), sizes.peers.div_ceil(AT_ONCE));
    beside(&shelf, &handles, rounds).await?;
    report.add(work::CALLERS, shelf.sample(rounds * AT_ONCE, watch.stop()));
    replicate(&shelf, &handles, report).await
}

/// One caller that waits until each of its patches is written.
async fn alone(shelf: &Shelf, handles: &[DocHandle], count: usize) -> Result<Vec<Duration>> {
    let (mut rng, mut steps) = (Rng(1), Vec::with_capacity(count));
    for nth in 0..count {
        let (handle, written) = (&handles[rng.below(handles.len())], shelf.files.written());
        let started = Instant::now();
        handle.with_document(|document| set(document, &one_field(nth)))?;
        shelf.files.wait_for(written + 1).await?;
        steps.push(started.elapsed());
    }
    Ok(steps)
}

/// A patch of each of many documents, then a wait until all are written, and so on.
async fn beside(shelf: &Shelf, handles: &[DocHandle], rounds: usize) -> Result<()> {
    for round in 0..rounds {
        let written = shelf.files.written();
        // Other values than before: setting what is there already makes no change.
        for nth in FIRST_BESIDE + round * AT_ONCE..FIRST_BESIDE + (round + 1) * AT_ONCE {
            let handle = &handles[nth % handles.len()];
            handle.with_document(|document| set(document, &one_field(nth)))?;
        }
        shelf.files.wait_for(written + AT_ONCE).await?;
    }
    Ok(())
}

/// All documents to a fresh peer, over channels in memory, until it has written them.
async fn replicate(shelf: &Shelf, handles: &[DocHandle], report: &mut Report) -> Result<()> {
    let other = Shelf::new(shelf.files.syncs).await?;
    let (written, watch) = (other.files.written(), Watch::start());
    let acceptor = shelf.repo.make_acceptor(samod::Url::parse("channel://records")?).map_err(|_| "samod stopped")?;
    let dialer = other.repo.dial(BackoffConfig::default(), Arc::new(ChannelDialer::new(acceptor)));
    dialer.map_err(|_| "samod stopped")?.established().await.map_err(|_| "samod's peers did not connect")?;
    let ids = handles.iter().map(|handle| handle.document_id().clone());
    let find = |id: DocumentId| other.repo.find(id);
    let found: Vec<_> = stream::iter(ids).map(find).buffer_unordered(AT_ONCE).collect().await;
    let missing = found.iter().filter(|found| !matches!(found, Ok(Some(_)))).count();
    if missing > 0 {
        return Err(format!("samod's fresh peer did not find {missing} of {} documents", handles.len()).into());
    }
    other.files.wait_for(written + handles.len()).await?;
    let took = watch.stop();
    report.add(work::PULLED, other.sample_of_all(handles.len(), took));
    other.repo.stop().await;
    shelf.repo.stop().await;
    Ok(())
}
