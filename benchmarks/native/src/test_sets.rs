//! Sets of IMEIs as large as a country's, in the two shapes that the encoding is measured on.
//!
//! Everything about a TAC follows from the seed and the TAC's number, so that who writes a set and who asks about it
//! agree without sharing anything, and no program holds more than a few TACs.

use std::str::FromStr;

use eir_core::imei::{Imei, SNRS_PER_TAC};
use eir_core::lists::List;

use crate::lists::mix;

/// The first TAC, invented.
const FIRST_TAC: u64 = 35_100_000;
/// Runs of a TAC of the clustered set, SNRs of a run, and how many of them are listed.
const RUNS: u64 = 50;
const RUN: u64 = 100;
const LISTED_OF_RUN: u64 = 90;

/// How the SNRs of a TAC lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Anywhere.
    Uniform,
    /// 50 runs of 100 SNRs, of which ten are missing.
    Clustered,
}

impl FromStr for Shape {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "uniform" => Ok(Self::Uniform),
            "clustered" => Ok(Self::Clustered),
            _ => Err(()),
        }
    }
}

/// A set of IMEIs: of 100 some 90 are white, 5 grey and 5 black.
#[derive(Debug, Clone, Copy)]
pub struct TestSet {
    /// How the SNRs of a TAC lie.
    pub shape: Shape,
    /// How many IMEIs there are in all.
    pub imeis: u64,
    /// In how many TACs they are, in the uniform set.
    pub tacs: u64,
    /// Another seed is another set.
    pub seed: u64,
}

/// An IMEI and its list.
pub type Listed = (Imei, List);

impl TestSet {
    /// In how many TACs the IMEIs are.
    #[must_use]
    pub fn tacs(&self) -> u64 {
        match self.shape {
            Shape::Uniform => self.tacs,
            Shape::Clustered => self.imeis.div_ceil(RUNS * LISTED_OF_RUN),
        }
    }

    /// The IMEI of a TAC with that SNR.
    #[must_use]
    pub fn imei(&self, tac: u64, snr: u64) -> Imei {
        let key = (FIRST_TAC + tac * 7) * SNRS_PER_TAC + snr;
        Imei::from_number(key).unwrap_or_else(|| unreachable!("a TAC that begins with 35"))
    }

    /// The IMEIs of a TAC in rising order.
    #[must_use]
    pub fn of_tac(&self, tac: u64) -> Vec<Listed> {
        let mut random = Random::new(self.seed << 32 ^ tac);
        let count = match self.shape {
            Shape::Uniform => self.imeis / self.tacs + u64::from(tac < self.imeis % self.tacs),
            Shape::Clustered => (self.imeis - tac * RUNS * LISTED_OF_RUN).min(RUNS * LISTED_OF_RUN),
        };
        let mut snrs = Snrs::default();
        match self.shape {
            Shape::Uniform => snrs.fill(count, || random.below(SNRS_PER_TAC)),
            Shape::Clustered => {
                let mut starts = Vec::new();
                while snrs.count < count {
                    let start = random.below(SNRS_PER_TAC - RUN);
                    if starts.iter().all(|&other: &u64| other.abs_diff(start) > RUN) {
                        let upto = (snrs.count + LISTED_OF_RUN).min(count);
                        snrs.fill(upto, || start + random.below(RUN));
                        starts.push(start);
                    }
                }
            }
        }
        let list = |word| match word {
            0 => List::Grey,
            1 => List::Black,
            _ => List::White,
        };
        snrs.rising().map(|snr| (self.imei(tac, snr), list(random.below(20)))).collect()
    }
}

/// A set of SNRs.
struct Snrs {
    words: Vec<u64>,
    count: u64,
}

impl Default for Snrs {
    fn default() -> Self {
        Self { words: vec![0; SNRS_PER_TAC.div_ceil(64) as usize], count: 0 }
    }
}

impl Snrs {
    /// Take SNRs until there are so many.
    fn fill(&mut self, count: u64, mut draw: impl FnMut() -> u64) {
        while self.count < count {
            let snr = draw();
            let (word, bit) = (&mut self.words[(snr / 64) as usize], 1 << (snr % 64));
            self.count += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    fn rising(&self) -> impl Iterator<Item = u64> {
        (0..).zip(&self.words).flat_map(|(place, &word): (u64, _)| {
            let rests = std::iter::successors(Some(word), |&rest| Some(rest & rest.wrapping_sub(1)));
            rests.take_while(|&rest| rest != 0).map(move |rest| place * 64 + u64::from(rest.trailing_zeros()))
        })
    }
}

/// Numbers that look random, the same each time.
pub struct Random(u64);

impl Random {
    /// Those of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The next, below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        ((u128::from(mix(self.0)) * u128::from(limit)) >> 64) as u64
    }

    /// Put things into another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            things.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

/// What information theory has a set take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entropy {
    places: f64,
    lists: [u64; 3],
}

impl Entropy {
    /// Count a TAC's IMEIs: any so many of its SNRs are as likely as any others.
    pub fn add(&mut self, entries: &[Listed]) {
        let count = entries.len();
        let choices = |place: usize| (SNRS_PER_TAC as f64 - place as f64) / (count - place) as f64;
        // Products of a few factors below a million, and one logarithm for them.
        let places: Vec<usize> = (0..count).collect();
        self.places +=
            places.chunks(32).map(|some| some.iter().copied().map(choices).product::<f64>().log2()).sum::<f64>();
        entries.iter().for_each(|(_, list)| self.lists[*list as usize] += 1);
    }

    /// Bytes for the IMEIs as members of any set of that size, and their lists.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        let all: u64 = self.lists.iter().sum();
        let bits = |&count: &u64| if count == 0 { 0.0 } else { count as f64 * (all as f64 / count as f64).log2() };
        (self.places + self.lists.iter().map(bits).sum::<f64>()) / 8.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_as_many_as_it_says_in_rising_order() {
        for shape in [Shape::Uniform, Shape::Clustered] {
            let set = TestSet { shape, imeis: 100_003, tacs: 21, seed: 1 };
            let all: Vec<Listed> = (0..set.tacs()).flat_map(|tac| set.of_tac(tac)).collect();
            assert_eq!(all.len(), 100_003);
            assert!(all.is_sorted_by(|a, b| a.0 < b.0));
            let white = all.iter().filter(|(_, list)| *list == List::White).count();
            assert!((89_000..91_000).contains(&white), "{white}");
            assert_eq!(set.of_tac(3), set.of_tac(3));
            assert_ne!(set.of_tac(3), TestSet { seed: 2, ..set }.of_tac(3));
        }
    }

    #[test]
    fn runs_are_runs() {
        let set = TestSet { shape: Shape::Clustered, imeis: 4500, tacs: 0, seed: 1 };
        let entries = set.of_tac(0);
        let apart = entries.windows(2).filter(|pair| pair[1].0.number() - pair[0].0.number() > RUN).count();
        assert!((40..50).contains(&apart), "{apart}");
    }

    #[test]
    fn the_entropy_is_that_of_the_definition() {
        let set = TestSet { shape: Shape::Uniform, imeis: 5000, tacs: 1, seed: 1 };
        let mut entropy = Entropy::default();
        entropy.add(&set.of_tac(0));
        // log2 C(1000000, 5000) is 45,417.6; and 0.569 bits for a list.
        let bits = entropy.bytes() * 8.0;
        assert!((45_417.6 + 0.5 * 5000.0..45_417.6 + 0.64 * 5000.0).contains(&bits), "{bits}");
    }
}
