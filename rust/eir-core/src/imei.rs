//! Equipment and subscriber identities as the node keys them (3GPP TS 23.003 clauses 2.2 and 6.2).
//!
//! The key of a device is 14 digits, TAC (8) and SNR (6). The 15th digit of an IMEI and the last two of an IMEISV say
//! nothing about the device and are dropped. Check digits are verified only for what a person typed
//! ([`Imei::from_person`]), never for what a network sent.

use std::fmt;

/// Number of SNRs in one TAC.
pub const SNRS_PER_TAC: u64 = 1_000_000;
/// Number of possible 14-digit keys.
pub const IMEI_LIMIT: u64 = 100_000_000_000_000;
/// Number of possible TACs.
pub const TAC_LIMIT: u32 = 100_000_000;

/// The number that eight ASCII digits make, all at once: an identity is read for every request.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(text);
    let is_digit = (word & 0xf0f0_f0f0_f0f0_f0f0
        | (word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0) >> 4)
        == 0x3333_3333_3333_3333;
    // Neighbours are joined to numbers of two digits, then of four, then of eight.
    let pairs = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2561) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    let eight = (fours & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32;
    is_digit.then_some(eight)
}

/// What was sent as an IMEI is none: not 14 to 16 decimal digits, or all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an IMEI: 14 to 16 decimal digits, not all zero")
    }
}

impl std::error::Error for Malformed {}

/// What a person typed as an IMEI cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistyped {
    /// Not 14 to 16 decimal digits, or all zero.
    Malformed,
    /// The 15th digit is neither the Luhn check digit nor 0; the digit it should be.
    CheckDigit(u8),
}

impl fmt::Display for Mistyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => Malformed.fmt(f),
            Self::CheckDigit(right) => write!(f, "the check digit is wrong (it should be {right}): mistyped?"),
        }
    }
}

impl std::error::Error for Mistyped {}

/// A device's key: TAC and SNR, 14 decimal digits as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Imei(u64);

impl Imei {
    /// The key of an IMEI (14 or 15 digits) or IMEISV (16 digits) in ASCII as signalling and list files carry it.
    ///
    /// # Errors
    /// [`Malformed`] unless 14 to 16 decimal digits whose first 14 are not all zero.
    #[inline]
    pub fn from_digits(text: &[u8]) -> Result<Self, Malformed> {
        if !(14..=16).contains(&text.len()) || !text.iter().skip(14).all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        // TAC and SNR by eight digits each; the SNR's first two are the TAC's last.
        let (tac, _) = text.split_first_chunk::<8>().ok_or(Malformed)?;
        let (_, end) = text.get(..14).and_then(<[u8]>::split_last_chunk::<8>).ok_or(Malformed)?;
        let tac = eight_digits(*tac).ok_or(Malformed)?;
        let snr = eight_digits(*end).ok_or(Malformed)? % SNRS_PER_TAC;
        Self::from_number(tac * SNRS_PER_TAC + snr).ok_or(Malformed)
    }

    /// The key of what a person typed, whose 15th digit must be the check digit or 0.
    ///
    /// # Errors
    /// [`Mistyped`], with the right check digit where that is what is wrong.
    pub fn from_person(text: &str) -> Result<Self, Mistyped> {
        let imei = Self::from_digits(text.as_bytes()).map_err(|Malformed| Mistyped::Malformed)?;
        let right = imei.check_digit();
        match (text.len(), text.as_bytes().get(14)) {
            (15, Some(&typed)) if typed != b'0' && typed != b'0' + right => Err(Mistyped::CheckDigit(right)),
            _ => Ok(imei),
        }
    }

    /// The key as a number below 10^14; `None` for 0 and anything larger.
    #[must_use]
    pub fn from_number(key: u64) -> Option<Self> {
        (key != 0 && key < IMEI_LIMIT).then_some(Self(key))
    }

    /// The key as a number below 10^14.
    #[inline]
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// Type Allocation Code: the first eight digits.
    #[inline]
    #[must_use]
    pub fn tac(self) -> u32 {
        // Below 10^8 because the key is below 10^14.
        (self.0 / SNRS_PER_TAC) as u32
    }

    /// Serial number: the last six digits of the key.
    #[inline]
    #[must_use]
    pub fn snr(self) -> u32 {
        (self.0 % SNRS_PER_TAC) as u32
    }

    /// The Luhn check digit (3GPP TS 23.003 annex B).
    #[must_use]
    pub fn check_digit(self) -> u8 {
        let mut rest = self.0;
        let mut sum = 0;
        for place in 0..14 {
            let digit = rest % 10;
            rest /= 10;
            let doubled = if place % 2 == 0 { digit * 2 } else { digit };
            sum += doubled / 10 + doubled % 10;
        }
        ((10 - sum % 10) % 10) as u8
    }
}

/// The 14 digits of the key.
impl fmt::Display for Imei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014}", self.0)
    }
}

/// A subscriber's IMSI: 6 to 15 digits, kept so that numbers of one length sort as their digits do.
///
/// The digits are padded on the right with zeros to 15 and the length is kept in the low four bits, so that a prefix,
/// a range of IMSIs and the IMSI itself compare as numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Imsi(u64);

impl Imsi {
    /// An IMSI in ASCII digits as User-Name carries it (3GPP TS 29.272 clause 6.2.1.1); `None` unless 6 to 15 digits.
    #[inline]
    #[must_use]
    pub fn from_digits(text: &[u8]) -> Option<Self> {
        if !(6..=15).contains(&text.len()) {
            return None;
        }
        let mut digits = [b'0'; 16];
        digits.get_mut(16 - text.len()..)?.copy_from_slice(text);
        let (&high, rest) = digits.split_first_chunk::<8>()?;
        let number = eight_digits(high)? * 100_000_000 + eight_digits(*rest.first_chunk::<8>()?)?;
        let value = number * 10u64.pow(15 - text.len() as u32);
        Some(Self(value << 4 | text.len() as u64))
    }

    /// The inverse of [`Imsi::packed`]; `None` where the number is not one that it gives.
    #[must_use]
    pub fn from_packed(packed: u64) -> Option<Self> {
        let (value, length) = (packed >> 4, (packed & 15) as u32);
        let spare = 10u64.pow(15u32.checked_sub(length)?);
        (length >= 6 && value < 10u64.pow(15) && value % spare == 0).then_some(Self(packed))
    }

    /// Its digits. Personal data: for files and people who may see it, never for a log.
    #[must_use]
    pub fn digits(self) -> String {
        digits(self.0)
    }

    /// One number below 2^54 that stands for this IMSI in files and tables; never 0.
    #[inline]
    #[must_use]
    pub fn packed(self) -> u64 {
        self.0
    }

    /// The digits as a number, padded on the right with zeros to 15 digits.
    #[inline]
    #[must_use]
    pub fn padded(self) -> u64 {
        self.0 >> 4
    }

    /// Mobile Country Code: the first three digits.
    #[inline]
    #[must_use]
    pub fn mcc(self) -> u16 {
        (self.padded() / 1_000_000_000_000) as u16
    }
}

/// The digits of a packed number: padded on the right to 15, times 16, plus their count.
fn digits(packed: u64) -> String {
    let length = (packed & 15) as usize;
    let mut text = format!("{:015}", packed >> 4);
    text.truncate(length);
    text
}

/// A subscriber's number in international form, at most 15 digits (ITU-T E.164); kept as an [`Imsi`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Msisdn(u64);

impl Msisdn {
    /// The number in an MSISDN AVP: digits of four bits, the low ones first, with a filler of ones behind an odd count
    /// (3GPP TS 29.329 clause 6.3.2). `None` unless 5 to 15 digits.
    #[must_use]
    pub fn from_tbcd(octets: &[u8]) -> Option<Self> {
        let (mut value, mut length) = (0, 0);
        let nibbles = octets.iter().flat_map(|octet| [octet & 15, octet >> 4]);
        let count = octets.len() * 2;
        for (place, nibble) in nibbles.enumerate() {
            match nibble {
                0..=9 if length < 15 => {
                    value = value * 10 + u64::from(nibble);
                    length += 1;
                }
                15 if place + 1 == count => {}
                _ => return None,
            }
        }
        (length >= 5).then(|| Self((value * 10u64.pow(15 - length)) << 4 | u64::from(length)))
    }

    /// The inverse of [`Msisdn::packed`]; `None` where the number is not one that it gives.
    #[must_use]
    pub fn from_packed(packed: u64) -> Option<Self> {
        let (value, length) = (packed >> 4, (packed & 15) as u32);
        let spare = 10u64.pow(15u32.checked_sub(length)?);
        (length >= 5 && value < 10u64.pow(15) && value % spare == 0).then_some(Self(packed))
    }

    /// One number below 2^54 that stands for this one in files; never 0.
    #[must_use]
    pub fn packed(self) -> u64 {
        self.0
    }

    /// The digits.
    #[must_use]
    pub fn digits(self) -> String {
        digits(self.0)
    }
}

/// Without the digits: a subscriber's number is not for logs.
impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Msisdn(..)")
    }
}

/// Personal data: debug output shows that there is an IMSI, not which.
impl fmt::Debug for Imsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Imsi(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imei_and_its_imeisv_have_one_key() {
        let key = Imei::from_digits(b"35209900176148").unwrap();
        assert_eq!(key.number(), 35_209_900_176_148);
        for text in [&b"352099001761481"[..], b"352099001761480", b"3520990017614823"] {
            assert_eq!(Imei::from_digits(text), Ok(key));
        }
        assert_eq!((key.tac(), key.snr()), (35_209_900, 176_148));
        assert_eq!(key.to_string(), "35209900176148");
    }

    #[test]
    fn what_is_no_imei_is_malformed() {
        let cases: [&[u8]; 9] = [
            b"",
            b"1234567890123",
            b"12345678901234567",
            b"3520990017614a",
            b"35209900176148x",
            b"00000000000000",
            b"000000000000001",
            b" 5209900176148",
            b"\xd9\xa3520990017614",
        ];
        for text in cases {
            assert_eq!(Imei::from_digits(text), Err(Malformed), "{text:?}");
        }
        assert_eq!(Imei::from_digits(&[b'1'; 1000]), Err(Malformed));
    }

    #[test]
    fn any_octet_that_is_no_digit_is_seen_wherever_it_stands() {
        for place in 0..16 {
            for octet in 0..=255u8 {
                let mut text = *b"3520990017614812";
                text[place] = octet;
                let key = text[..14].iter().fold(0, |key, digit| key * 10 + u64::from(digit.wrapping_sub(b'0')));
                let expected = if octet.is_ascii_digit() { Ok(Imei(key)) } else { Err(Malformed) };
                assert_eq!(Imei::from_digits(&text), expected, "{text:?}");
                let imsi = &text[..15];
                if place < 15 {
                    assert_eq!(Imsi::from_digits(imsi).is_some(), octet.is_ascii_digit(), "{imsi:?}");
                }
            }
        }
        for length in 6..=15 {
            let text = &b"123456789012345"[..length];
            let padded = Imsi::from_digits(text).unwrap().padded();
            assert_eq!(format!("{padded:015}"), format!("{:0<15}", std::str::from_utf8(text).unwrap()));
        }
    }

    #[test]
    fn a_person_must_type_the_check_digit_or_zero() {
        // The check digit of the worked example in 3GPP TS 23.003 annex B: 49015420323751 -> 8.
        assert_eq!(Imei::from_number(49_015_420_323_751).unwrap().check_digit(), 8);
        assert!(Imei::from_person("490154203237518").is_ok());
        assert!(Imei::from_person("490154203237510").is_ok());
        assert!(Imei::from_person("49015420323751").is_ok());
        assert!(Imei::from_person("4901542032375199").is_ok());
        assert_eq!(Imei::from_person("490154203237517"), Err(Mistyped::CheckDigit(8)));
        assert_eq!(Imei::from_person("4901542032375"), Err(Mistyped::Malformed));
    }

    #[test]
    fn an_imsi_keeps_leading_zeros_and_its_length() {
        let imsi = Imsi::from_digits(b"001010123456789").unwrap();
        assert_eq!(imsi.mcc(), 1);
        assert_eq!(Imsi::from_packed(imsi.packed()), Some(imsi));
        let short = Imsi::from_digits(b"00101012345678").unwrap();
        assert_ne!(short, Imsi::from_digits(b"001010123456780").unwrap());
        assert_eq!(short.padded(), 1_010_123_456_780);
        assert_eq!((imsi.digits().as_str(), short.digits().as_str()), ("001010123456789", "00101012345678"));
        assert_eq!(Imsi::from_digits(b"00101"), None);
        assert_eq!(Imsi::from_digits(b"0010101234567890"), None);
        assert_eq!(Imsi::from_digits(b"00101012345678x"), None);
        assert_eq!(format!("{imsi:?}"), "Imsi(..)");
    }

    #[test]
    fn only_numbers_that_an_imsi_packs_to_unpack() {
        for packed in [0, 5, 15, u64::MAX, (10u64.pow(15) << 4) | 15, (1 << 4) | 6] {
            assert_eq!(Imsi::from_packed(packed).is_some(), packed == 15, "{packed}");
        }
    }
}
