//! The encoding as a whole: against a model, near to the entropy, and with sections that are damaged.

use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<u64, u8>;

const TAC: u64 = 35_209_900_000_000;

fn section(model: &Model) -> Vec<u8> {
    build(model.iter().map(|(&key, &tag)| (Imei::from_number(key).unwrap(), Tag::from_low_bits(tag.into()))))
}

fn look_up(section: &[u8], key: u64) -> Option<u8> {
    let set = ImeiSet::open(section).unwrap();
    set.get(section, Imei::from_number(key).unwrap()).map(Tag::number)
}

/// That the section of a model is sound, and holds it and nothing else.
fn assert_holds(model: &Model) -> Vec<u8> {
    let section = section(model);
    let set = ImeiSet::open(&section).unwrap();
    set.check(&section).unwrap();
    assert_eq!(set.len(), model.len() as u64);
    let walked = set.iter(&section).map(|(imei, tag)| (imei.number(), tag.number()));
    assert!(walked.eq(model.iter().map(|(&key, &tag)| (key, tag))));
    let mut tacs = BTreeMap::new();
    model.keys().for_each(|key| *tacs.entry((key / 1_000_000) as u32).or_insert(0) += 1);
    assert!(set.tacs(&section).eq(tacs));
    for &key in model.keys() {
        for near in [key.saturating_sub(1).max(1), key, (key + 1).min(99_999_999_999_999)] {
            let imei = Imei::from_number(near).unwrap();
            set.warm_index(&section, imei);
            set.warm_entries(&section, imei);
            assert_eq!(set.get(&section, imei).map(Tag::number), model.get(&near).copied(), "{near}");
        }
    }
    section
}

/// Numbers that look random, the same each time.
fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 7u64;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// Tag 0, 1 or 2 for 90, 5 and 5 of 100.
fn common_tag(random: &mut impl FnMut(u64) -> u64) -> u8 {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2][random(20) as usize]
}

#[test]
fn an_empty_set_holds_nothing() {
    let section = assert_holds(&Model::new());
    assert!(ImeiSet::open(&section).unwrap().is_empty());
    assert_eq!(look_up(&section, 1), None);
    assert_eq!(ImeiSet::small(&section), Some(0..section.len()));
}

#[test]
fn the_borders_of_tacs_and_blocks_are_found() {
    let mut model = Model::new();
    for tac in [0u64, 1, 35_209_900, 35_209_901, 99_999_999] {
        for snr in [0, 1, 15, 16, 4_095, 4_096, 65_535, 65_536, 983_039, 983_040, 999_998, 999_999] {
            model.insert((tac * 1_000_000 + snr).max(2), (snr % 16) as u8);
        }
    }
    assert_holds(&model);
}

#[test]
fn a_full_tac_takes_next_to_nothing() {
    let model: Model = (0..1_000_000).map(|snr| (TAC + snr, 1)).collect();
    assert!(section(&model).len() < 300);
    let mut holed = model.clone();
    (0..1_000_000).step_by(1000).for_each(|snr| {
        holed.remove(&(TAC + snr));
    });
    assert!(section(&holed).len() < 5_000);
    let section = section(&model);
    for snr in [0, 61_440, 65_535, 65_536, 131_071, 999_999] {
        assert_eq!(look_up(&section, TAC + snr), Some(1), "{snr}");
    }
    let set = ImeiSet::open(&section).unwrap();
    set.check(&section).unwrap();
    assert_eq!(set.iter(&section).count(), 1_000_000);
    assert_eq!(look_up(&section, TAC + 1_000_000), None);
    assert_eq!(look_up(&section, TAC - 1), None);
}

#[test]
fn a_full_tac_of_all_tags_is_held() {
    let mut random = random();
    let model: Model = (0..1_000_000).map(|snr| (TAC + snr, random(16) as u8)).collect();
    let section = section(&model);
    assert!(section.len() < 600_000);
    let set = ImeiSet::open(&section).unwrap();
    set.check(&section).unwrap();
    let walked = set.iter(&section).map(|(imei, tag)| (imei.number(), tag.number()));
    assert!(walked.eq(model.iter().map(|(&key, &tag)| (key, tag))));
    for (&key, &tag) in model.iter().step_by(97) {
        assert_eq!(look_up(&section, key), Some(tag));
    }
}

#[test]
fn a_tac_with_one_device_takes_less_than_a_hundred_bytes() {
    let model: Model = (0..1000).map(|n| (TAC + n * 1_000_007, 3)).collect();
    assert!(assert_holds(&model).len() < 80 * 1000);
}

#[test]
fn at_random_an_imei_takes_little_more_than_its_entropy() {
    let mut random = random();
    let mut model = Model::new();
    for tac in 0..20 {
        let mut left = 5000;
        while left > 0 {
            let tag = common_tag(&mut random);
            left -= u64::from(model.insert(TAC + tac * 1_000_000 + random(1_000_000), tag).is_none());
        }
    }
    let of_places: f64 = (0..5000).map(|n| (f64::from(1_000_000 - n) / f64::from(5000 - n)).log2()).sum();
    let of_tags = -(0.9 * 0.9f64.log2() + 0.1 * 0.05f64.log2());
    let entropy = 20.0 * of_places + 100_000.0 * of_tags;
    let bits = 8.0 * assert_holds(&model).len() as f64;
    assert!(bits < 1.2 * entropy, "{}", bits / entropy);
}

#[test]
fn in_runs_an_imei_takes_a_third_of_a_byte() {
    let mut random = random();
    let mut model = Model::new();
    for tac in 0..20 {
        for _ in 0..50 {
            let start = random(999_900);
            for snr in (start..start + 100).filter(|_| random(10) > 0).collect::<Vec<_>>() {
                model.insert(TAC + tac * 1_000_000 + snr, common_tag(&mut random));
            }
        }
    }
    let bytes = assert_holds(&model).len() as f64 / model.len() as f64;
    assert!(bytes < 0.3, "{bytes}");
}

#[test]
fn what_is_not_in_order_is_refused() {
    let mut writer = Writer::new(Vec::new());
    let imei = |key| Imei::from_number(key).unwrap();
    writer.push(imei(TAC), Tag::from_low_bits(0)).unwrap();
    for key in [TAC, TAC - 1, 1] {
        let error = writer.push(imei(key), Tag::from_low_bits(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(writer.finish().unwrap(), section(&Model::from([(TAC, 0)])));
}

#[test]
fn a_crafted_directory_without_an_empty_slot_ends() {
    let mut section = section(&Model::from([(TAC + 1, 1)]));
    let set = ImeiSet::open(&section).unwrap();
    for slot in section[set.directory_at..set.index_at].chunks_mut(SLOT) {
        slot[..8].fill(7);
    }
    assert_eq!(set.get(&section, Imei::from_number(1).unwrap()), None);
    assert!(ImeiSet::open(&section).is_err());
}

#[test]
fn opening_reads_the_small_parts_alone() {
    let model: Model = (0..100_000).map(|n| (TAC + n * 77, (n % 16) as u8)).collect();
    let mut section = section(&model);
    let small = ImeiSet::small(&section).unwrap();
    assert!(small.end == section.len() && small.len() < section.len() / 10);
    section[..small.start].fill(0xff);
    let set = ImeiSet::open(&section).unwrap();
    assert!(set.check(&section).is_err());
    assert!(set.iter(&section).count() <= 100_000_000);
}

/// SNRs with tags: at random, dense, in runs, or all of a stretch; up to so many tags.
fn entries() -> impl Strategy<Value = BTreeMap<u32, u8>> {
    let at_random = proptest::collection::btree_set(0u32..1_000_000, 1..400).boxed();
    let dense = (0u32..990_000).prop_flat_map(|at| proptest::collection::btree_set(at..at + 3000, 1..900)).boxed();
    let run = |(start, length, missing): (u32, u32, u32)| {
        (start..(start + length).min(1_000_000)).filter(move |snr| snr % missing != 1)
    };
    let runs = proptest::collection::vec((0u32..1_000_000, 1u32..300, 2u32..40), 1..12)
        .prop_map(move |all| all.into_iter().flat_map(run).collect())
        .boxed();
    let full =
        (0u32..999_000, 1u32..2000).prop_map(|(at, length)| (at..(at + length).min(1_000_000)).collect()).boxed();
    let ends = Just([0, 999_999].into()).boxed();
    let snrs = proptest::strategy::Union::new([at_random, dense, runs, full, ends]);
    let tags = prop_oneof![Just(vec![3u8]), Just(vec![0, 0, 0, 0, 0, 0, 0, 1, 2]), Just((0..16).collect::<Vec<u8>>())];
    (snrs, tags, any::<u64>()).prop_map(|(snrs, tags, seed)| {
        let tag =
            |snr: u32| tags[((u64::from(snr) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % tags.len()];
        snrs.into_iter().map(|snr| (snr, tag(snr))).collect()
    })
}

fn models() -> impl Strategy<Value = Model> {
    proptest::collection::btree_map(35_000_000u64..35_000_040, entries(), 0..5).prop_map(|tacs| {
        let all = tacs.into_iter().flat_map(|(tac, entries)| {
            entries.into_iter().map(move |(snr, tag)| (tac * 1_000_000 + u64::from(snr), tag))
        });
        all.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_built_is_found_and_nothing_else(
        model in models(),
        probes in proptest::collection::vec((35_000_000u64..35_000_040, 0u64..1_000_000), 0..100),
    ) {
        let section = assert_holds(&model);
        for (tac, snr) in probes {
            let key = tac * 1_000_000 + snr;
            prop_assert_eq!(look_up(&section, key), model.get(&key).copied());
        }
    }

    #[test]
    fn garbage_in_a_section_never_panics(
        model in models(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let good = section(&model);
        let opened_before = ImeiSet::open(&good).unwrap();
        let mut bad = good.clone();
        let small = ImeiSet::small(&good).unwrap();
        for (at, in_small, byte) in changes {
            // The small parts are what leads elsewhere, and a hundredth of the whole.
            let at = if in_small { small.start + at.index(small.len()) } else { at.index(bad.len()) };
            bad[at] = byte;
        }
        let cut = &good[..cut.index(good.len())];
        prop_assert!(ImeiSet::open(cut).is_err());
        let opened_after = ImeiSet::open(&bad);
        let now = (opened_after.as_ref().ok(), &bad[..]);
        for (set, section) in [(Some(&opened_before), &bad[..]), (Some(&opened_before), cut), now] {
            let Some(set) = set else { continue };
            for &key in model.keys().step_by(7) {
                let imei = Imei::from_number(key).unwrap();
                set.warm_index(section, imei);
                set.warm_entries(section, imei);
                let _ = set.get(section, imei);
            }
            let _ = set.check(section);
            let mut last = None;
            for (imei, _) in set.iter(section) {
                prop_assert!(last < Some(imei));
                last = Some(imei);
            }
            let _ = set.tacs(section).count();
            let _ = ImeiSet::small(section);
        }
    }

    #[test]
    fn a_changed_block_is_another_set_or_refused(model in models(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let good = section(&model);
        let payload = ImeiSet::small(&good).unwrap().start;
        if payload > 0 {
            let mut bad = good.clone();
            bad[at.index(payload)] ^= 1u8 << bit;
            let set = ImeiSet::open(&bad).unwrap();
            if set.check(&bad).is_ok() {
                prop_assert_eq!(set.iter(&bad).count(), model.len());
            }
        }
    }
}
