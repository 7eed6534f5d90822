//! Numbers and sets of single bits in a block, and writing them.
//!
//! Its one job: bits, the low ones of a byte first. The block's reader and writer call it. It never trusts a place:
//! what lies outside the block's view reads as zeros.

use super::VIEW;
use crate::lists::le::u64_at;

/// Every byte 1.
const BYTES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of every byte.
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// A block's bytes, and a word beyond, so that any eight of them can be read at once.
///
/// `BMI2` says that the processor has that, and popcnt: only code that is compiled for both may say so. What a look-up
/// calls is always inlined, so that it is compiled for what its caller is.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a, const BMI2: bool>(pub(super) &'a [u8; VIEW]);

impl<const BMI2: bool> Bits<'_, BMI2> {
    /// The number of `width` bits at the place; `width` is at most 32.
    #[inline(always)]
    pub(super) fn get(self, at: u32, width: u32) -> u32 {
        (self.word(at) & ((1 << width) - 1)) as u32
    }

    /// Whether the bit at the place is set.
    #[inline(always)]
    pub(super) fn one(self, at: u32) -> bool {
        self.word(at) & 1 == 1
    }

    /// How many bits one after the other from the place on are set, as far as they are looked at: [`WORD`] of them.
    #[inline(always)]
    pub(super) fn run(self, at: u32) -> u32 {
        (!self.word(at)).trailing_zeros().min(WORD)
    }

    /// How many of `count` bits from the place on are set.
    #[inline(always)]
    pub(super) fn ones(self, mut at: u32, mut count: u32) -> u32 {
        let mut ones = 0;
        while count > WORD {
            ones += (self.word(at) & ((1 << WORD) - 1)).count_ones();
            at += WORD;
            count -= WORD;
        }
        ones + (self.word(at) & ((1 << count) - 1)).count_ones()
    }

    /// The place just after the zero number `nth`, from 1, of the `count` bits from `at` on; relative to `at`.
    #[inline(always)]
    pub(super) fn after_zero(self, at: u32, count: u32, mut nth: u32) -> Option<u32> {
        let mut passed = 0;
        while passed < count {
            let zeros = !self.word(at + passed) & ((1 << WORD) - 1);
            let found = zeros.count_ones();
            if nth <= found {
                let after = passed + select::<BMI2>(zeros, nth - 1) + 1;
                return (after <= count).then_some(after);
            }
            nth -= found;
            passed += WORD;
        }
        None
    }

    /// At least 57 bits from the place on.
    #[inline(always)]
    pub(super) fn word(self, at: u32) -> u64 {
        u64_at(self.0, (at >> 3) as usize).unwrap_or(0) >> (at & 7)
    }
}

/// Bits that are read at once.
pub(super) const WORD: u32 = 56;

/// The place of the set bit number `nth`, from 0, of a word that has more than so many.
#[inline(always)]
fn select<const BMI2: bool>(word: u64, nth: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if BMI2 {
        // SAFETY: the processor has the instruction, or nobody may have said so.
        return unsafe { std::arch::x86_64::_pdep_u64(1 << (nth & 63), word) }.trailing_zeros();
    }
    let nth = u64::from(nth);
    // The ones of each byte and those before it; then how many bytes end before the wanted one.
    let pairs = word - (word >> 1 & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let sums = ((fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(BYTES);
    let byte = not_above(sums, nth) * 8;
    let nth = nth - (sums << 8 >> byte & 0xff);
    // The same once more, with a byte for each bit.
    let spread = (word >> byte & 0xff).wrapping_mul(BYTES) & 0x8040_2010_0804_0201;
    let sums = ((spread + 0x7f7f_7f7f_7f7f_7f7f) >> 7 & BYTES).wrapping_mul(BYTES);
    (byte + not_above(sums, nth)) as u32
}

/// How many bytes, each below 128, are not above a number below 128.
#[inline]
fn not_above(bytes: u64, number: u64) -> u64 {
    ((((number * BYTES) | HIGHS) - bytes) & HIGHS).count_ones().into()
}

/// Bits being written.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    word: u64,
    used: u32,
}

impl BitWriter {
    /// Append a number of `width` bits, at most 32.
    pub(super) fn put(&mut self, number: u32, width: u32) {
        self.word |= u64::from(number) << self.used;
        self.used += width;
        while self.used >= 8 {
            self.bytes.push(self.word as u8);
            self.word >>= 8;
            self.used -= 8;
        }
    }

    /// Append so many zeros.
    pub(super) fn skip(&mut self, mut count: u32) {
        while count > 0 {
            let some = count.min(32);
            self.put(0, some);
            count -= some;
        }
    }

    /// Append what was written, filled up with zeros to a multiple of eight bytes, and begin anew.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.skip((8 - self.used) % 8);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        out.append(&mut self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_are_read_as_they_were_written(numbers in proptest::collection::vec((any::<u32>(), 0u32..=32), 0..32)) {
            let mut writer = BitWriter::default();
            for &(number, width) in &numbers {
                writer.put((u64::from(number) & ((1 << width) - 1)) as u32, width);
            }
            let mut bytes = Vec::new();
            writer.finish(&mut bytes);
            prop_assert_eq!(bytes.len() % 8, 0);
            bytes.resize(VIEW, 0);
            let bits = Bits::<false>(bytes.first_chunk().unwrap());
            let mut at = 0;
            for (number, width) in numbers {
                prop_assert_eq!(u64::from(bits.get(at, width)), u64::from(number) & ((1 << width) - 1));
                at += width;
            }
        }

        #[test]
        fn ones_and_zeros_are_counted(bytes in any::<[[u8; 8]; 17]>(), at in 0u32..1024, count in 0u32..1024) {
            let bytes = bytes.concat();
            let bits = Bits::<false>(bytes.first_chunk().unwrap());
            let count = count.min(1024 - at);
            let places: Vec<u32> = (at..at + count).filter(|&place| bits.one(place)).collect();
            prop_assert_eq!(bits.ones(at, count), places.len() as u32);
            let zeros: Vec<u32> = (0..count).filter(|&place| !bits.one(at + place)).collect();
            for (nth, &place) in (1..).zip(&zeros) {
                prop_assert_eq!(bits.after_zero(at, count, nth), Some(place + 1));
            }
            prop_assert_eq!(bits.after_zero(at, count, zeros.len() as u32 + 1), None);
        }
    }

    #[test]
    fn outside_the_view_there_are_zeros() {
        let bits = Bits::<false>(&[0xff; VIEW]);
        assert_eq!((bits.get(u32::MAX - 64, 32), bits.one(1 << 20)), (0, false));
        assert_eq!(bits.ones(1 << 20, 1000), 0);
    }
}
