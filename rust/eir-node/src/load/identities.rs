//! Which device, and which subscriber in it, the next request is about (3GPP TS 23.003 clauses 2.2 and 6.2).
//!
//! Used by the load generator's connections, which all draw from one [`Identities`] so that a walk visits each IMEI once
//! over all of them. IMSIs come from the test networks of MCC 001 and never from another.

use std::ops::Range;
use std::sync::Arc;

use eir_core::imei::IMEI_LIMIT;

/// First IMSI of MCC 001, as a number of 15 digits.
const FIRST_TEST_IMSI: u64 = 1_000_000_000_000;
/// First IMSI after MCC 001.
const TEST_IMSI_LIMIT: u64 = 2_000_000_000_000;

/// How many IMEIs are drawn at once. The reads of a list larger than the caches then overlap, instead of each being
/// waited for between two requests.
const DRAWN_AT_ONCE: usize = 64;

/// Where 14-digit IMEIs come from.
#[derive(Debug, Clone)]
pub enum ImeiSource {
    /// Any of these, at random, with repeats.
    Listed(Arc<[u64]>),
    /// Each of these once, in ascending order; the run ends with the last.
    Walk(Range<u64>),
    /// Any of these, at random, with repeats.
    Random(Range<u64>),
}

impl ImeiSource {
    /// Refuses an empty source and numbers of more than 14 digits.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let (empty, end) = match self {
            Self::Listed(imeis) => (imeis.is_empty(), imeis.iter().max().map_or(0, |last| last.saturating_add(1))),
            Self::Walk(range) | Self::Random(range) => (range.is_empty(), range.end),
        };
        match (empty, end <= IMEI_LIMIT) {
            (true, _) => Err("there is no IMEI to ask about"),
            (_, false) => Err("an IMEI has more than 14 digits"),
            _ => Ok(()),
        }
    }
}

/// Which subscriber of an [`ImsiSource`] a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImsiPick {
    /// A device always has the same subscriber, as almost all do: a repeated request brings the node nothing new.
    PerDevice,
    /// Any subscriber in any device: every request may bring the node a pair that it has not seen.
    Random,
}

/// Where IMSIs come from: `count` of them from `base`, a number of 15 digits in MCC 001.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImsiSource {
    /// The first IMSI.
    pub base: u64,
    /// How many there are.
    pub count: u64,
    /// Which one a request carries.
    pub pick: ImsiPick,
}

impl ImsiSource {
    /// Refuses subscribers of a real network.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let inside = self.base >= FIRST_TEST_IMSI
            && self.base.checked_add(self.count).is_some_and(|end| end <= TEST_IMSI_LIMIT)
            && self.count > 0;
        if inside { Ok(()) } else { Err("IMSIs must be of MCC 001, and at least one") }
    }
}

/// What one request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// 14 digits.
    pub imei: u64,
    /// 15 digits; 0 where the plan has none.
    pub imsi: u64,
}

/// The stream of identities of one run.
pub(super) struct Identities {
    imeis: ImeiSource,
    imsis: Option<ImsiSource>,
    random: SplitMix64,
    drawn: Vec<u64>,
}

impl Identities {
    pub(super) fn new(imeis: ImeiSource, imsis: Option<ImsiSource>, seed: u64) -> Self {
        Self { imeis, imsis, random: SplitMix64(seed), drawn: Vec::with_capacity(DRAWN_AT_ONCE) }
    }

    /// The next identity; `None` once a walk has come to its end.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Identity> {
        let imei = match self.drawn.pop() {
            Some(imei) => imei,
            None => self.draw()?,
        };
        let imsi = match self.imsis {
            None => 0,
            Some(ImsiSource { base, count, pick: ImsiPick::PerDevice }) => base + below(mix(imei), count),
            Some(ImsiSource { base, count, pick: ImsiPick::Random }) => base + below(self.random.next(), count),
        };
        Some(Identity { imei, imsi })
    }

    /// Draws IMEIs ahead and returns the first of them.
    fn draw(&mut self) -> Option<u64> {
        let Self { imeis, random, drawn, .. } = self;
        match imeis {
            ImeiSource::Listed(listed) => {
                let any = |_| listed.get(below(random.next(), listed.len() as u64) as usize).copied();
                drawn.extend((0..DRAWN_AT_ONCE).filter_map(any));
                drawn.pop()
            }
            ImeiSource::Random(range) => Some(range.start + below(random.next(), range.end - range.start)),
            ImeiSource::Walk(range) => range.next(),
        }
    }
}

/// `random` scaled down to `0..limit`, by the high half of the product: no division.
#[inline]
fn below(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

/// Steele, Lea and Flood's generator: three multiplications, any seed is good, and its output function hashes.
struct SplitMix64(u64);

impl SplitMix64 {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }
}

#[inline]
fn mix(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imeis(source: ImeiSource, seed: u64, count: usize) -> Vec<u64> {
        let mut identities = Identities::new(source, None, seed);
        (0..count).map_while(|_| identities.next()).map(|identity| identity.imei).collect()
    }

    #[test]
    fn the_generator_gives_the_published_numbers() {
        // First outputs for seed 1234567 of the reference implementation, https://prng.di.unimi.it/splitmix64.c
        let mut random = SplitMix64(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_walk_visits_each_imei_once_and_ends() {
        assert_eq!(
            imeis(ImeiSource::Walk(35_000_000_000_000..35_000_000_000_003), 7, 10),
            [35_000_000_000_000, 35_000_000_000_001, 35_000_000_000_002]
        );
    }

    #[test]
    fn random_imeis_stay_in_their_source_and_follow_the_seed() {
        let range = ImeiSource::Random(100..200);
        let drawn = imeis(range.clone(), 7, 1000);
        assert_eq!(drawn.len(), 1000);
        assert!(drawn.iter().all(|imei| (100..200).contains(imei)));
        assert_eq!(drawn, imeis(range.clone(), 7, 1000));
        assert_ne!(drawn, imeis(range, 8, 1000));

        let listed = imeis(ImeiSource::Listed([5, 50, 500].into()), 7, 1000);
        assert!([5, 50, 500].iter().all(|imei| listed.contains(imei)));
        assert_eq!(listed.len(), 1000);
    }

    #[test]
    fn a_device_keeps_its_subscriber() {
        let imsis = ImsiSource { base: 1_010_000_000_000, count: 1_000_000, pick: ImsiPick::PerDevice };
        let mut identities = Identities::new(ImeiSource::Listed([5, 50].into()), Some(imsis), 7);
        let pairs: std::collections::BTreeSet<_> =
            (0..100).filter_map(|_| identities.next()).map(|identity| (identity.imei, identity.imsi)).collect();
        assert_eq!(pairs.len(), 2);
        assert!(pairs.iter().all(|(_, imsi)| (1_010_000_000_000..1_010_001_000_000).contains(imsi)));
    }

    #[test]
    fn sources_that_cannot_be_asked_are_refused() {
        assert!(ImeiSource::Listed([].into()).check().is_err());
        assert!(ImeiSource::Walk(5..5).check().is_err());
        assert!(ImeiSource::Random(1..IMEI_LIMIT + 1).check().is_err());
        assert!(ImeiSource::Listed([IMEI_LIMIT].into()).check().is_err());
        assert!(ImeiSource::Random(1..IMEI_LIMIT).check().is_ok());
        let imsis = ImsiSource { base: 1_010_000_000_000, count: 10, pick: ImsiPick::Random };
        assert!(imsis.check().is_ok());
        for base in [0, 401_010_000_000_000, u64::MAX, TEST_IMSI_LIMIT - 9] {
            assert!(ImsiSource { base, ..imsis }.check().is_err(), "{base}");
        }
    }
}
