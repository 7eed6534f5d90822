//! The rules, in order: each by itself, each against those behind it, and where exactly each begins and ends.

#![allow(clippy::unwrap_used, reason = "clippy's exemption for tests does not reach the functions that tests share")]

mod support;

use std::sync::Arc;

use eir_core::UnixTime;
use eir_core::grey::{GreyTable, NEVER, Timer};
use eir_core::imei::{Imei, Imsi, Malformed};
use eir_core::journal::OverlayChange;
use eir_core::lists::{BuildOptions, FileKind, List, Overlay, Snapshot};
use eir_core::policy::{Policy, Prefix, Status};
use eir_core::verdict::{Facts, Request, Rule, Verdict, verdict, verdict_observed};
use proptest::prelude::*;

use support::{imei, imsi};

const DEVICE: &str = "35209900176148";
const TAC: &str = "35209900";
const HOME: &str = "001010000000001";
const FOREIGN: &str = "999020000000001";
const NOW: UnixTime = 1_750_000_000;
const DAY: UnixTime = 86_400;
const RUNNING: Timer = Timer { start: NOW - DAY, deadline: NOW + 29 * DAY };
const RUN_OUT: Timer = Timer { start: NOW - 31 * DAY, deadline: NOW - DAY };

/// One question with everything that the answer is taken from. As it begins, nothing is known of the device.
#[derive(Clone)]
struct Scene {
    imei: Result<Imei, Malformed>,
    imsi: Option<Imsi>,
    policy: Policy,
    has_lists: bool,
    files: Vec<(FileKind, String)>,
    synced_at: UnixTime,
    tac_as_of: UnixTime,
    timer: Option<Timer>,
    overlay: Vec<(OverlayChange, &'static str)>,
    now: UnixTime,
}

impl Default for Scene {
    fn default() -> Self {
        let policy = Policy {
            home_mccs: vec![1],
            hard_reasons: vec!["stolen".into(), "forged".into()],
            test_tacs: vec![Prefix::of_tac("0010").unwrap()],
            ..Policy::default()
        };
        Self {
            imei: Ok(imei(DEVICE)),
            imsi: Some(imsi(HOME)),
            policy,
            has_lists: true,
            // A list of everything beside the device, so that each look-up has something to pass over.
            files: vec![
                (FileKind::Devices, "35209900176147,black,stolen\n35209900176149,white,\n".into()),
                (FileKind::Ranges, "35209899,35209899,black,\n35209901,35209901,white,\n".into()),
                (FileKind::AllocatedTacs, "35209901\n35209900\n".into()),
                (FileKind::ExemptTacs, "35209899\n35209901\n".into()),
                (FileKind::ExemptImsis, "0010177,0010178\n".into()),
                (FileKind::Pairs, "35209900176147,001010000000001\n35209900176148,001010000000002\n".into()),
            ],
            synced_at: NOW - 60,
            tac_as_of: NOW - DAY,
            timer: None,
            overlay: Vec::new(),
            now: NOW,
        }
    }
}

impl Scene {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut scene = Self::default();
        change(&mut scene);
        scene
    }

    fn list(&mut self, kind: FileKind, row: &str) {
        self.files.push((kind, row.to_owned()));
    }

    /// Brings about what a rule asks for, beside what there is.
    fn make(&mut self, rule: Rule) {
        match rule {
            Rule::Override => self.policy.all_white = true,
            Rule::NoList => self.has_lists = false,
            Rule::Paired => {
                let subscriber = self.imsi.unwrap().padded();
                self.list(FileKind::Pairs, &format!("{DEVICE},{subscriber:015}"));
            }
            Rule::BlackHard => self.list(FileKind::Devices, "35209900176148,black,stolen"),
            Rule::ExemptRoamer => {
                self.imsi = Some(imsi(FOREIGN));
                // Whatever else is there for the subscriber is there for this one too.
                self.files.iter_mut().for_each(|(_, rows)| *rows = rows.replace(HOME, FOREIGN));
            }
            Rule::ExemptSubscriber => {
                self.list(FileKind::ExemptImsis, &format!("{HOME},{HOME}\n{FOREIGN},{FOREIGN}"));
            }
            Rule::Malformed => self.imei = Err(Malformed),
            Rule::TestImei => self.policy.test_tacs.push(Prefix::of_tac("3520").unwrap()),
            Rule::Black => self.list(FileKind::Devices, "35209900176148,black,not-verified"),
            Rule::White => self.list(FileKind::Devices, "35209900176148,white,"),
            Rule::ExemptDevice => self.list(FileKind::ExemptTacs, TAC),
            Rule::BlackRange => self.list(FileKind::Ranges, "35209900,35209900,black,"),
            Rule::WhiteRange => self.list(FileKind::Ranges, "35209900,35209900,white,"),
            Rule::Grey => self.timer = Some(RUNNING),
            Rule::Expired => self.timer = Some(RUN_OUT),
            Rule::Unallocated => {
                self.files.retain(|(kind, _)| *kind != FileKind::AllocatedTacs);
                self.list(FileKind::AllocatedTacs, "35209901");
            }
            Rule::FirstAttach => {}
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let files: Vec<_> = self.files.iter().map(|(kind, rows)| (*kind, rows.as_str())).collect();
        let options = BuildOptions { created_at: self.synced_at, tac_as_of: self.tac_as_of, ..BuildOptions::default() };
        support::snapshot(options, &files)
    }

    fn ask<T>(&self, ask: impl FnOnce(&Request, &Facts<'_>) -> T) -> T {
        let (grey, overlay) = (GreyTable::default(), Overlay::default());
        if let Some(timer) = self.timer {
            grey.start(imei(DEVICE), timer, || Some(7));
        }
        for (change, reason) in &self.overlay {
            overlay.set(imei(DEVICE), *change, reason);
        }
        let snapshot = self.has_lists.then(|| self.snapshot());
        let facts = Facts {
            snapshot: snapshot.as_deref(),
            deltas: None,
            overlay: &overlay,
            grey: &grey,
            policy: &self.policy,
            now: self.now,
        };
        ask(&Request { imei: self.imei, imsi: self.imsi }, &facts)
    }

    fn verdict(&self) -> Verdict {
        self.ask(verdict)
    }

    fn decided(&self) -> (Rule, Status) {
        let Verdict { rule, status, .. } = self.verdict();
        (rule, status)
    }

    fn rule(&self) -> Rule {
        self.verdict().rule
    }

    fn asked(&self) -> Vec<Rule> {
        self.ask(|request, facts| {
            let mut asked = Vec::new();
            verdict_observed(request, facts, |rule| asked.push(rule));
            asked
        })
    }
}

/// Each rule with the answer that it gives where nothing is configured otherwise.
const DEFAULTS: [(Rule, Status); 17] = [
    (Rule::Override, Status::White),
    (Rule::NoList, Status::White),
    (Rule::Paired, Status::White),
    (Rule::BlackHard, Status::Black),
    (Rule::ExemptRoamer, Status::White),
    (Rule::ExemptSubscriber, Status::White),
    (Rule::Malformed, Status::Black),
    (Rule::TestImei, Status::Black),
    (Rule::Black, Status::Black),
    (Rule::White, Status::White),
    (Rule::ExemptDevice, Status::White),
    (Rule::BlackRange, Status::Black),
    (Rule::WhiteRange, Status::White),
    (Rule::Grey, Status::Grey),
    (Rule::Expired, Status::Black),
    (Rule::Unallocated, Status::Black),
    (Rule::FirstAttach, Status::Grey),
];

#[test]
fn the_rules_are_numbered_and_named_in_the_order_in_which_they_are_asked() {
    assert_eq!(Rule::ALL, DEFAULTS.map(|(rule, _)| rule));
    for (number, rule) in Rule::ALL.into_iter().enumerate() {
        assert_eq!(rule as usize, number);
        assert!(Rule::ALL.iter().all(|other| *other == rule || other.name() != rule.name()), "{}", rule.name());
    }
}

#[test]
fn each_rule_decides_where_it_alone_matches() {
    for (rule, status) in DEFAULTS {
        assert_eq!(Scene::with(|scene| scene.make(rule)).decided(), (rule, status));
    }
}

#[test]
fn the_rules_are_asked_in_order_up_to_the_one_that_decides() {
    for (number, (rule, _)) in DEFAULTS.into_iter().enumerate() {
        assert_eq!(Scene::with(|scene| scene.make(rule)).asked(), Rule::ALL[..=number]);
    }
}

/// Whether what two rules ask for can be there at once.
fn compatible(earlier: Rule, later: Rule) -> bool {
    let one_entry_a_device = |rule| matches!(rule, Rule::BlackHard | Rule::Black | Rule::White);
    let about_the_device = |rule| {
        !matches!(rule, Rule::Override | Rule::NoList | Rule::ExemptRoamer | Rule::ExemptSubscriber | Rule::Malformed)
    };
    let one_of_each = [
        (one_entry_a_device(earlier), one_entry_a_device(later)),
        (earlier == Rule::Malformed, about_the_device(later) && later != Rule::FirstAttach),
        (about_the_device(earlier), later == Rule::Malformed),
        // Of ranges the narrowest counts, before any rule is asked; a timer has run out or not.
        (earlier == Rule::BlackRange, later == Rule::WhiteRange),
        (earlier == Rule::Grey, later == Rule::Expired),
    ];
    !one_of_each.contains(&(true, true))
}

#[test]
fn of_two_rules_that_match_the_earlier_decides() {
    let mut tried = 0;
    for (at, (earlier, status)) in DEFAULTS.into_iter().enumerate() {
        for (later, _) in &DEFAULTS[at + 1..] {
            if !compatible(earlier, *later) {
                continue;
            }
            for order in [[earlier, *later], [*later, earlier]] {
                let scene = Scene::with(|scene| order.into_iter().for_each(|rule| scene.make(rule)));
                assert_eq!(scene.decided(), (earlier, status), "{} before {}", earlier.name(), later.name());
            }
            tried += 1;
        }
    }
    // 17 * 16 / 2 pairs, less 3 of entries, 9 + 2 with what is no IMEI, the ranges and the timers.
    assert_eq!(tried, 136 - 3 - 9 - 2 - 2);
}

#[test]
fn what_is_just_beside_a_rule_does_not_match_it() {
    type Change = fn(&mut Scene);
    let misses: [(&str, Change); 16] = [
        ("another subscriber's pair", |scene| scene.list(FileKind::Pairs, "35209900176148,001010000000003")),
        ("another device's pair", |scene| scene.list(FileKind::Pairs, "35209900176149,001010000000001")),
        ("a prefix of the paired IMSI", |scene| scene.list(FileKind::Pairs, "35209900176148,00101000000000")),
        ("the neighbours on the black list", |scene| {
            scene.list(FileKind::Devices, "35209900176146,black,stolen\n35209900176150,black,");
        }),
        ("an exempt range that ends before the IMSI", |scene| {
            scene.list(FileKind::ExemptImsis, "001010000000000,001010000000000");
        }),
        ("an exempt range that begins after the IMSI", |scene| {
            scene.list(FileKind::ExemptImsis, "001010000000002,00101");
        }),
        ("a test TAC that is longer", |scene| scene.policy.test_tacs.push(Prefix::of_tac("35209901").unwrap())),
        ("a test TAC's digits in another place", |scene| scene.policy.test_tacs.push(Prefix::of_tac("5209").unwrap())),
        ("a range that ends before the device", |scene| {
            scene.list(FileKind::Ranges, "35209900000000,35209900176147,black,");
        }),
        ("a range that begins after the device", |scene| {
            scene.list(FileKind::Ranges, "35209900176149,35209900999999,white,");
        }),
        ("a list of allocated TACs that is too old", |scene| {
            scene.make(Rule::Unallocated);
            scene.tac_as_of = NOW - scene.policy.tac_max_age;
        }),
        ("no list of allocated TACs", |scene| scene.files.retain(|(kind, _)| *kind != FileKind::AllocatedTacs)),
        ("a roamer's country without the home country's being set", |scene| {
            scene.make(Rule::ExemptRoamer);
            scene.policy.home_mccs.clear();
        }),
        ("a home country of several codes", |scene| {
            scene.make(Rule::ExemptRoamer);
            scene.policy.home_mccs = vec![1, 999];
        }),
        ("an overlay entry that was withdrawn", |scene| {
            scene.overlay = vec![(OverlayChange::Listed(List::Black), "court"), (OverlayChange::Withdrawn, "")];
        }),
        ("an overlay entry of no list", |scene| scene.overlay = vec![(OverlayChange::Unlisted, "mistake")]),
    ];
    for (what, change) in misses {
        assert_eq!(Scene::with(change).rule(), Rule::FirstAttach, "{what}");
    }
}

#[test]
fn without_an_imsi_no_rule_about_the_subscriber_matches() {
    let scene = Scene::with(|scene| {
        for rule in [Rule::Paired, Rule::ExemptRoamer, Rule::ExemptSubscriber] {
            scene.make(rule);
        }
        scene.imsi = None;
    });
    assert_eq!(scene.rule(), Rule::FirstAttach);
    let black = Scene::with(|scene| {
        scene.make(Rule::Black);
        scene.imsi = None;
    });
    assert_eq!(black.rule(), Rule::Black);
}

#[test]
fn without_lists_the_operators_choice_is_answered_whatever_else_is_known() {
    for status in Status::ALL {
        let scene = Scene::with(|scene| {
            scene.has_lists = false;
            scene.policy.no_list = status;
            scene.timer = Some(RUN_OUT);
            scene.overlay = vec![(OverlayChange::Listed(List::Black), "stolen")];
        });
        assert_eq!(scene.decided(), (Rule::NoList, status));
    }
}

#[test]
fn the_override_answers_white_without_lists_and_for_what_is_no_imei() {
    let scene = Scene::with(|scene| {
        for rule in [Rule::Override, Rule::NoList, Rule::Malformed] {
            scene.make(rule);
        }
        scene.policy.no_list = Status::Black;
    });
    assert_eq!(scene.decided(), (Rule::Override, Status::White));
}

#[test]
fn what_is_no_imei_is_answered_as_configured() {
    for status in [Status::Black, Status::Unknown] {
        let scene = Scene::with(|scene| {
            scene.make(Rule::Malformed);
            scene.policy.malformed = status;
        });
        assert_eq!(scene.decided(), (Rule::Malformed, status));
    }
    let roamer = Scene::with(|scene| {
        scene.make(Rule::Malformed);
        scene.make(Rule::ExemptRoamer);
    });
    assert_eq!(roamer.decided(), (Rule::ExemptRoamer, Status::White));
}

#[test]
fn a_black_reason_is_hard_only_if_the_policy_names_it_exactly() {
    for (reason, rule) in [
        ("stolen", Rule::BlackHard),
        ("forged", Rule::BlackHard),
        ("stole", Rule::ExemptRoamer),
        ("stolen-2", Rule::ExemptRoamer),
        ("", Rule::ExemptRoamer),
    ] {
        let scene = Scene::with(|scene| {
            scene.list(FileKind::Devices, &format!("{DEVICE},black,{reason}"));
            scene.make(Rule::ExemptRoamer);
        });
        assert_eq!(scene.rule(), rule, "{reason}");
    }
    let white = Scene::with(|scene| scene.list(FileKind::Devices, "35209900176148,white,stolen"));
    assert_eq!(white.rule(), Rule::White, "a hard reason is one on the black list");
}

#[test]
fn roamers_are_told_by_country_but_for_the_networks_named() {
    for (subscriber, rule) in [
        ("001010000000001", Rule::FirstAttach),
        ("001990000000001", Rule::ExemptRoamer),
        ("001980000000001", Rule::FirstAttach),
        ("999010000000001", Rule::FirstAttach),
        ("999020000000001", Rule::ExemptRoamer),
        ("901700000000001", Rule::ExemptRoamer),
    ] {
        let scene = Scene::with(|scene| {
            scene.imsi = Some(imsi(subscriber));
            scene.policy.roamer_plmns = vec![Prefix::of_imsi("00199").unwrap()];
            scene.policy.non_roamer_plmns = vec![Prefix::of_imsi("99901").unwrap()];
        });
        assert_eq!(scene.rule(), rule, "{subscriber}");
    }
}

#[test]
fn the_overlay_hides_the_snapshot_until_it_is_withdrawn() {
    use OverlayChange::{Listed, Unlisted, Withdrawn};
    type Case = (&'static str, &'static [(OverlayChange, &'static str)], Rule);
    let cases: [Case; 9] = [
        ("black,not-verified", &[(Listed(List::White), "verified")], Rule::White),
        ("black,stolen", &[(Listed(List::White), "court")], Rule::White),
        ("white,", &[(Listed(List::Black), "stolen")], Rule::BlackHard),
        ("white,", &[(Listed(List::Black), "unpaid")], Rule::Black),
        ("white,", &[(Listed(List::Grey), "")], Rule::Grey),
        ("black,stolen", &[(Unlisted, "mistake")], Rule::FirstAttach),
        ("white,", &[(Unlisted, "mistake")], Rule::FirstAttach),
        ("black,stolen", &[(Listed(List::White), "court"), (Withdrawn, "")], Rule::BlackHard),
        ("white,", &[(Listed(List::Black), "a"), (Unlisted, "b"), (Listed(List::White), "c")], Rule::White),
    ];
    for (row, changes, rule) in cases {
        let scene = Scene::with(|scene| {
            scene.list(FileKind::Devices, &format!("{DEVICE},{row}"));
            scene.overlay = changes.to_vec();
        });
        assert_eq!(scene.rule(), rule, "{row} under {changes:?}");
    }
}

#[test]
fn the_listing_says_whether_the_overlay_speaks() {
    let listing = |scene: &Scene| {
        scene.ask(|_, facts| {
            facts.listing(imei(DEVICE)).map(|listing| (listing.list, listing.reason.into_owned(), listing.overlay))
        })
    };
    let mut scene = Scene::with(|scene| scene.make(Rule::Black));
    assert_eq!(listing(&scene), Some((List::Black, "not-verified".into(), false)));
    scene.overlay = vec![(OverlayChange::Listed(List::White), "court")];
    assert_eq!(listing(&scene), Some((List::White, "court".into(), true)));
    scene.overlay = vec![(OverlayChange::Unlisted, "")];
    assert_eq!(listing(&scene), None);
}

#[test]
fn of_the_ranges_over_a_device_the_narrowest_decides() {
    for (ranges, rule) in [
        ("35209900,35209900,black,\n35209900176148,35209900176148,white,", Rule::WhiteRange),
        ("35209900,35209900,white,\n35209900176148,35209900176148,black,", Rule::BlackRange),
        ("35209900,35209900,white,\n35209900,35209900,black,", Rule::BlackRange),
        ("35209900176148,35209900176149,white,\n35209900176147,35209900176148,black,", Rule::BlackRange),
        ("35209900,35209900,black,\n35209900176149,35209900999999,white,", Rule::BlackRange),
    ] {
        assert_eq!(Scene::with(|scene| scene.list(FileKind::Ranges, ranges)).rule(), rule, "{ranges}");
    }
}

#[test]
fn a_national_grey_entry_is_grey_without_a_deadline_until_a_timer_of_our_own_runs_out() {
    let national = || Scene::with(|scene| scene.list(FileKind::Devices, "35209900176148,grey,"));
    let scene = national();
    assert_eq!(scene.verdict(), Verdict { status: Status::Grey, rule: Rule::Grey, timer: None });
    for (timer, rule, status) in [(RUNNING, Rule::Grey, Status::Grey), (RUN_OUT, Rule::Expired, Status::Black)] {
        let mut scene = national();
        scene.timer = Some(timer);
        assert_eq!(scene.verdict(), Verdict { status, rule, timer: Some((timer, 7)) });
    }
}

/// The first second after 1 May 2026, UTC.
const NATIONAL: UnixTime = 1_777_680_000;

/// The device on the national grey list until 1 May 2026, asked about at some second with fresh lists.
fn until_first_of_may(now: UnixTime) -> Scene {
    Scene::with(|scene| {
        scene.list(FileKind::Devices, "35209900176148,grey,,20260501");
        (scene.now, scene.synced_at) = (now, now);
    })
}

#[test]
fn a_national_deadline_ends_access_in_its_second() {
    for (now, status, rule) in [
        (NATIONAL - 86_400, Status::Grey, Rule::Grey),
        (NATIONAL - 1, Status::Grey, Rule::Grey),
        (NATIONAL, Status::Black, Rule::Expired),
        (NATIONAL + 86_400, Status::Black, Rule::Expired),
    ] {
        assert_eq!(until_first_of_may(now).verdict(), Verdict { status, rule, timer: None }, "{now}");
        let scene = until_first_of_may(now);
        let deadline = scene.ask(|_, facts| facts.listing(imei(DEVICE)).unwrap().deadline);
        assert_eq!(deadline, Some(NATIONAL));
        assert_eq!(scene.asked(), &Rule::ALL[..=rule as usize]);
    }
}

#[test]
fn stale_lists_do_not_end_access_by_a_national_deadline() {
    let stale_after = Policy::default().stale_after;
    for (synced_at, rule) in [(NATIONAL - stale_after - 1, Rule::Grey), (NATIONAL - stale_after, Rule::Expired)] {
        let mut scene = until_first_of_may(NATIONAL + 365 * DAY);
        scene.synced_at = synced_at;
        assert_eq!(scene.rule(), rule);
    }
}

#[test]
fn a_national_deadline_counts_before_that_of_a_timer_of_our_own() {
    let early = Timer { start: NATIONAL - 60 * DAY, deadline: NATIONAL - 30 * DAY };
    let late = Timer { start: NATIONAL - 10 * DAY, deadline: NATIONAL + 20 * DAY };
    for timer in [early, late] {
        for (now, status, rule) in [(NATIONAL - 1, Status::Grey, Rule::Grey), (NATIONAL, Status::Black, Rule::Expired)]
        {
            let mut scene = until_first_of_may(now);
            scene.timer = Some(timer);
            assert_eq!(scene.verdict(), Verdict { status, rule, timer: Some((timer, 7)) });
        }
    }
    // Somebody has frozen or lifted it.
    let mut scene = until_first_of_may(NATIONAL + DAY);
    scene.timer = Some(Timer { start: NATIONAL - 60 * DAY, deadline: NEVER });
    assert_eq!(scene.rule(), Rule::Grey);
}

#[test]
fn an_operators_entry_counts_before_a_national_deadline() {
    use OverlayChange::{Listed, Unlisted, Withdrawn};
    for (change, rule) in [
        (Listed(List::Grey), Rule::Grey),
        (Listed(List::White), Rule::White),
        (Listed(List::Black), Rule::Black),
        (Unlisted, Rule::FirstAttach),
        (Withdrawn, Rule::Expired),
    ] {
        let mut scene = until_first_of_may(NATIONAL);
        scene.overlay = vec![(change, "agent")];
        assert_eq!(scene.rule(), rule, "{change:?}");
    }
    // Hidden with the entry; the timer of our own counts again.
    let mut scene = until_first_of_may(NATIONAL);
    scene.overlay = vec![(Unlisted, "agent")];
    scene.timer = Some(Timer { start: NATIONAL - DAY, deadline: NATIONAL + DAY });
    assert_eq!(scene.rule(), Rule::Grey);
}

#[test]
fn an_operators_grey_lifts_a_timer_that_has_run_out() {
    let mut scene = Scene::with(|scene| scene.timer = Some(RUN_OUT));
    assert_eq!(scene.rule(), Rule::Expired);
    scene.overlay = vec![(OverlayChange::Listed(List::Grey), "agent")];
    assert_eq!((scene.rule(), scene.verdict().status), (Rule::Grey, Status::Grey));
}

#[test]
fn a_verdict_by_a_list_says_nothing_of_a_timer_that_runs_beside_it() {
    for rule in [Rule::White, Rule::Black, Rule::ExemptDevice, Rule::WhiteRange] {
        let scene = Scene::with(|scene| {
            scene.make(Rule::Grey);
            scene.make(rule);
        });
        assert_eq!((scene.rule(), scene.verdict().timer), (rule, None));
    }
}

#[test]
fn verification_brings_a_device_back_at_once_before_and_after_its_deadline() {
    for timer in [RUNNING, RUN_OUT] {
        let scene = Scene::with(|scene| {
            scene.timer = Some(timer);
            scene.make(Rule::White);
        });
        assert_eq!(scene.decided(), (Rule::White, Status::White));
    }
}

#[test]
fn a_timer_runs_out_in_the_second_of_its_deadline() {
    let fresh = |now| (now, now);
    let stale_after = Policy::default().stale_after;
    let deadline = NOW;
    for (what, (now, synced_at), rule) in [
        ("a second before", fresh(deadline - 1), Rule::Grey),
        ("in that second", fresh(deadline), Rule::Expired),
        ("a second after", fresh(deadline + 1), Rule::Expired),
        ("lists that go stale a second too early", (deadline + 1, deadline - 1 - stale_after), Rule::Grey),
        ("lists that go stale in that second", (deadline + 1, deadline - stale_after), Rule::Expired),
        ("stale for long", (deadline + 365 * DAY, deadline - 1 - stale_after), Rule::Grey),
        ("lists from the future", (deadline - 1, deadline + DAY), Rule::Grey),
        ("lists from the end of time", (deadline, UnixTime::MAX), Rule::Expired),
    ] {
        let scene = Scene::with(|scene| {
            scene.timer = Some(Timer { start: 1, deadline });
            (scene.now, scene.synced_at) = (now, synced_at);
        });
        assert_eq!(scene.rule(), rule, "{what}");
    }
}

#[test]
fn stale_lists_stop_nothing_but_the_flip() {
    let stale = |rule| {
        Scene::with(|scene| {
            scene.make(rule);
            scene.synced_at = NOW - 365 * DAY;
        })
    };
    for (rule, status) in DEFAULTS.into_iter().filter(|(rule, _)| *rule != Rule::Expired) {
        assert_eq!(stale(rule).decided(), (rule, status));
    }
    assert_eq!(stale(Rule::Expired).decided(), (Rule::Grey, Status::Grey));
}

#[test]
fn an_allocated_tac_list_speaks_while_it_is_younger_than_its_greatest_age() {
    let max_age = Policy::default().tac_max_age;
    for (as_of, rule) in [
        (NOW - max_age + 1, Rule::Unallocated),
        (NOW - max_age, Rule::FirstAttach),
        (NOW - max_age - 1, Rule::FirstAttach),
        (NOW, Rule::Unallocated),
        (NOW + DAY, Rule::Unallocated),
    ] {
        let scene = Scene::with(|scene| {
            scene.make(Rule::Unallocated);
            scene.tac_as_of = as_of;
        });
        assert_eq!(scene.rule(), rule, "{as_of}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_timer_has_run_out_if_and_only_if_its_deadline_is_not_after_now_and_the_lists_staleness(
        deadline in any::<u32>(),
        now_off in -2i64..=2,
        stale_off in -2i64..=2,
        stale_after in prop_oneof![0u32..1000, any::<u32>()],
    ) {
        let clamp = |time: i64| time.clamp(0, i64::from(u32::MAX)) as u32;
        let now = clamp(i64::from(deadline) + now_off);
        let synced_at = clamp(i64::from(deadline) + stale_off - i64::from(stale_after));
        let scene = Scene::with(|scene| {
            scene.timer = Some(Timer { start: 0, deadline });
            scene.policy.stale_after = stale_after;
            scene.tac_as_of = 1;
            (scene.now, scene.synced_at) = (now, synced_at);
        });
        let horizon = u64::from(now).min(u64::from(synced_at) + u64::from(stale_after));
        let expected = if u64::from(deadline) <= horizon { Rule::Expired } else { Rule::Grey };
        prop_assert_eq!(scene.rule(), expected);
    }

    #[test]
    fn what_was_asked_last_is_what_decided(
        rules in prop::sample::subsequence(Rule::ALL.to_vec(), 0..6),
        has_imsi in any::<bool>(),
    ) {
        let scene = Scene::with(|scene| {
            let mut listed = false;
            for rule in rules {
                if !(matches!(rule, Rule::BlackHard | Rule::Black | Rule::White) && std::mem::replace(&mut listed, true)) {
                    scene.make(rule);
                }
            }
            scene.imsi = scene.imsi.filter(|_| has_imsi);
        });
        let decided = scene.rule();
        prop_assert_eq!(scene.asked(), &Rule::ALL[..=decided as usize]);
    }
}
