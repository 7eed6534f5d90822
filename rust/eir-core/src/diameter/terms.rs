//! What one peer may do, and how its answers look: the terms that the control plane sets for it.

use crate::policy::Status;
use crate::verdict::Rule;

/// The terms of a peer; the default is the standard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Requests a second that are answered with a status; 0: all.
    pub requests_per_second: u64,
    /// Whether answers carry the node's load (RFC 8583).
    pub load: bool,
    /// What grey is answered as: there are clients that refuse it.
    pub grey: Status,
    /// What unknown equipment is answered as.
    pub unknown: Status,
    /// What an IMEI that is none is answered as; `None`: as the rules have it.
    pub malformed: Option<Status>,
}

impl Default for Terms {
    fn default() -> Self {
        Self::STANDARD
    }
}

impl Terms {
    /// No limit, and the answers of the standard.
    pub const STANDARD: Self =
        Self { requests_per_second: 0, load: false, grey: Status::Grey, unknown: Status::Unknown, malformed: None };

    /// What this peer is told where the verdict is `status`.
    #[inline]
    #[must_use]
    pub fn told(&self, status: Status, rule: Option<Rule>) -> Status {
        match (status, self.malformed) {
            (_, Some(malformed)) if rule == Some(Rule::Malformed) => malformed,
            (Status::Grey, _) => self.grey,
            (Status::Unknown, _) => self.unknown,
            (status, _) => status,
        }
    }
}

/// Whom a connection may speak for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sender {
    /// Anyone: an agent.
    #[default]
    Anyone,
    /// The peer of this name alone.
    Itself(Box<str>),
    /// The peer of this name, or anyone by a request that has passed an agent, which then has a Route-Record (RFC 6733
    /// clause 6.7.1).
    ItselfOrRouted(Box<str>),
}

impl Sender {
    /// Whether a request with this Origin-Host, compared without regard to case, may come from here.
    #[inline]
    #[must_use]
    pub fn may_send(&self, origin_host: &[u8], routed: bool) -> bool {
        match self {
            Self::Anyone => true,
            Self::Itself(name) => name.as_bytes().eq_ignore_ascii_case(origin_host),
            Self::ItselfOrRouted(name) => routed || name.as_bytes().eq_ignore_ascii_case(origin_host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_standards_unless_the_terms_say_more() {
        let standard = Terms::default();
        for status in Status::ALL {
            assert_eq!(standard.told(status, Some(Rule::Malformed)), status);
        }
        let terms =
            Terms { grey: Status::White, unknown: Status::Black, malformed: Some(Status::Unknown), ..Terms::default() };
        assert_eq!(terms.told(Status::Grey, Some(Rule::Grey)), Status::White);
        assert_eq!(terms.told(Status::Unknown, None), Status::Black);
        assert_eq!(terms.told(Status::Black, Some(Rule::Malformed)), Status::Unknown);
        assert_eq!(terms.told(Status::Black, Some(Rule::Black)), Status::Black);
    }

    #[test]
    fn who_may_speak_for_whom() {
        let itself = Sender::Itself("MME.example".into());
        let routed = Sender::ItselfOrRouted("dra.example".into());
        assert!(itself.may_send(b"mme.EXAMPLE", false) && !itself.may_send(b"other.example", true));
        assert!(routed.may_send(b"other.example", true) && !routed.may_send(b"other.example", false));
        assert!(Sender::Anyone.may_send(b"other.example", false));
    }
}
