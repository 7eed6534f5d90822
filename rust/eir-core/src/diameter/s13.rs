//! The door of S13: whole messages in, answers out, and what a first attach brings with it.
//!
//! Called by a connection for each message of an open peer. It asks the verdict, writes the answer and, where the
//! verdict starts something, has it recorded first: an answer whose record is not safe yet is held, and the caller
//! comes back with [`Door::release`] when it is. It knows no sockets and waits for nothing.

use super::avp::Avps;
use super::eca::{Answers, Told};
use super::ecr::Ecr;
use super::framing::{ERROR, Header, REQUEST};
use super::limit::{DEFAULT_PRIORITY, Limiter, Moment, Overload};
use super::terms::{Sender, Terms};
use super::{COMMAND_CAPABILITIES_EXCHANGE, COMMAND_DEVICE_WATCHDOG, COMMAND_DISCONNECT_PEER};
use crate::UnixTime;
use crate::grey::{Refused, Timer};
use crate::imei::Imei;
use crate::in_use::InUse;
use crate::journal::{Event, Journal, Progress};
use crate::policy::Status;
use crate::recent::{self, Recent};
use crate::verdict::{Facts, Request, Rule, Verdict, verdict};

const DAY: UnixTime = 24 * 3600;
/// Requests that keep a connection going: CER, DWR, DPR. They are few, and not what a limit is about.
const UPKEEP: [u32; 3] = [COMMAND_CAPABILITIES_EXCHANGE, COMMAND_DEVICE_WATCHDOG, COMMAND_DISCONNECT_PEER];

/// Messages that are answered together: each asks for six lines of memory or so, and what a processor is asked for beyond
/// some two dozen at once it lets go.
pub const GROUP: usize = 8;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An ECA was written.
    Answered(Answered),
    /// The answer must wait: keep the message, and call [`Door::release`] with it when the hold is over.
    Held(Hold),
    /// One request too many: a refusal was written.
    Limited,
    /// A DWA was written.
    Watchdog,
    /// Not for the data plane; nothing was written.
    Punt,
}

/// An answer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// What was answered, which the terms of the peer may have made something else than the verdict.
    pub status: Status,
    /// The rule that decided; `None` for a request that has only a 3GPP2-MEID, which no list knows.
    pub rule: Option<Rule>,
    /// A first attach that started nothing: journal failing, or breaker tripped.
    pub not_started: bool,
}

/// What an answer waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hold {
    /// Records up to this one must be written.
    pub written: u64,
    /// Records up to this one must be on the disk.
    pub durable: u64,
    /// The start that this request made, if it did.
    pub started: Option<u64>,
}

impl Hold {
    /// Whether everything that the answer waits for is safe.
    #[inline]
    #[must_use]
    pub fn over(&self, progress: Progress) -> bool {
        self.written <= progress.written && self.durable <= progress.durable
    }
}

/// The door, as it stands while one batch of messages is answered.
pub struct Door<'a, J> {
    /// What the verdict is taken from.
    pub facts: Facts<'a>,
    /// The prepared answers.
    pub answers: &'a Answers,
    /// Where records go.
    pub journal: &'a J,
    /// Where it is noted that a device is in use.
    pub in_use: Option<&'a InUse>,
    /// Where answers are noted that are not white.
    pub recent: Option<&'a Recent>,
    /// Who asks.
    pub caller: Caller<'a>,
    /// The ticks of [`Moment`].
    pub ticks: u64,
}

/// Who asks: the peer of a connection, and what it may.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Whom it may speak for.
    pub sender: &'a Sender,
    /// Its terms.
    pub terms: &'a Terms,
    /// Its requests.
    pub limiter: &'a Limiter,
    /// Everybody's requests, and how many of them are answered in a second; 0: all.
    pub node: (&'a Limiter, u64),
    /// The node's load, 0 to 65535.
    pub load: u16,
}

impl Caller<'static> {
    /// A caller that may do anything, of a node without limits.
    #[must_use]
    pub fn anyone() -> Self {
        static STANDARD: Terms = Terms::STANDARD;
        static NOTHING: Limiter = Limiter::new();
        Self { sender: &Sender::Anyone, terms: &STANDARD, limiter: &NOTHING, node: (&NOTHING, 0), load: 0 }
    }
}

impl<J: Journal> Door<'_, J> {
    /// Takes up to [`GROUP`] whole messages, in order; answers are appended to `out`, and `then` is told what became of
    /// each, and what was appended for it. More messages than that are left alone.
    ///
    /// What is held of the devices is asked for before the first answer is worked out, so that the cache misses
    /// of a group pass at the same time; they are most of what an answer costs.
    #[inline]
    pub fn handle<'m>(&self, messages: &[&'m [u8]], out: &mut Vec<u8>, mut then: impl FnMut(&'m [u8], Outcome, &[u8])) {
        if let [message] = messages {
            let request = Ecr::read(message).ok();
            if let (Some(in_use), Some(imei)) = (self.in_use, request.as_ref().and_then(device)) {
                in_use.warm(imei);
            }
            let start = out.len();
            let outcome = self.take(message, request.as_ref(), out);
            return then(message, outcome, out.get(start..).unwrap_or_default());
        }
        let mut requests: [Option<Ecr<'_>>; GROUP] = [None; GROUP];
        for (place, message) in requests.iter_mut().zip(messages) {
            *place = Ecr::read(message).ok();
        }
        let devices = || requests.iter().filter_map(|request| device(request.as_ref()?));
        if let Some(in_use) = self.in_use {
            devices().for_each(|imei| in_use.warm(imei));
        }
        if let Some(snapshot) = self.facts.snapshot {
            devices().for_each(|imei| snapshot.warm_index(imei));
            devices().for_each(|imei| snapshot.warm_entries(imei));
        }
        for (message, request) in messages.iter().zip(&requests) {
            let start = out.len();
            let outcome = self.take(message, request.as_ref(), out);
            then(message, outcome, out.get(start..).unwrap_or_default());
        }
    }

    #[inline]
    fn take(&self, message: &[u8], request: Option<&Ecr<'_>>, out: &mut Vec<u8>) -> Outcome {
        match request {
            Some(ecr) if !self.caller.sender.may_send(ecr.origin_host, ecr.routed) => self.punt(message, out),
            Some(ecr) if !self.admits(ecr.priority) => {
                self.answers.write_too_busy(out, ecr, &self.told(ecr));
                Outcome::Limited
            }
            Some(ecr) => self.answer(ecr, out),
            None => self.watchdog(message, out),
        }
    }

    #[inline]
    fn admits(&self, priority: Option<u8>) -> bool {
        let Caller { terms, limiter, node: (node, rate), .. } = self.caller;
        let moment = Moment { ticks: self.ticks, now: self.facts.now };
        // What a peer calls important is so among its own: the others' share it cannot have by saying so.
        limiter.admits(terms.requests_per_second, priority.unwrap_or(DEFAULT_PRIORITY), moment)
            && node.admits(rate, DEFAULT_PRIORITY, moment)
    }

    /// Hands a message up, unless it is one request too many: what is wrong costs more than what is right.
    fn punt(&self, message: &[u8], out: &mut Vec<u8>) -> Outcome {
        let upkeep = Header::read(message).is_none_or(|(header, _)| {
            header.flags & REQUEST == 0 || (header.application == 0 && UPKEEP.contains(&header.command))
        });
        if upkeep || self.admits(None) || !self.answers.write_too_busy_unread(out, message) {
            return Outcome::Punt;
        }
        Outcome::Limited
    }

    /// What the answer to this request says of the node.
    #[inline]
    fn told(&self, ecr: &Ecr<'_>) -> Told {
        let Caller { terms, load, .. } = self.caller;
        let overload = if ecr.overload_control { self.overload() } else { None };
        Told { overload, load: terms.load.then_some(load) }
    }

    #[inline(never)]
    fn overload(&self) -> Option<Overload> {
        let Caller { limiter, node: (node, _), .. } = self.caller;
        Overload::heavier(limiter.overload(self.facts.now), node.overload(self.facts.now))
    }

    #[inline]
    fn answer(&self, ecr: &Ecr<'_>, out: &mut Vec<u8>) -> Outcome {
        let Some(verdict) = self.decide(ecr) else { return Outcome::Answered(self.unknown(ecr, out)) };
        let effect = match ecr.imei {
            Some(Ok(imei)) => self.effect(imei, ecr, &verdict),
            _ => Effect::Nothing,
        };
        let not_started = match effect {
            Effect::Hold(hold) if !hold.over(self.journal.progress()) => {
                self.mark(ecr);
                return Outcome::Held(hold);
            }
            // Over already: safe, or lost and taken back.
            Effect::Hold(Hold { started: Some(_), .. }) => {
                ecr.imei.and_then(Result::ok).is_some_and(|imei| self.facts.grey.timer(imei).is_none())
            }
            Effect::Hold(_) | Effect::Nothing => false,
            Effect::NotStarted => true,
        };
        let status = self.write(ecr, verdict.status, Some(verdict.rule), out);
        self.remember(ecr, verdict.status, verdict.rule);
        // Last of all, because its cache line was asked for first and comes last.
        self.mark(ecr);
        Outcome::Answered(Answered { status, rule: Some(verdict.rule), not_started })
    }

    /// Answers a message whose hold is over, or has lasted long enough. The verdict is asked again: a device that was
    /// verified meanwhile leaves white, and the start that this request made is taken back.
    pub fn release(&self, message: &[u8], hold: &Hold, out: &mut Vec<u8>) -> Outcome {
        let Ok(ecr) = Ecr::read(message) else { return Outcome::Punt };
        let Some(verdict) = self.decide(&ecr) else { return Outcome::Answered(self.unknown(&ecr, out)) };
        let by_list = !matches!(
            verdict.rule,
            Rule::Override | Rule::NoList | Rule::Grey | Rule::Expired | Rule::FirstAttach | Rule::Unallocated
        );
        if let (Some(sequence), true, Some(Ok(imei))) = (hold.started, by_list, ecr.imei) {
            self.facts.grey.cancel(imei, sequence);
            self.journal.append(&Event::Cancel { imei, at: self.facts.now });
        }
        let status = self.write(&ecr, verdict.status, Some(verdict.rule), out);
        let not_started = verdict.rule == Rule::FirstAttach;
        // The timer that now decides is the one that this request started.
        let started = hold.started.is_some() && verdict.rule == Rule::Grey;
        let rule = if started { Rule::FirstAttach } else { verdict.rule };
        self.remember(&ecr, verdict.status, rule);
        Outcome::Answered(Answered { status, rule: Some(rule), not_started })
    }

    #[inline]
    fn decide(&self, ecr: &Ecr<'_>) -> Option<Verdict> {
        let request = Request { imei: ecr.imei?, imsi: ecr.imsi };
        Some(verdict(&request, &self.facts))
    }

    /// Notes that the device is in use.
    #[inline]
    fn mark(&self, ecr: &Ecr<'_>) {
        if let (Some(in_use), Some(imei)) = (self.in_use, device(ecr)) {
            in_use.mark(imei, ecr.imsi, self.facts.now / DAY);
        }
    }

    /// Notes an answer that leaves and is not white.
    #[inline]
    fn remember(&self, ecr: &Ecr<'_>, status: Status, rule: Rule) {
        if let (Some(recent), Some(imei), true) = (self.recent, device(ecr), status != Status::White) {
            recent.note(imei, &recent::Answer { at: self.facts.now, imsi: ecr.imsi, status, rule });
        }
    }

    /// A 3GPP2-MEID alone: equipment that no list here can know.
    fn unknown(&self, ecr: &Ecr<'_>, out: &mut Vec<u8>) -> Answered {
        let rule = self.facts.policy.all_white.then_some(Rule::Override);
        let status = if rule.is_some() { Status::White } else { Status::Unknown };
        Answered { status: self.write(ecr, status, rule, out), rule, not_started: false }
    }

    /// Writes the answer as the caller's terms have it; what it then says.
    #[inline]
    fn write(&self, ecr: &Ecr<'_>, status: Status, rule: Option<Rule>, out: &mut Vec<u8>) -> Status {
        let status = self.caller.terms.told(status, rule);
        self.answers.write_eca(out, ecr, status, &self.told(ecr));
        status
    }

    /// Does what follows from a verdict.
    #[inline]
    fn effect(&self, imei: Imei, ecr: &Ecr<'_>, verdict: &Verdict) -> Effect {
        match (verdict.rule, verdict.timer) {
            (Rule::FirstAttach, _) => self.first_attach(imei, ecr),
            // Without a timer of our own the national database runs it; its subscribers are to be told all the same.
            (Rule::Grey, timer) => self.seen(imei, ecr, timer.map_or(0, |(_, start)| start)),
            (
                Rule::BlackHard | Rule::TestImei | Rule::Black | Rule::BlackRange | Rule::Expired | Rule::Unallocated,
                _,
            ) => self.black_attempt(imei, ecr, verdict.rule),
            _ => Effect::Nothing,
        }
    }

    fn first_attach(&self, imei: Imei, ecr: &Ecr<'_>) -> Effect {
        let Facts { grey, policy, now, .. } = self.facts;
        // Lists of the future: the clock is wrong, and a deadline by it would lie in the past.
        let clock_is_wrong =
            self.facts.snapshot.is_some_and(|lists| now.saturating_add(DAY) < lists.header().created_at);
        if clock_is_wrong || !self.journal.available() {
            return Effect::NotStarted;
        }
        match grey.admit(now, policy.breaker) {
            Ok(()) => {}
            Err(Refused::Tripped) => return Effect::NotStarted,
            Err(Refused::TripsNow) => {
                self.journal.append(&Event::Breaker { tripped: true, at: now });
                return Effect::NotStarted;
            }
        }
        let timer = Timer { start: now, deadline: policy.schedule.deadline(now) };
        let record = || {
            // Before the record, which may be lost, and all that goes with it taken back, as soon as it is appended.
            if let Some(imsi) = ecr.imsi {
                grey.see(imei, now, imsi, || Some(0));
            }
            let sequence = self.journal.append(&Event::Start { imei, imsi: ecr.imsi, msisdn: ecr.msisdn, timer });
            if let (None, Some(imsi)) = (sequence, ecr.imsi) {
                grey.forget_seen(imei, now, imsi);
            }
            sequence
        };
        let Some((sequence, started)) = grey.start(imei, timer, record) else { return Effect::NotStarted };
        if !started {
            return self.seen(imei, ecr, sequence);
        }
        Effect::Hold(Hold { durable: sequence, started: Some(sequence), ..Hold::default() })
    }

    /// A device whose timer runs: joins the hold of its start, and notes a further subscriber.
    #[inline]
    fn seen(&self, imei: Imei, ecr: &Ecr<'_>, start: u64) -> Effect {
        let further = ecr.imsi.and_then(|imsi| {
            let (grey, at, msisdn) = (self.facts.grey, self.facts.now, ecr.msisdn);
            grey.see(imei, grey.began(imei), imsi, || self.journal.append(&Event::Seen { imei, imsi, msisdn, at }))
        });
        Effect::Hold(Hold { durable: start, written: further.unwrap_or(0), started: None })
    }

    fn black_attempt(&self, imei: Imei, ecr: &Ecr<'_>, rule: Rule) -> Effect {
        let (at, imsi, msisdn, rule) = (self.facts.now, ecr.imsi, ecr.msisdn, rule as u8);
        let record = || self.journal.append(&Event::BlackAttempt { imei, imsi, msisdn, at, rule });
        match self.facts.grey.attempt(imei, imsi, at, record) {
            Some(sequence) => Effect::Hold(Hold { written: sequence, ..Hold::default() }),
            None => Effect::Nothing,
        }
    }

    /// Answers a Device-Watchdog-Request in which nothing is out of the ordinary.
    fn watchdog(&self, message: &[u8], out: &mut Vec<u8>) -> Outcome {
        let Some((header, body)) = Header::read(message) else { return Outcome::Punt };
        let request = header.version == 1
            && header.flags & (REQUEST | ERROR) == REQUEST
            && header.command == COMMAND_DEVICE_WATCHDOG
            && header.application == 0;
        let (mut host, mut realm) = (0, 0);
        let mut plain = request && body.len().is_multiple_of(4);
        for avp in Avps::new(body) {
            match avp.map(|avp| (avp.vendor, avp.code, avp.data.len())) {
                Ok((0, 264, 1..)) => host += 1,
                Ok((0, 296, 1..)) => realm += 1,
                Ok((0, 278, 4)) => {}
                _ => plain = false,
            }
        }
        if !plain || (host, realm) != (1, 1) {
            return self.punt(message, out);
        }
        self.answers.write_dwa(out, &header);
        Outcome::Watchdog
    }
}

/// The device that a request is about, where what it sent is an IMEI.
#[inline]
fn device(ecr: &Ecr<'_>) -> Option<Imei> {
    ecr.imei?.ok()
}

/// What follows from a verdict.
enum Effect {
    Nothing,
    Hold(Hold),
    NotStarted,
}
