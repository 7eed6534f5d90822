//! The devices that the benchmarks are about: as many as asked for, over so many TACs, serial numbers at random.
//!
//! The n-th device is a function of n, so that the program that builds the lists and those that ask about them agree
//! without sharing anything.

use eir_core::imei::{Imei, SNRS_PER_TAC};
use eir_core::lists::List;

/// The first TAC, invented.
const FIRST_TAC: u64 = 35_100_000;
const ROUNDS: u64 = 4;

/// A set of devices.
#[derive(Debug, Clone, Copy)]
pub struct Devices {
    /// How many are listed.
    pub count: u64,
    /// Over how many TACs.
    pub tacs: u64,
}

impl Devices {
    /// The device of that number: listed below `count`, not listed from there on.
    #[must_use]
    pub fn device(&self, number: u64) -> Imei {
        let (tac, place) = (number % self.tacs, number / self.tacs);
        let key = (FIRST_TAC + tac * 7) * SNRS_PER_TAC + permuted(tac, place % SNRS_PER_TAC);
        Imei::from_number(key).unwrap_or_else(|| unreachable!("a TAC that begins with 35"))
    }

    /// The list that a listed device is on: 90 of 100 white, 5 grey, 5 black.
    #[must_use]
    pub fn list(&self, number: u64) -> List {
        match mix(number) % 100 {
            0..90 => List::White,
            90..95 => List::Grey,
            _ => List::Black,
        }
    }
}

/// A permutation of the million serial numbers, another for each TAC: a Feistel network, walked until it lands inside.
fn permuted(tac: u64, place: u64) -> u64 {
    let mut at = place;
    loop {
        let (mut left, mut right) = (at >> 10, at & 1023);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (mix(tac << 32 | round << 16 | right) & 1023));
        }
        at = left << 10 | right;
        if at < SNRS_PER_TAC {
            return at;
        }
    }
}

/// A fixed hash of one word; also the benchmarks' source of randomness.
#[must_use]
pub fn mix(word: u64) -> u64 {
    let mut word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_device_is_another() {
        let devices = Devices { count: 100_000, tacs: 7 };
        let all: HashSet<_> = (0..200_000).map(|number| devices.device(number)).collect();
        assert_eq!(all.len(), 200_000);
    }
}
