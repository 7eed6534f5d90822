//! Choosing how a block is written, and writing it.
//!
//! Its one job: take from the front of a TAC's entries as many as one block can hold, in the form that holds the most.
//! The section's writer calls it; `block.rs` says what is written.

use super::KEY_BITS;
use super::bits::BitWriter;
use super::block::{BLOCK_BITS, Form, HEAD, Head, List, Runs};
use super::tag_code::{TagCode, width_of};

/// An entry: the SNR, then four bits of the tag's rank.
pub(super) type Entry = u32;

/// Bits of an entry that are the rank.
pub(super) const RANK_BITS: u32 = 4;
/// SNRs that are missing one after the other inside a run where each SNR has a bit: beyond, another run is shorter.
const BRIDGED_BY_BITS: u32 = 24;
/// The same where those that are missing are listed.
const BRIDGED_BY_LIST: u32 = 4;
/// Most runs of a block.
const MAX_RUNS: u32 = 63;
/// Most entries that a head can tell.
const MAX_ENTRIES: u32 = 1023;

/// The SNR of an entry.
pub(super) fn snr(entry: Entry) -> u32 {
    entry >> RANK_BITS
}

fn rank(entry: Entry) -> u8 {
    (entry & ((1 << RANK_BITS) - 1)) as u8
}

/// The first SNR of the block that begins with this entry.
fn first_snr(entry: Entry) -> u32 {
    snr(entry) >> KEY_BITS << KEY_BITS
}

/// What a block will hold.
#[derive(Debug, Clone, Copy)]
struct Plan {
    head: Head,
    taken: usize,
    bits: u32,
}

/// Write the block of the first of these entries, of which there must be some; gives how many it holds.
pub(super) fn write(entries: &[Entry], code: &TagCode, writer: &mut BitWriter, out: &mut Vec<u8>) -> usize {
    let plans = [sparse(entries, code), runs(entries, code, true), runs(entries, code, false)];
    let better = |plan: &Plan| (plan.taken, u32::MAX - plan.bits);
    let Some(Plan { head, taken, .. }) = plans.into_iter().flatten().max_by_key(better) else { return 0 };
    let entries = entries.get(..taken).unwrap_or_default();

    let (first, second) = head.packed();
    writer.put(first, HEAD);
    if let Some(second) = second {
        writer.put(second, HEAD);
    }
    match head.form {
        Form::Sparse(list) => {
            let base = entries.first().map_or(0, |&entry| first_snr(entry));
            write_list(entries.iter().map(|&entry| snr(entry) - base), list, writer);
        }
        Form::Runs(runs) => write_runs(entries, runs, writer),
    }
    if !head.plain {
        code.write(entries.iter().copied().map(rank), writer);
    }
    writer.finish(out);
    taken
}

/// The shortest form of a sorted list of so many numbers up to `last`.
fn shortest_list(count: u32, last: u32) -> List {
    let list = |low: u32| List { count, low, highs: count + (last >> low) };
    // The shortest is where a high part has between one and two numbers, or next to it.
    let even = (last / count.max(1)).max(1).ilog2();
    if even > 0 && list(even - 1).bits() <= list(even).bits() { list(even - 1) } else { list(even) }
}

/// The entries of a block that is growing: counts the bits of their tags, and finds where a block may end.
struct Growing<'a> {
    entries: &'a [Entry],
    code: &'a TagCode,
    base: u32,
    tag_bits: u32,
    plain: bool,
}

impl<'a> Growing<'a> {
    fn new(entries: &'a [Entry], code: &'a TagCode) -> Option<Self> {
        let base = first_snr(*entries.first()?);
        Some(Self { entries, code, base, tag_bits: 0, plain: true })
    }

    /// Take one more entry; gives its offset.
    fn take(&mut self, entry: Entry) -> u32 {
        self.tag_bits += self.code.bits(rank(entry));
        self.plain &= rank(entry) == 0;
        snr(entry) - self.base
    }

    /// Bits of the tags of those taken.
    fn tag_bits(&self) -> u32 {
        if self.plain { 0 } else { self.tag_bits }
    }

    /// Whether a block may end when it has taken so many: the index tells blocks apart by the SNR's high bits.
    fn may_end(&self, taken: usize) -> bool {
        let key = |at: usize| self.entries.get(at).map(|&entry| snr(entry) >> KEY_BITS);
        key(taken) != key(taken - 1)
    }
}

/// The most entries that fit, each written by itself.
fn sparse(entries: &[Entry], code: &TagCode) -> Option<Plan> {
    let mut growing = Growing::new(entries, code)?;
    let mut best = None;
    for (count, &entry) in (1..=MAX_ENTRIES).zip(entries) {
        let list = shortest_list(count, growing.take(entry));
        let bits = HEAD + list.bits() + growing.tag_bits();
        if bits > BLOCK_BITS {
            break;
        }
        if growing.may_end(count as usize) {
            let head = Head { form: Form::Sparse(list), plain: growing.plain, entries: count };
            best = Some(Plan { head, taken: count as usize, bits });
        }
    }
    best
}

/// The most entries that fit, written as runs, with a list of what is missing in them or with a bit for each SNR.
fn runs(entries: &[Entry], code: &TagCode, listed: bool) -> Option<Plan> {
    let mut growing = Growing::new(entries, code)?;
    let bridged = bridged(listed);
    let mut best = None;
    // Runs, the longest gap before one and the longest of them; where the last begins and where it ends.
    let (mut runs, mut gap, mut longest, mut start, mut end) = (0, 0, 1, 0, 0);
    // SNRs of the runs before the last; the last that is missing, and how many are.
    let (mut before, mut last_missing, mut missing) = (0, 0, 0);
    for (count, &entry) in (1..).zip(entries) {
        let offset = growing.take(entry);
        if runs == 0 || offset - end > bridged {
            before += end - start;
            runs += 1;
            gap = gap.max(offset - end);
            start = offset;
        } else if offset > end {
            missing += offset - end;
            last_missing = before + offset - start - 1;
        }
        end = offset + 1;
        longest = longest.max(end - start);
        let missing = listed.then(|| if missing > 0 { shortest_list(missing, last_missing) } else { List::default() });
        let form = Runs { count: runs, gap: width_of(gap).into(), length: width_of(longest - 1).into(), missing };
        let bits = form.end() + missing.map_or(before + end - start, |list| list.bits()) + growing.tag_bits();
        let entries = if growing.plain { 0 } else { count as u32 };
        if bits > BLOCK_BITS || runs > MAX_RUNS || entries > MAX_ENTRIES {
            break;
        }
        if growing.may_end(count) {
            let head = Head { form: Form::Runs(form), plain: growing.plain, entries };
            best = Some(Plan { head, taken: count, bits });
        }
    }
    best
}

/// SNRs that may be missing one after the other inside a run.
fn bridged(listed: bool) -> u32 {
    if listed { BRIDGED_BY_LIST } else { BRIDGED_BY_BITS }
}

fn write_list(numbers: impl Iterator<Item = u32> + Clone, list: List, writer: &mut BitWriter) {
    let mut high = 0;
    for number in numbers.clone() {
        writer.skip((number >> list.low) - high);
        writer.put(1, 1);
        high = number >> list.low;
    }
    numbers.for_each(|number| writer.put(number & ((1 << list.low) - 1), list.low));
}

fn write_runs(entries: &[Entry], Runs { gap, length, missing, .. }: Runs, writer: &mut BitWriter) {
    let bridged = bridged(missing.is_some());
    let runs = || entries.chunk_by(|&before, &after| snr(after) - snr(before) - 1 <= bridged);
    let mut end = entries.first().map_or(0, |&entry| first_snr(entry));
    // Those missing, and the same with the others between, counted through all runs.
    let (mut places, mut place) = (Vec::new(), 0);
    for run in runs() {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else { continue };
        writer.put(snr(first) - end, gap);
        writer.put(snr(last) - snr(first), length);
        end = snr(last) + 1;
        let mut next = snr(first);
        for &entry in run {
            places.extend(place..place + snr(entry) - next);
            place += snr(entry) - next + 1;
            next = snr(entry) + 1;
        }
    }
    if let Some(list) = missing {
        return write_list(places.into_iter(), list, writer);
    }
    let mut next = 0;
    for missing in places {
        (next..missing).for_each(|_| writer.put(1, 1));
        writer.put(0, 1);
        next = missing + 1;
    }
    (next..place).for_each(|_| writer.put(1, 1));
}
