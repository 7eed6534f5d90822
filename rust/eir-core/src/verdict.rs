//! The verdict: one pure function decides about every device, for every protocol and for people who ask.
//!
//! The rules stand in the order of [`Rule`]; the first that matches decides. Nothing starts here: that a device is seen
//! for the first time is a result, `first-attach`, and what follows from it is done by the protocol's door. The command
//! line's explanation comes from this same function, through its observer.

use crate::UnixTime;
use crate::grey::{GreyTable, NEVER, Timer};
use crate::imei::{Imei, Imsi, Malformed};
use crate::lists::{Deltas, List, Overlay, Snapshot};
use crate::policy::{Policy, Status};

/// The rules, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// The operator has everything answered white.
    Override = 0,
    /// There is no valid list.
    NoList = 1,
    /// This device with this subscriber is on the pair list: the lawful holder of a cloned or locked IMEI.
    Paired = 2,
    /// On the black list for a reason that no exemption lifts.
    BlackHard = 3,
    /// The subscriber is a visitor from another country.
    ExemptRoamer = 4,
    /// The subscriber's IMSI is in an exempt range.
    ExemptSubscriber = 5,
    /// What was sent is no IMEI.
    Malformed = 6,
    /// A test device.
    TestImei = 7,
    /// On the black list.
    Black = 8,
    /// On the white list.
    White = 9,
    /// The TAC is on the exempt (M2M) list.
    ExemptDevice = 10,
    /// In a range; the narrowest is black.
    BlackRange = 11,
    /// In a range; the narrowest is white.
    WhiteRange = 12,
    /// Its timer is running, or the national database runs one.
    Grey = 13,
    /// Its timer, or the national database's, has run out.
    Expired = 14,
    /// A fresh allocated-TAC list does not hold its TAC.
    Unallocated = 15,
    /// Never seen: temporary access begins.
    FirstAttach = 16,
}

impl Rule {
    /// All of them, in order.
    pub const ALL: [Self; 17] = [
        Self::Override,
        Self::NoList,
        Self::Paired,
        Self::BlackHard,
        Self::ExemptRoamer,
        Self::ExemptSubscriber,
        Self::Malformed,
        Self::TestImei,
        Self::Black,
        Self::White,
        Self::ExemptDevice,
        Self::BlackRange,
        Self::WhiteRange,
        Self::Grey,
        Self::Expired,
        Self::Unallocated,
        Self::FirstAttach,
    ];

    /// The name it is counted and shown under.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::NoList => "no-list",
            Self::Paired => "paired",
            Self::BlackHard => "black-hard",
            Self::ExemptRoamer => "exempt-roamer",
            Self::ExemptSubscriber => "exempt-subscriber",
            Self::Malformed => "malformed",
            Self::TestImei => "test-imei",
            Self::Black => "black",
            Self::White => "white",
            Self::ExemptDevice => "exempt-device",
            Self::BlackRange => "black-range",
            Self::WhiteRange => "white-range",
            Self::Grey => "grey",
            Self::Expired => "expired",
            Self::Unallocated => "unallocated",
            Self::FirstAttach => "first-attach",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The device, as sent.
    pub imei: Result<Imei, Malformed>,
    /// The subscriber, where the request names one.
    pub imsi: Option<Imsi>,
}

/// What the answer is taken from.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The lists, if there are valid ones.
    pub snapshot: Option<&'a Snapshot>,
    /// What has changed since that snapshot, if anything.
    pub deltas: Option<&'a Deltas>,
    /// Single changes above both.
    pub overlay: &'a Overlay,
    /// The timers.
    pub grey: &'a GreyTable,
    /// The settings.
    pub policy: &'a Policy,
    /// Now.
    pub now: UnixTime,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What to answer.
    pub status: Status,
    /// The rule that decided.
    pub rule: Rule,
    /// The device's own timer and the journal sequence number of its start, where rule `grey` or `expired` decided. It
    /// may say another deadline than the national database, which then counts.
    pub timer: Option<(Timer, u64)>,
}

/// What the lists say of one device by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<'a> {
    /// The list.
    pub list: List,
    /// Why; empty where the list does not say.
    pub reason: std::borrow::Cow<'a, str>,
    /// Whether the operator's overlay says it, not the national lists.
    pub overlay: bool,
    /// Until when the national database gives a grey device access: the first second without.
    pub deadline: Option<UnixTime>,
}

impl<'a> Facts<'a> {
    /// The device's own entry: the overlay's, else the deltas', else the snapshot's.
    #[inline]
    #[must_use]
    pub fn listing(&self, imei: Imei) -> Option<Listing<'a>> {
        if !self.overlay.is_empty()
            && let Some(entry) = self.overlay.get(imei)
        {
            let listing = |list| Listing { list, reason: entry.reason.into(), overlay: true, deadline: None };
            return entry.list.map(listing);
        }
        self.national(imei)
    }

    /// What the national lists say of a device by itself: the deltas, else the snapshot.
    #[inline]
    #[must_use]
    pub fn national(&self, imei: Imei) -> Option<Listing<'a>> {
        let snapshot = self.snapshot?;
        if let Some(said) = self.deltas.and_then(|deltas| deltas.get(imei)) {
            let said = said?;
            let deadline = if said.list == List::Grey { said.until } else { None };
            return Some(Listing { list: said.list, reason: (&*said.reason).into(), overlay: false, deadline });
        }
        let info = snapshot.tag_info(snapshot.imei(imei)?);
        let deadline = if info.list == List::Grey { snapshot.deadline(imei) } else { None };
        Some(Listing { list: info.list, reason: info.reason.as_str().into(), overlay: false, deadline })
    }

    /// The second up to which timers expire: now, or where the lists went stale.
    #[must_use]
    pub fn expiry_horizon(&self) -> UnixTime {
        let snapshot = self.snapshot.map_or(0, |snapshot| snapshot.header().created_at);
        let synced = self.deltas.map_or(snapshot, Deltas::as_of);
        self.now.min(synced.saturating_add(self.policy.stale_after))
    }
}

/// Decides.
#[inline]
#[must_use]
pub fn verdict(request: &Request, facts: &Facts<'_>) -> Verdict {
    verdict_observed(request, facts, |_| ())
}

/// Decides, and tells `observe` each rule as it is asked; the last one told is the one that decided.
#[inline]
pub fn verdict_observed(request: &Request, facts: &Facts<'_>, mut observe: impl FnMut(Rule)) -> Verdict {
    let policy = facts.policy;
    let mut matches = |rule: Rule, condition: bool| {
        observe(rule);
        condition
    };
    let by = |rule: Rule, status: Status| Verdict { status, rule, timer: None };

    if matches(Rule::Override, policy.all_white) {
        return by(Rule::Override, Status::White);
    }
    let snapshot = match facts.snapshot {
        Some(snapshot) => snapshot,
        None => {
            matches(Rule::NoList, true);
            return by(Rule::NoList, policy.no_list);
        }
    };
    matches(Rule::NoList, false);
    let device = request.imei.ok();
    let paired = |(imei, imsi)| {
        let changed = facts.deltas.and_then(|deltas| deltas.paired(imei, imsi));
        changed.unwrap_or_else(|| snapshot.has_pairs() && snapshot.paired(imei, imsi))
    };
    if matches(Rule::Paired, device.zip(request.imsi).is_some_and(paired)) {
        return by(Rule::Paired, Status::White);
    }
    let listing = device.and_then(|imei| facts.listing(imei));
    let list = listing.as_ref().map(|listing| listing.list);
    let hard = |listing: &Listing<'_>| listing.list == List::Black && policy.is_hard(&listing.reason);
    if matches(Rule::BlackHard, listing.as_ref().is_some_and(hard)) {
        return by(Rule::BlackHard, Status::Black);
    }
    if matches(Rule::ExemptRoamer, request.imsi.is_some_and(|imsi| policy.roams(imsi))) {
        return by(Rule::ExemptRoamer, Status::White);
    }
    if matches(Rule::ExemptSubscriber, request.imsi.is_some_and(|imsi| snapshot.exempt_imsi(imsi))) {
        return by(Rule::ExemptSubscriber, Status::White);
    }
    let Some(imei) = device else {
        matches(Rule::Malformed, true);
        return by(Rule::Malformed, policy.malformed);
    };
    matches(Rule::Malformed, false);
    if matches(Rule::TestImei, policy.is_test_tac(imei.tac())) {
        return by(Rule::TestImei, Status::Black);
    }
    if matches(Rule::Black, list == Some(List::Black)) {
        return by(Rule::Black, Status::Black);
    }
    if matches(Rule::White, list == Some(List::White)) {
        return by(Rule::White, Status::White);
    }
    if matches(Rule::ExemptDevice, snapshot.exempt_tac(imei.tac())) {
        return by(Rule::ExemptDevice, Status::White);
    }
    let range = snapshot.range(imei).map(|tag| snapshot.tag_info(tag).list);
    if matches(Rule::BlackRange, range == Some(List::Black)) {
        return by(Rule::BlackRange, Status::Black);
    }
    if matches(Rule::WhiteRange, range == Some(List::White)) {
        return by(Rule::WhiteRange, Status::White);
    }
    // The national database says when, or a timer of our own does: an entry without a deadline says only that the
    // national database times it. A timer that does not run out was frozen or lifted by somebody who may do so.
    let timer = facts.grey.timer(imei);
    let own = timer.map(|(timer, _)| timer.deadline);
    let national = listing.as_ref().and_then(|listing| listing.deadline);
    let deadline = own.filter(|&deadline| deadline == NEVER).or(national).or(own);
    let run_out = deadline.is_some_and(|deadline| deadline <= facts.expiry_horizon());
    // An operator's grey is said of this device, by somebody who may know that its time has run out.
    let by_operator = listing.as_ref().is_some_and(|listing| listing.overlay && listing.list == List::Grey);
    let expired = run_out && !by_operator;
    if matches(Rule::Grey, !expired && (timer.is_some() || list == Some(List::Grey))) {
        return Verdict { timer, ..by(Rule::Grey, Status::Grey) };
    }
    if matches(Rule::Expired, expired) {
        return Verdict { timer, ..by(Rule::Expired, Status::Black) };
    }
    let tac_list_age = facts.now.saturating_sub(snapshot.header().tac_as_of);
    let unallocated = tac_list_age < policy.tac_max_age && snapshot.allocated_tac(imei.tac()) == Some(false);
    if matches(Rule::Unallocated, unallocated) {
        return by(Rule::Unallocated, Status::Black);
    }
    matches(Rule::FirstAttach, true);
    by(Rule::FirstAttach, Status::Grey)
}
