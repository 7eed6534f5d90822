//! The code of a TAC's tags: few bits for the tags that it has often.
//!
//! Its one job: choose a code for the tags of a TAC, and read and write the tags of a block in it. The writer chooses,
//! blocks hold the codes. A tag's rank is its place among the TAC's tags, the commonest first. A block's entries have a
//! bit each, whether the rank is above 0; those where it is have another, whether it is above 1; so on for as many
//! levels as the code has. What is left of the rank of those that are above every level is a number of fixed width. So
//! a tag is found by counting bits, without reading the tags before it.

use super::bits::{BitWriter, Bits};
use crate::lists::tag::Tag;

/// The code of a TAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TagCode {
    /// Four bits for each rank, the lowest first: the tag.
    pub(super) order: u64,
    /// How many levels of single bits there are.
    pub(super) levels: u8,
    /// Bits of what is left of a rank above all levels.
    pub(super) width: u8,
}

impl TagCode {
    /// The shortest such code where the tags occur so often.
    pub(super) fn for_counts(counts: &[u64; Tag::LIMIT]) -> Self {
        let mut tags: Vec<(u64, u8)> = counts.iter().copied().zip(0..).collect();
        tags.sort_by_key(|&(count, tag)| (u64::MAX - count, tag));
        let order = tags.iter().rev().fold(0, |order, &(_, tag)| order << 4 | u64::from(tag));
        let used = tags.iter().filter(|(count, _)| *count > 0).count().max(1) as u8;
        let codes = (0..used).map(|levels| Self { order, levels, width: width_of(u32::from(used - levels - 1)) });
        let cost = |code: &Self| {
            let bits = |(rank, (count, _)): (u8, &(u64, u8))| u64::from(code.bits(rank)) * count;
            (0u8..).zip(&tags).map(bits).sum::<u64>()
        };
        codes.min_by_key(cost).unwrap_or(Self { order, levels: 0, width: 4 })
    }

    /// How many bits a rank takes.
    pub(super) fn bits(&self, rank: u8) -> u32 {
        u32::from(if rank < self.levels { rank + 1 } else { self.levels + self.width })
    }

    /// The tag of that rank; of the ranks from 16 on, which only a crafted section has, any.
    #[inline(always)]
    pub(super) fn tag(&self, rank: u32) -> Tag {
        Tag::from_low_bits(self.order >> (rank % 16 * 4))
    }

    /// The rank of every tag.
    pub(super) fn ranks(&self) -> [u8; Tag::LIMIT] {
        let mut ranks = [0; Tag::LIMIT];
        for rank in 0..Tag::LIMIT as u8 {
            if let Some(place) = ranks.get_mut(usize::from(self.tag(rank.into()).number())) {
                *place = rank;
            }
        }
        ranks
    }

    /// Write the tags of a block, given as ranks.
    pub(super) fn write(&self, ranks: impl Iterator<Item = u8> + Clone, out: &mut BitWriter) {
        for level in 0..self.levels {
            for rank in ranks.clone().filter(|&rank| rank >= level) {
                out.put((rank > level).into(), 1);
            }
        }
        for rank in ranks.filter(|&rank| rank >= self.levels) {
            out.put((rank - self.levels).into(), self.width.into());
        }
    }

    /// The tag of the entry number `nth`, from 0, of `count` whose tags begin at `at`.
    #[inline(always)]
    pub(super) fn read<const BMI2: bool>(
        &self,
        bits: Bits<'_, BMI2>,
        mut at: u32,
        mut count: u32,
        mut nth: u32,
    ) -> Tag {
        for level in 0..u32::from(self.levels) {
            if !bits.one(at + nth) {
                return self.tag(level);
            }
            let before = bits.ones(at, nth);
            let above = before + bits.ones(at + nth, count.saturating_sub(nth));
            (at, count, nth) = (at + count, above, before);
        }
        let width = u32::from(self.width);
        self.tag(u32::from(self.levels) + bits.get(at + nth * width, width))
    }
}

/// The tags of a block, one after the other.
pub(super) struct Tags<'a> {
    code: TagCode,
    bits: Bits<'a, false>,
    /// Where the next bit of each level is, and behind them the next number of fixed width.
    next: [u32; Tag::LIMIT + 1],
    end: u32,
}

impl<'a> Tags<'a> {
    /// The tags of `count` entries, which begin at `at`.
    pub(super) fn new(code: TagCode, bits: Bits<'a, false>, at: u32, count: u32) -> Self {
        let mut next = [0; Tag::LIMIT + 1];
        let (mut at, mut count) = (at, count);
        for place in next.iter_mut().take(usize::from(code.levels)) {
            *place = at;
            (at, count) = (at + count, bits.ones(at, count));
        }
        if let Some(place) = next.get_mut(usize::from(code.levels)) {
            *place = at;
        }
        Self { code, bits, next, end: at + count * u32::from(code.width) }
    }

    /// The place behind the last tag.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// The next rank.
    #[inline]
    pub(super) fn rank(&mut self) -> u32 {
        let levels = u32::from(self.code.levels);
        for (level, place) in (0..levels).zip(&mut self.next) {
            *place += 1;
            if !self.bits.one(*place - 1) {
                return level;
            }
        }
        let width = u32::from(self.code.width);
        let Some(place) = self.next.get_mut(levels as usize) else { return 0 };
        *place += width;
        levels + self.bits.get(*place - width, width)
    }
}

/// How many bits a number up to `most` needs.
pub(super) fn width_of(most: u32) -> u8 {
    (u32::BITS - most.leading_zeros()) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::imei_set::VIEW;

    fn code(counts: &[u64]) -> TagCode {
        let mut all = [0; Tag::LIMIT];
        all[..counts.len()].copy_from_slice(counts);
        TagCode::for_counts(&all)
    }

    #[test]
    fn a_code_is_as_short_as_the_tags_allow() {
        let form = |counts: &[u64]| (code(counts).levels, code(counts).width);
        assert_eq!(form(&[7]), (0, 0));
        assert_eq!(form(&[0, 0, 9]), (0, 0));
        assert_eq!(form(&[1, 1, 1, 1]), (0, 2));
        assert_eq!(form(&[90, 5, 5]), (1, 1));
        assert_eq!(form(&[5, 5, 90, 0, 0, 5, 5]), (1, 2));
        assert_eq!(form(&[900, 90, 9, 1]), (2, 1));
        assert_eq!(form(&[1; 16]), (0, 4));
        assert_eq!(code(&[5, 5, 90]).tag(0).number(), 2);
    }

    #[test]
    fn tags_are_read_as_they_were_written_in_order_and_alone() {
        let cases: [&[u64]; 5] = [&[7], &[90, 5, 5], &[9, 4, 2, 1], &[1; 16], &[1, 2, 4, 8, 16, 32, 64, 128]];
        for counts in cases {
            let code = code(counts);
            let used = counts.len() as u64;
            let ranks: Vec<u8> = (0..60u64).map(|n| ((n * n * 7 + n) % used.min(n + 1)) as u8).collect();
            let mut writer = BitWriter::default();
            writer.skip(3);
            code.write(ranks.iter().copied(), &mut writer);
            let mut bytes = Vec::new();
            writer.finish(&mut bytes);
            bytes.resize(VIEW.max(bytes.len()), 0);
            let bits = Bits::<false>(bytes.first_chunk().unwrap());
            let mut tags = Tags::new(code, bits, 3, 60);
            assert_eq!(tags.end(), 3 + ranks.iter().map(|&rank| code.bits(rank)).sum::<u32>());
            for (nth, &rank) in (0..).zip(&ranks) {
                assert_eq!(tags.rank(), rank.into());
                assert_eq!(code.read(bits, 3, 60, nth), code.tag(rank.into()), "{counts:?} {nth}");
                assert_eq!(code.ranks()[usize::from(code.tag(rank.into()).number())], rank);
            }
        }
    }
}
