//! The journal on disk: two threads, one that appends and one that calls fdatasync, and two watermarks.
//!
//! The data plane appends to a buffer in memory and goes on; what it promised waits for [`Progress`]. A write or sync
//! that fails takes back what the records in question had started, lets the answers that wait for them go, and keeps
//! the journal unavailable until a new segment can be opened. Record and segment layout are `eir_core::journal`'s.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eir_core::grey::GreyTable;
use eir_core::journal::{self, Event, Journal, Progress, RECORD, Replayed};
use tokio::sync::watch;

use crate::priority;
use crate::wake::Wake;

/// Octets that may wait in memory for a disk that is stuck; about a quarter of a million records.
const BUFFER_LIMIT: usize = 16 << 20;
const RETRY: Duration = Duration::from_secs(1);
const SUFFIX: &str = ".eirj";
/// Records that start nothing (further subscribers, black attempts): so many are taken in so long, and none in the
/// journal's second half.
const LESSER_PER_WINDOW: u64 = 100_000;
const LESSER_WINDOW: Duration = Duration::from_secs(60);
/// No node lives to write so many records. A name or header beyond is not ours, and to count on from it would overflow.
const MAX_SEQUENCE: u64 = 1 << 62;

/// Where the journal is and how large it may grow.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Its directory, for this node alone.
    pub directory: PathBuf,
    /// Octets after which a new segment begins.
    pub segment_bytes: u64,
    /// Octets of all segments above which nothing more is taken.
    pub max_bytes: u64,
}

/// What the journal tells of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct JournalStats {
    /// Whether records are being kept.
    pub available: bool,
    /// Octets of all segments.
    pub bytes: u64,
    /// Records that were taken in but are not on the disk yet.
    pub depth: u64,
    /// Records taken in since start.
    pub records: u64,
    /// Calls of fdatasync since start.
    pub syncs: u64,
    /// Writes and syncs that failed, and segments that could not be opened.
    pub failures: u64,
    /// Records of further subscribers and black attempts that were not taken, because there were too many.
    pub skipped: u64,
}

/// The journal's writer. Dropping it stops the threads after all is on the disk.
pub struct JournalWriter {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    config: JournalConfig,
    grey: Arc<GreyTable>,
    /// Held for as long as this node runs: no other may use the directory.
    _lock: File,
    incoming: Mutex<Incoming>,
    arrived: Condvar,
    segment: Mutex<Segment>,
    written: Condvar,
    available: AtomicBool,
    stopping: AtomicBool,
    progress: watch::Sender<Progress>,
    written_to: AtomicU64,
    durable_to: AtomicU64,
    first_sequence: u64,
    /// Wakes who reads the journal, once for each time it has said that it waits.
    grown: Wake,
    waits_for_growth: AtomicBool,
    /// The last few ranges of records that were lost.
    lost: Mutex<VecDeque<(u64, u64)>>,
    bytes: AtomicU64,
    syncs: AtomicU64,
    failures: AtomicU64,
    skipped: AtomicU64,
}

struct Incoming {
    records: Vec<u8>,
    next_sequence: u64,
    /// When the minute began in which lesser records are counted, and how many there were.
    minute: Instant,
    lesser: u64,
}

impl Incoming {
    /// Whether a record that only reports may be taken: a peer that asks about black devices without end must not fill
    /// the journal, which then starts no timers for anybody.
    fn admits_lesser(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.minute) >= LESSER_WINDOW {
            self.minute = now;
            self.lesser = 0;
        }
        self.lesser += 1;
        self.lesser <= LESSER_PER_WINDOW
    }
}

/// The segment that is written to, and what of it is not on the disk.
struct Segment {
    file: Option<Arc<File>>,
    length: u64,
    written: u64,
    synced_length: u64,
    unsynced: Vec<Batch>,
}

struct Batch {
    first: u64,
    records: Vec<u8>,
}

impl Batch {
    fn last(&self) -> u64 {
        self.first + (self.records.len() / RECORD) as u64 - 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// (number of the first record, path) of every segment, in order.
pub(crate) fn segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(first) = name.and_then(|name| name.parse().ok()).filter(|first| *first <= MAX_SEQUENCE) {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Octets of all segments.
fn size(directory: &Path) -> io::Result<u64> {
    let lengths = segments(directory)?.into_iter().filter_map(|(_, path)| fs::metadata(path).ok());
    Ok(lengths.map(|metadata| metadata.len()).sum())
}

/// Reads the segments of a directory in order, hands over each event with a number above `after`, and tells what was met
/// and which sequence number comes next. Segments that have no such record are not opened.
///
/// # Errors
/// Where the directory or a segment cannot be read.
pub fn replay_directory(
    directory: &Path,
    after: u64,
    mut apply: impl FnMut(u64, Event),
) -> io::Result<(Replayed, u64)> {
    let mut total = Replayed::default();
    let mut next = after.saturating_add(1);
    let there = segments(directory)?;
    let behind = there.partition_point(|(first, _)| *first <= next).saturating_sub(1);
    for (named, path) in there.into_iter().skip(behind) {
        let bytes = fs::read(path)?;
        let Some((header, records)) = bytes.split_first_chunk::<RECORD>() else {
            total.torn += bytes.len() as u64;
            next = next.max(named);
            continue;
        };
        // A damaged header is made good by the name; the records have checksums of their own.
        let read = journal::read_segment_header(header).filter(|first| *first <= MAX_SEQUENCE);
        let first = read.unwrap_or(named);
        total.damaged += u64::from(read.is_none());
        let replayed = journal::replay(first, records, |sequence, event| {
            if sequence > after {
                apply(sequence, event);
            }
        });
        total.records += replayed.records;
        total.damaged += replayed.damaged;
        total.torn += replayed.torn;
        // Beyond the name as well: a segment that was renamed must not be in the way of one that is begun.
        next = next.max(first.max(named).saturating_add(replayed.records + replayed.damaged));
    }
    Ok((total, next))
}

impl JournalWriter {
    /// Replays what the directory's segments have behind record `after` into `apply`, then begins a new one. A journal
    /// that cannot be begun (a full disk) is unavailable and tried again; `grey` is where lost starts are taken back.
    ///
    /// # Errors
    /// Where the directory cannot be made or read, or another node uses it.
    pub fn open(
        config: JournalConfig,
        grey: Arc<GreyTable>,
        after: u64,
        apply: impl FnMut(u64, Event),
    ) -> io::Result<(Self, Replayed)> {
        fs::create_dir_all(&config.directory)?;
        let lock_file =
            OpenOptions::new().create(true).truncate(false).write(true).open(config.directory.join("lock"))?;
        lock_file.try_lock().map_err(|error| io::Error::other(format!("another node uses the journal: {error}")))?;
        let (replayed, next) = replay_directory(&config.directory, after, apply)?;
        let bytes = size(&config.directory)?;
        // What a killed process had written counts as on the disk from here on.
        if let Some((_, last)) = segments(&config.directory)?.last() {
            File::open(last)?.sync_data()?;
        }
        let shared = Arc::new(Shared {
            config,
            grey,
            _lock: lock_file,
            incoming: Mutex::new(Incoming {
                records: Vec::new(),
                next_sequence: next,
                minute: Instant::now(),
                lesser: 0,
            }),
            arrived: Condvar::new(),
            segment: Mutex::new(Segment {
                file: None,
                length: 0,
                written: next - 1,
                synced_length: 0,
                unsynced: Vec::new(),
            }),
            written: Condvar::new(),
            available: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            progress: watch::Sender::new(Progress { written: next - 1, durable: next - 1 }),
            written_to: AtomicU64::new(next - 1),
            durable_to: AtomicU64::new(next - 1),
            first_sequence: next,
            grown: Wake::new()?,
            waits_for_growth: AtomicBool::new(false),
            lost: Mutex::new(VecDeque::new()),
            bytes: AtomicU64::new(bytes),
            syncs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        });
        shared.begin_segment(next);
        let spawn = |name: &str, run: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(name.into()).spawn(move || {
                priority::wake_soon();
                run(&shared);
            })
        };
        let threads = vec![spawn("journal-write", Shared::write_loop)?, spawn("journal-sync", Shared::sync_loop)?];
        Ok((Self { shared, threads }, replayed))
    }

    /// A receiver that is told of progress.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Appends a record and waits until it is on the disk: for acts of the control plane.
    ///
    /// # Errors
    /// Where the journal is unavailable, fails, or takes longer than `timeout`.
    pub fn append_durably(&self, event: &Event, timeout: Duration) -> io::Result<()> {
        let sequence = self.append(event).ok_or_else(|| io::Error::other("the journal is full or failing"))?;
        if !self.settle_to(sequence, timeout) {
            return Err(io::Error::other(
                "the journal's disk does not answer; the change may still take effect at a restart",
            ));
        }
        match lock(&self.shared.lost).iter().any(|(first, last)| (*first..=*last).contains(&sequence)) {
            true => Err(io::Error::other("the journal could not be written")),
            false => Ok(()),
        }
    }

    /// Waits until a record is on the disk, or lost; whether that was so before `timeout` was over.
    #[must_use]
    pub fn settle_to(&self, sequence: u64, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        while self.progress().durable < sequence {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// The number of the last record that was taken in.
    #[must_use]
    pub fn last(&self) -> u64 {
        lock(&self.shared.incoming).next_sequence - 1
    }

    /// What becomes readable when records have come to the disk after [`JournalWriter::wait_for_growth`].
    #[must_use]
    pub fn grown(&self) -> &Wake {
        &self.shared.grown
    }

    /// Says that whoever reads the journal is to be woken by the next record. Called before the reader looks how far the
    /// journal is, so that no record falls between.
    pub fn wait_for_growth(&self) {
        self.shared.waits_for_growth.store(true, Ordering::SeqCst);
    }

    /// Deletes segments that have no record above `before`; the one that is written to stays. Returns the octets.
    ///
    /// # Errors
    /// Where the directory cannot be read or a segment not be deleted.
    pub fn trim(&self, before: u64) -> io::Result<u64> {
        let shared = &self.shared;
        let there = segments(&shared.config.directory)?;
        let mut freed = 0;
        for (segment, next) in there.iter().zip(there.iter().skip(1)) {
            if next.0 > before.saturating_add(1) {
                break;
            }
            let octets = fs::metadata(&segment.1)?.len();
            fs::remove_file(&segment.1)?;
            freed += octets;
            // Not below zero: a journal that was full counts its directory anew at the same time.
            let subtract = |bytes: u64| Some(bytes.saturating_sub(octets));
            let _ = shared.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        }
        Ok(freed)
    }

    /// Waits until everything that was taken in is on the disk, or lost, or `timeout` is over.
    pub fn settle(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        while self.stats().depth > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the journal tells of itself.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let shared = &self.shared;
        let next = lock(&shared.incoming).next_sequence;
        JournalStats {
            available: self.available(),
            bytes: shared.bytes.load(Ordering::Relaxed),
            depth: next - 1 - shared.durable_to.load(Ordering::Acquire).min(next - 1),
            records: next - shared.first_sequence,
            syncs: shared.syncs.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
            skipped: shared.skipped.load(Ordering::Relaxed),
        }
    }
}

impl Journal for JournalWriter {
    fn append(&self, event: &Event) -> Option<u64> {
        if !self.available() {
            return None;
        }
        let mut incoming = lock(&self.shared.incoming);
        if incoming.records.len() >= BUFFER_LIMIT {
            return None;
        }
        if matches!(event, Event::Seen { .. } | Event::BlackAttempt { .. })
            && (self.shared.bytes.load(Ordering::Relaxed) >= self.shared.config.max_bytes / 2
                || !incoming.admits_lesser())
        {
            self.shared.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let sequence = incoming.next_sequence;
        incoming.next_sequence += 1;
        incoming.records.extend(journal::encode(sequence, event));
        // The first to put something in wakes the writer; it takes everything that has come by then.
        if incoming.records.len() == RECORD {
            self.shared.arrived.notify_one();
        }
        Some(sequence)
    }

    #[inline]
    fn available(&self) -> bool {
        self.shared.available.load(Ordering::Relaxed)
    }

    #[inline]
    fn progress(&self) -> Progress {
        Progress {
            written: self.shared.written_to.load(Ordering::Acquire),
            durable: self.shared.durable_to.load(Ordering::Acquire),
        }
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.arrived.notify_one();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to write.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn write_loop(&self) {
        loop {
            let stopping = self.stopping.load(Ordering::Acquire);
            let batch = self.next_batch(stopping);
            if !batch.records.is_empty() {
                if self.available.load(Ordering::Relaxed) {
                    self.write(batch);
                } else {
                    self.lose(&batch);
                }
            } else if stopping {
                self.written.notify_one();
                return;
            } else if !self.available.load(Ordering::Relaxed) {
                self.begin_segment(batch.first);
            }
        }
    }

    /// All that has arrived; waits for it, but not for ever.
    fn next_batch(&self, stopping: bool) -> Batch {
        let mut incoming = lock(&self.incoming);
        if incoming.records.is_empty() && !stopping {
            incoming = match self.arrived.wait_timeout(incoming, RETRY) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        let records = std::mem::take(&mut incoming.records);
        Batch { first: incoming.next_sequence - (records.len() / RECORD) as u64, records }
    }

    fn write(&self, batch: Batch) {
        let mut segment = lock(&self.segment);
        if segment.length >= self.config.segment_bytes || self.is_full() {
            drop(segment);
            if !self.begin_segment(batch.first) {
                self.lose_last(&batch);
                return;
            }
            segment = lock(&self.segment);
        }
        let Some(file) = segment.file.clone() else {
            drop(segment);
            self.lose(&batch);
            return;
        };
        drop(segment);
        // Not under the lock, which the thread that syncs takes as well.
        let result = (&*file).write_all(&batch.records);
        let mut segment = lock(&self.segment);
        if result.is_err() || segment.file.is_none() {
            // What was written in part is cut off, and what a failed sync has given up; where that fails too, the
            // checksums tell.
            let sound = if segment.file.is_some() { segment.length } else { segment.synced_length };
            let _ = file.set_len(sound);
            drop(segment);
            self.fail();
            self.lose_last(&batch);
            return;
        }
        segment.length += batch.records.len() as u64;
        segment.written = batch.last();
        self.bytes.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        self.written_to.store(batch.last(), Ordering::Release);
        segment.unsynced.push(batch);
        drop(segment);
        self.written.notify_one();
        self.tell();
    }

    fn sync_loop(&self) {
        loop {
            let mut segment = lock(&self.segment);
            while segment.unsynced.is_empty() {
                if self.stopping.load(Ordering::Acquire) {
                    return;
                }
                segment = match self.written.wait_timeout(segment, RETRY) {
                    Ok((guard, _)) => guard,
                    Err(poisoned) => poisoned.into_inner().0,
                };
            }
            let (file, length, written) = (segment.file.clone(), segment.length, segment.written);
            let batches = std::mem::take(&mut segment.unsynced);
            drop(segment);
            let result = file.as_ref().map_or(Ok(()), |file| file.sync_data());
            self.syncs.fetch_add(1, Ordering::Relaxed);
            match result {
                Ok(()) => {
                    let mut segment = lock(&self.segment);
                    // Of the segment that was synced, not of one that was begun meanwhile.
                    if let (Some(synced), Some(present)) = (&file, &segment.file)
                        && Arc::ptr_eq(synced, present)
                    {
                        segment.synced_length = segment.synced_length.max(length);
                    }
                    drop(segment);
                    self.durable_to.fetch_max(written, Ordering::SeqCst);
                    self.tell();
                    if self.waits_for_growth.swap(false, Ordering::SeqCst) {
                        self.grown.wake();
                    }
                }
                Err(_) => {
                    let mut segment = lock(&self.segment);
                    if let Some(file) = segment.file.take() {
                        let _ = file.set_len(segment.synced_length);
                    }
                    let later = std::mem::take(&mut segment.unsynced);
                    drop(segment);
                    self.fail();
                    batches.iter().chain(&later).for_each(|batch| self.lose(batch));
                }
            }
        }
    }

    /// Begins the segment that starts with this record; whether records can be kept now.
    fn begin_segment(&self, first: u64) -> bool {
        if self.is_full()
            && let Ok(bytes) = size(&self.config.directory)
        {
            // Old segments may have been carried away.
            self.bytes.store(bytes, Ordering::Relaxed);
        }
        let full = self.is_full();
        let begun = if full { Err(io::ErrorKind::StorageFull.into()) } else { self.create_segment(first) };
        let Ok(file) = begun else {
            self.fail();
            return false;
        };
        let mut segment = lock(&self.segment);
        // The old segment is brought to the disk here; from now on only the new one is synced.
        let old = segment.file.replace(Arc::new(file));
        if let Some(old) = old
            && old.sync_data().is_err()
        {
            segment.file = None;
            let batches = std::mem::take(&mut segment.unsynced);
            drop(segment);
            self.fail();
            batches.iter().for_each(|batch| self.lose(batch));
            return false;
        }
        segment.length = RECORD as u64;
        segment.synced_length = RECORD as u64;
        self.bytes.fetch_add(RECORD as u64, Ordering::Relaxed);
        self.available.store(true, Ordering::Release);
        true
    }

    fn create_segment(&self, first: u64) -> io::Result<File> {
        let path = self.config.directory.join(format!("{first:020}{SUFFIX}"));
        // Of that name there can be one without a record only: its end was cut off before any was written.
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        file.write_all(&journal::segment_header(first))?;
        file.sync_all()?;
        File::open(&self.config.directory)?.sync_all()?;
        Ok(file)
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.config.max_bytes
    }

    fn fail(&self) {
        self.available.store(false, Ordering::Release);
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Loses a batch behind others that were written. Those are brought to the disk first: what waits for them is let go
    /// together with what waits for this one.
    fn lose_last(&self, batch: &Batch) {
        let mut segment = lock(&self.segment);
        let failed = segment.file.take().is_some_and(|file| file.sync_data().is_err());
        let unsynced = if failed { std::mem::take(&mut segment.unsynced) } else { Vec::new() };
        drop(segment);
        unsynced.iter().chain([batch]).for_each(|batch| self.lose(batch));
    }

    /// Records that are not kept: takes back what they started and lets those who wait for them go.
    fn lose(&self, batch: &Batch) {
        journal::replay(batch.first, &batch.records, |sequence, event| match event {
            Event::Start { imei, imsi, timer, .. } => {
                self.grey.cancel(imei, sequence);
                if let Some(imsi) = imsi {
                    self.grey.forget_seen(imei, timer.start, imsi);
                }
            }
            Event::Seen { imei, imsi, .. } => self.grey.forget_seen(imei, self.grey.began(imei), imsi),
            Event::BlackAttempt { imei, imsi, .. } => self.grey.forget_attempt(imei, imsi),
            Event::Cancel { .. } | Event::Breaker { .. } | Event::Overlay { .. } => {}
        });
        let mut lost = lock(&self.lost);
        lost.push_back((batch.first, batch.last()));
        if lost.len() > 64 {
            lost.pop_front();
        }
        drop(lost);
        self.written_to.fetch_max(batch.last(), Ordering::AcqRel);
        self.durable_to.fetch_max(batch.last(), Ordering::AcqRel);
        self.tell();
    }

    fn tell(&self) {
        let progress = Progress {
            written: self.written_to.load(Ordering::Acquire),
            durable: self.durable_to.load(Ordering::Acquire),
        };
        self.progress.send_replace(progress);
    }
}
