//! A block: the listed SNRs of a part of a TAC, with their tags, in at most two cache lines.
//!
//! Its one job: find an SNR in a block, and give all of them. Look-ups and the iterator call it; `pack.rs` writes what
//! is read here. It reads nothing but the block's view, and a crafted block gives wrong answers in bounded time.
//!
//! A block begins with a head of 32 bits:
//!
//! ```text
//! bits 0-1    form: 0 sparse, 1 runs with a bit for each SNR, 2 runs less some
//! bit 2       plain: every entry has the TAC's commonest tag, and no tags follow
//! bits 3-12   entries; 0 in plain runs
//! sparse      bits 13-17 width of a low part, 18-27 bits of the high parts
//! runs        bits 13-17 width of a gap, 18-23 runs, 24-28 width of a length
//! less some   32 bits more: bits 3-12 how many are missing, 13-17 and 18-27 as in sparse
//! ```
//!
//! *Sparse*: the entries' offsets from the block's first SNR as a sorted list. *Runs*: for each the gap since the end
//! of the run before, and its length less one; then either a bit for each SNR of every run, whether it is listed, or a
//! sorted list of those that are not, counted through all runs. Then come the tags.
//!
//! A sorted list (Elias-Fano): each number is split. The high parts come first, as a string of bits: for each number in
//! order a one, with as many zeros before it in all as its high part says. Then the low parts, of fixed width.

use super::bits::{Bits, WORD};
use super::tag_code::{TagCode, Tags};
use crate::lists::layout::BadSection;
use crate::lists::tag::Tag;

/// Bits of a block's head.
pub(super) const HEAD: u32 = 32;
/// Bits of a block.
pub(super) const BLOCK_BITS: u32 = super::BLOCK as u32 * 8;

/// Numbers with the same high part that are compared one and all: mostly there are no more, and a branch for each would
/// be mispredicted.
const TOGETHER: u32 = 4;

/// How a sorted list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct List {
    /// How many numbers there are.
    pub(super) count: u32,
    /// Bits of a low part.
    pub(super) low: u32,
    /// Bits of all high parts.
    pub(super) highs: u32,
}

impl List {
    pub(super) fn packed(&self) -> u32 {
        self.count << 3 | self.low << 13 | self.highs << 18
    }

    #[inline(always)]
    fn unpack(head: u32) -> Self {
        Self { count: head >> 3 & 1023, low: head >> 13 & 31, highs: head >> 18 & 1023 }
    }

    /// How many bits it has.
    #[inline(always)]
    pub(super) fn bits(&self) -> u32 {
        self.highs + self.count * self.low
    }

    /// The place of a number in the list at `at`; where it is not there, how many are below it.
    #[inline(always)]
    fn search<const BMI2: bool>(&self, bits: Bits<'_, BMI2>, at: u32, number: u32) -> Result<u32, u32> {
        let high = number >> self.low;
        let after = if high == 0 { Some(0) } else { bits.after_zero(at, self.highs, high) };
        let Some(mut place) = after else { return Err(self.count) };
        let mut nth = place.saturating_sub(high);
        let wanted = number & ((1 << self.low) - 1);
        let run = bits.run(at + place).min(self.highs.saturating_sub(place));
        if run <= TOGETHER && self.low * TOGETHER <= WORD {
            let lows = bits.word(at + self.highs + nth * self.low);
            let (mut below, mut is_there) = (0, false);
            for number in 0..TOGETHER {
                let found = (lows >> (number * self.low)) as u32 & ((1 << self.low) - 1);
                below += u32::from(number < run && found < wanted);
                is_there |= number < run && found == wanted;
            }
            nth += below;
            return if is_there { Ok(nth) } else { Err(nth) };
        }
        loop {
            let run = bits.run(at + place);
            for _ in 0..run.min(self.highs.saturating_sub(place)) {
                let found = bits.get(at + self.highs + nth * self.low, self.low);
                if found >= wanted {
                    return if found == wanted { Ok(nth) } else { Err(nth) };
                }
                nth += 1;
            }
            place += run;
            if run < WORD || place >= self.highs {
                return Err(nth);
            }
        }
    }

    /// The numbers of the list at `at`, as many as the high parts say.
    #[inline(always)]
    fn numbers(self, bits: Bits<'_, false>, at: u32) -> impl Iterator<Item = u64> {
        (0..self.highs).filter(move |&place| bits.one(at + place)).zip(0..).map(move |(place, nth)| {
            u64::from(place - nth) << self.low | u64::from(bits.get(at + self.highs + nth * self.low, self.low))
        })
    }

    /// Whether its high parts are those of so many numbers, and no longer.
    fn is_sound(&self, bits: Bits<'_, false>, at: u32) -> bool {
        bits.ones(at, self.highs) == self.count && (self.highs == 0 || bits.one(at + self.highs - 1))
    }
}

/// How runs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runs {
    /// How many there are.
    pub(super) count: u32,
    /// Bits of a gap.
    pub(super) gap: u32,
    /// Bits of a length.
    pub(super) length: u32,
    /// Those that are not listed; where there is none such list, each SNR has a bit.
    pub(super) missing: Option<List>,
}

impl Runs {
    /// Where the runs begin.
    #[inline(always)]
    fn at(&self) -> u32 {
        if self.missing.is_some() { 2 * HEAD } else { HEAD }
    }

    /// Where it begins what follows them.
    #[inline(always)]
    pub(super) fn end(&self) -> u32 {
        self.at() + self.count * (self.gap + self.length)
    }

    /// Of each run the offset of its first SNR and its length.
    #[inline(always)]
    fn of<const BMI2: bool>(self, bits: Bits<'_, BMI2>) -> impl Iterator<Item = (u32, u32)> {
        let mut end = 0u32;
        (0..self.count).map(move |run| {
            let at = self.at() + run * (self.gap + self.length);
            let start = end.saturating_add(bits.get(at, self.gap));
            let length = bits.get(at + self.gap, self.length) + 1;
            end = start.saturating_add(length);
            (start, length)
        })
    }

    /// The place of an offset among the entries, and where the tags begin.
    #[inline(always)]
    fn find<const BMI2: bool>(self, bits: Bits<'_, BMI2>, offset: u32) -> Option<(u32, u32)> {
        let (mut place, mut total) = (None, 0u32);
        for (start, length) in self.of(bits) {
            if let Some(inside) = offset.checked_sub(start)
                && inside < length
            {
                place = Some(total.saturating_add(inside));
            }
            total = total.saturating_add(length);
        }
        let (place, at) = (place?, self.end());
        match self.missing {
            Some(missing) => {
                let before = missing.search(bits, at, place).err()?;
                Some((place.saturating_sub(before), at + missing.bits()))
            }
            // A crafted run that goes on beyond the block has no bits there.
            None => (total <= BLOCK_BITS && bits.one(at + place)).then(|| (bits.ones(at, place), at + total)),
        }
    }
}

/// How a block's SNRs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Each by itself.
    Sparse(List),
    /// As runs.
    Runs(Runs),
}

/// A block's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// How the SNRs are written.
    pub(super) form: Form,
    /// Whether there are no tags.
    pub(super) plain: bool,
    /// How many entries there are; 0 in plain runs.
    pub(super) entries: u32,
}

impl Head {
    /// The head as a number, and the list's of runs less some.
    pub(super) fn packed(&self) -> (u32, Option<u32>) {
        let common = u32::from(self.plain) << 2 | self.entries << 3;
        match self.form {
            Form::Sparse(list) => (common | list.packed(), None),
            Form::Runs(Runs { count, gap, length, missing }) => {
                let form = 1 + u32::from(missing.is_some());
                (common | form | gap << 13 | count << 18 | length << 24, missing.map(|list| list.packed()))
            }
        }
    }

    #[inline(always)]
    fn unpack<const BMI2: bool>(bits: Bits<'_, BMI2>) -> Self {
        let head = bits.get(0, HEAD);
        let form = match head & 3 {
            0 => Form::Sparse(List::unpack(head)),
            form => Form::Runs(Runs {
                gap: head >> 13 & 31,
                count: head >> 18 & 63,
                length: head >> 24 & 31,
                missing: (form != 1).then(|| List::unpack(bits.get(HEAD, HEAD))),
            }),
        };
        Self { form, plain: head & 4 != 0, entries: head >> 3 & 1023 }
    }
}

/// The tag of the SNR that lies `offset` behind the block's first; `None` where it is not listed. The TAC's code is
/// asked for when it is.
#[inline(always)]
pub(super) fn find<const BMI2: bool>(
    bits: Bits<'_, BMI2>,
    offset: u32,
    code: impl FnOnce() -> Option<TagCode>,
) -> Option<Tag> {
    let head = Head::unpack(bits);
    let (nth, tags_at) = match head.form {
        Form::Sparse(list) => (list.search(bits, HEAD, offset).ok()?, HEAD + list.bits()),
        Form::Runs(runs) => runs.find(bits, offset)?,
    };
    let code = code()?;
    if head.plain {
        return Some(code.tag(0));
    }
    (nth < head.entries).then(|| code.read(bits, tags_at, head.entries, nth))
}

/// What is wrong with a block that no writer makes.
pub(super) const BAD: BadSection = BadSection("a block is not what its head says");

/// Append all entries of a block, as offset and tag, in rising order; gives how many bits the block has.
///
/// # Errors [`BadSection`] where the block is wrong, or has an offset that is not below `limit`; what was appended by
/// then are rising offsets below it.
pub(super) fn read(
    bits: Bits<'_, false>,
    limit: u32,
    code: &TagCode,
    out: &mut Vec<(u32, Tag)>,
) -> Result<u32, BadSection> {
    let head = Head::unpack(bits);
    let (at, entries) = match head.form {
        Form::Sparse(list) if list.is_sound(bits, HEAD) => (HEAD + list.bits(), list.count),
        Form::Sparse(_) => return Err(BAD),
        Form::Runs(runs) => {
            let total = runs.of(bits).fold(0u32, |total, (_, length)| total.saturating_add(length));
            match runs.missing {
                Some(missing) if missing.is_sound(bits, runs.end()) => {
                    (runs.end() + missing.bits(), total.saturating_sub(missing.count))
                }
                None if total <= BLOCK_BITS => (runs.end() + total, bits.ones(runs.end(), total)),
                _ => return Err(BAD),
            }
        }
    };
    let told = if head.plain && matches!(head.form, Form::Runs(_)) { 0 } else { entries };
    if head.entries != told || entries == 0 {
        return Err(BAD);
    }
    let mut reader = Reader { tags: None, limit, next: 0, left: entries, code, out };
    let mut end = at;
    if !head.plain {
        let tags = Tags::new(*code, bits, at, entries);
        end = tags.end();
        reader.tags = Some(tags);
    }
    if end > BLOCK_BITS {
        return Err(BAD);
    }
    match head.form {
        Form::Sparse(list) => {
            list.numbers(bits, HEAD).try_for_each(|offset| reader.entry(u32::try_from(offset).map_err(|_| BAD)?))?;
        }
        Form::Runs(runs) => reader.runs(bits, runs)?,
    }
    if reader.left == 0 { Ok(end) } else { Err(BAD) }
}

/// The entries of a block on their way out.
struct Reader<'a> {
    tags: Option<Tags<'a>>,
    limit: u32,
    /// The least offset that the next entry may have.
    next: u32,
    /// How many are to come.
    left: u32,
    code: &'a TagCode,
    out: &'a mut Vec<(u32, Tag)>,
}

impl Reader<'_> {
    #[inline(always)]
    fn entry(&mut self, offset: u32) -> Result<(), BadSection> {
        if offset < self.next || offset >= self.limit || self.left == 0 {
            return Err(BAD);
        }
        self.next = offset + 1;
        self.left -= 1;
        let rank = self.tags.as_mut().map_or(0, Tags::rank);
        if rank >= Tag::LIMIT as u32 {
            return Err(BAD);
        }
        self.out.push((offset, self.code.tag(rank)));
        Ok(())
    }

    fn runs(&mut self, bits: Bits<'_, false>, runs: Runs) -> Result<(), BadSection> {
        let at = runs.end();
        let mut missing = runs.missing.map(|list| list.numbers(bits, at).peekable());
        let mut place = 0u32;
        for (start, length) in runs.of(bits) {
            for inside in 0..length {
                let listed = match &mut missing {
                    Some(missing) => missing.next_if_eq(&u64::from(place)).is_none(),
                    None => bits.one(at + place),
                };
                if listed {
                    self.entry(start.saturating_add(inside))?;
                }
                place = place.saturating_add(1);
            }
        }
        Ok(())
    }
}
