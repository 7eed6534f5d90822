//! What the operator and the country decide: the numbers and names that the rules of [`crate::verdict`] go by.
//!
//! Built once from the configuration, replaced whole, never changed in place.

use crate::UnixTime;
use crate::grey::{BreakerLimits, Schedule};
use crate::imei::Imsi;

/// What a request is answered: Equipment-Status (3GPP TS 29.272 clause 7.3.51), or that the equipment is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// May use the network.
    White = 0,
    /// May not.
    Black = 1,
    /// May, and is watched.
    Grey = 2,
    /// DIAMETER_ERROR_EQUIPMENT_UNKNOWN, 5422.
    Unknown = 3,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::White, Self::Black, Self::Grey, Self::Unknown];

    /// `white`, `black`, `grey` or `unknown`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Black => "black",
            Self::Grey => "grey",
            Self::Unknown => "unknown",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// The first digits of a TAC or an IMSI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    value: u64,
    /// What a whole number is divided by to leave the prefix's digits.
    divisor: u64,
}

impl Prefix {
    /// The first digits of a TAC; `None` unless 1 to 8 digits.
    #[must_use]
    pub fn of_tac(digits: &str) -> Option<Self> {
        Self::new(digits, 8)
    }

    /// The MCC and MNC of IMSIs; `None` unless 1 to 15 digits.
    #[must_use]
    pub fn of_imsi(digits: &str) -> Option<Self> {
        Self::new(digits, 15)
    }

    fn new(digits: &str, whole: u32) -> Option<Self> {
        let sound = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        let spare = whole.checked_sub(digits.len() as u32)?;
        if sound { Some(Self { value: digits.parse().ok()?, divisor: 10u64.pow(spare) }) } else { None }
    }

    #[inline]
    fn begins(self, number: u64) -> bool {
        number / self.divisor == self.value
    }
}

/// The operator's and the country's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Answer everything white, whatever the lists say.
    pub all_white: bool,
    /// The answer to everything while there is no valid list.
    pub no_list: Status,
    /// The answer to what is no IMEI: black or unknown.
    pub malformed: Status,
    /// Mobile country codes of the home country.
    pub home_mccs: Vec<u16>,
    /// PLMNs (MCC and MNC as digits) whose subscribers are roamers although the MCC is the home country's.
    pub roamer_plmns: Vec<Prefix>,
    /// PLMNs whose subscribers are no roamers although the MCC is another country's.
    pub non_roamer_plmns: Vec<Prefix>,
    /// Reasons on the black list that no exemption lifts.
    pub hard_reasons: Vec<String>,
    /// First digits of the TACs of test devices.
    pub test_tacs: Vec<Prefix>,
    /// An allocated-TAC list older than this says nothing.
    pub tac_max_age: UnixTime,
    /// Lists older than this expire no more timers.
    pub stale_after: UnixTime,
    /// The deadlines of timers.
    pub schedule: Schedule,
    /// When no more timers start.
    pub breaker: BreakerLimits,
}

impl Default for Policy {
    /// No country: nobody roams, nothing is hard, timers run 30 days to the second.
    fn default() -> Self {
        const DAY: UnixTime = 24 * 3600;
        Self {
            all_white: false,
            no_list: Status::White,
            malformed: Status::Black,
            home_mccs: Vec::new(),
            roamer_plmns: Vec::new(),
            non_roamer_plmns: Vec::new(),
            hard_reasons: Vec::new(),
            test_tacs: Vec::new(),
            tac_max_age: 30 * DAY,
            stale_after: 2 * DAY,
            schedule: Schedule::new(Vec::new(), 30 * DAY),
            breaker: BreakerLimits { starts_per_minute: u64::MAX, running: u64::MAX },
        }
    }
}

impl Policy {
    /// Whether that reason is one that no exemption lifts.
    #[must_use]
    pub fn is_hard(&self, reason: &str) -> bool {
        self.hard_reasons.iter().any(|hard| hard == reason)
    }

    /// Whether the subscriber is a visitor from another country.
    #[inline]
    pub(crate) fn roams(&self, imsi: Imsi) -> bool {
        if self.home_mccs.is_empty() {
            return false;
        }
        let foreign = !self.home_mccs.contains(&imsi.mcc());
        let exceptions = if foreign { &self.non_roamer_plmns } else { &self.roamer_plmns };
        foreign != exceptions.iter().any(|plmn| plmn.begins(imsi.padded()))
    }

    /// Whether the TAC is a test device's.
    #[inline]
    pub(crate) fn is_test_tac(&self, tac: u32) -> bool {
        self.test_tacs.iter().any(|prefix| prefix.begins(u64::from(tac)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imsi(text: &str) -> Imsi {
        Imsi::from_digits(text.as_bytes()).unwrap()
    }

    #[test]
    fn roamers_are_those_of_other_countries_but_for_the_exceptions() {
        let policy = Policy {
            home_mccs: vec![1],
            roamer_plmns: vec![Prefix::of_imsi("00199").unwrap()],
            non_roamer_plmns: vec![Prefix::of_imsi("99901").unwrap()],
            ..Policy::default()
        };
        for (subscriber, roams) in [
            ("001010000000001", false),
            ("001990000000001", true),
            ("999010000000001", false),
            ("999020000000001", true),
        ] {
            assert_eq!(policy.roams(imsi(subscriber)), roams, "{subscriber}");
        }
        assert!(!Policy::default().roams(imsi("999020000000001")));
    }

    #[test]
    fn test_tacs_are_told_by_their_first_digits() {
        let policy = Policy {
            test_tacs: ["0010", "00440123"].map(|tac| Prefix::of_tac(tac).unwrap()).into(),
            ..Policy::default()
        };
        for (tac, test) in [(100_000, true), (109_999, true), (110_000, false), (440_123, true), (440_124, false)] {
            assert_eq!(policy.is_test_tac(tac), test, "{tac}");
        }
    }

    #[test]
    fn a_prefix_is_digits_and_not_longer_than_the_whole() {
        assert!(["", "123456789", "12a", "+1"].into_iter().all(|text| Prefix::of_tac(text).is_none()));
    }

    #[test]
    fn names_lead_back_to_their_status() {
        for status in Status::ALL {
            assert_eq!(Status::from_name(status.name()), Some(status));
        }
    }
}
