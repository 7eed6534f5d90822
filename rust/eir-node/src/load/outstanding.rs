//! The requests of one connection that have no answer yet, found again by their Hop-by-Hop Identifier.
//!
//! RFC 6733 clause 3: an answer carries the identifier of its request. Its low 16 bits are the slot here, its high 16
//! bits a count of uses, so that a late or repeated answer does not pass for the slot's next request. Used by
//! `peer`; knows no time but the numbers it is given.

/// A request that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Nanoseconds since the start of the run.
    pub sent: u64,
    /// 14 digits.
    pub imei: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Identifier of the request that is out, or of the last that was.
    hop_by_hop: u32,
    out: bool,
    request: Request,
}

/// A fixed number of slots, so memory is bounded however slow the peer is.
pub(super) struct Outstanding {
    slots: Vec<Slot>,
    free: Vec<u16>,
    uses: u16,
}

impl Outstanding {
    /// `size` slots, of which at most 2^16 can be numbered.
    pub(super) fn new(size: usize) -> Self {
        let idle = Slot { hop_by_hop: 0, out: false, request: Request { sent: 0, imei: 0 } };
        let free: Vec<u16> = (0..=u16::MAX).take(size).rev().collect();
        Self { slots: vec![idle; free.len()], free, uses: 0 }
    }

    /// Number of requests that are out.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no further request can be sent.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes a slot and returns the Hop-by-Hop Identifier for the request; `None` when all are taken.
    #[inline]
    pub(super) fn insert(&mut self, request: Request) -> Option<u32> {
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        self.uses = self.uses.wrapping_add(1);
        let hop_by_hop = u32::from(self.uses) << 16 | u32::from(index);
        *slot = Slot { hop_by_hop, out: true, request };
        Some(hop_by_hop)
    }

    /// Gives the slot back and returns its request; `None` where no request with this identifier is out.
    #[inline]
    pub(super) fn remove(&mut self, hop_by_hop: u32) -> Option<Request> {
        // Truncation is the point: the low 16 bits are the slot.
        let index = hop_by_hop as u16;
        let slot = self.slots.get_mut(usize::from(index))?;
        if !slot.out || slot.hop_by_hop != hop_by_hop {
            return None;
        }
        slot.out = false;
        self.free.push(index);
        Some(slot.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request { sent: 5, imei: 7 };

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut outstanding = Outstanding::new(2);
        let first = outstanding.insert(REQUEST).unwrap();
        let second = outstanding.insert(Request { sent: 6, imei: 8 }).unwrap();
        assert!(outstanding.is_full());
        assert_eq!(outstanding.insert(REQUEST), None);
        assert_eq!(outstanding.remove(second), Some(Request { sent: 6, imei: 8 }));
        assert_eq!(outstanding.remove(second), None);
        assert_eq!(outstanding.remove(first), Some(REQUEST));
        assert_eq!(outstanding.len(), 0);
    }

    #[test]
    fn a_late_answer_does_not_pass_for_the_next_request_in_its_slot() {
        let mut outstanding = Outstanding::new(1);
        let first = outstanding.insert(REQUEST).unwrap();
        outstanding.remove(first);
        let second = outstanding.insert(REQUEST).unwrap();
        assert_eq!(outstanding.remove(first), None);
        assert_eq!(outstanding.len(), 1);
        assert!(outstanding.remove(second).is_some());
    }

    #[test]
    fn identifiers_that_were_never_sent_match_nothing() {
        let mut outstanding = Outstanding::new(4);
        for hop_by_hop in [0, 1, 4, 0xFFFF, u32::MAX] {
            assert_eq!(outstanding.remove(hop_by_hop), None);
        }
        assert_eq!(Outstanding::new(1 << 20).slots.len(), 1 << 16);
    }
}
