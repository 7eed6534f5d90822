//! Tags: four bits that stand for a list and a reason, so that an IMEI carries both at no cost.
//!
//! Its one job: allot tags while lists are built, and say what a tag means while they are served. The builder and the
//! snapshot call it. It never knows what a reason implies; that is policy.

use std::borrow::Cow;

use super::List;
use super::layout::BadSection;

/// Longest reason.
pub const MAX_REASON: usize = 32;

/// Which (list, reason) pair an entry has, as a number below 16.
///
/// Tags 0, 1 and 2 are white, black and grey without a reason in every snapshot; the others mean what that snapshot's
/// [`TagTable`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u8);

impl Tag {
    /// How many tags there can be.
    pub const LIMIT: usize = 16;

    /// The tag of a list without a reason.
    #[must_use]
    pub fn reserved(list: List) -> Self {
        Self(list as u8)
    }

    /// The tag of that number; `None` from 16 up.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (usize::from(number) < Self::LIMIT).then_some(Self(number))
    }

    /// The tag in the low four bits of an entry; the other bits are dropped.
    #[inline]
    #[must_use]
    pub fn from_low_bits(bits: u64) -> Self {
        Self((bits & 15) as u8)
    }

    /// The tag's number, below 16.
    #[inline]
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// What a tag means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagInfo {
    /// The list.
    pub list: List,
    /// Why it is on that list, as the list file says it; empty where it says nothing.
    pub reason: String,
}

/// What a tag that no one allotted means. Only a crafted file holds one, and it must not block a device.
static UNALLOTTED: TagInfo = TagInfo { list: List::White, reason: String::new() };

/// The meaning of every tag of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTable {
    /// By tag number; the three reserved ones first.
    infos: Vec<TagInfo>,
}

impl Default for TagTable {
    fn default() -> Self {
        Self::new()
    }
}

impl TagTable {
    /// A table of the three reserved tags.
    #[must_use]
    pub fn new() -> Self {
        let infos = [List::White, List::Black, List::Grey].map(|list| TagInfo { list, reason: String::new() });
        Self { infos: infos.into() }
    }

    /// The tag of a (list, reason) pair, allotted now if it is new; `None` where all 16 are taken.
    pub fn allot(&mut self, list: List, reason: &str) -> Option<Tag> {
        let known = self.infos.iter().position(|info| info.list == list && info.reason == reason);
        let number = known.unwrap_or(self.infos.len());
        let tag = u8::try_from(number).ok().and_then(Tag::from_number)?;
        if known.is_none() {
            self.infos.push(TagInfo { list, reason: reason.to_owned() });
        }
        Some(tag)
    }

    /// What a tag means. A tag that this table does not hold is white.
    #[inline]
    #[must_use]
    pub fn info(&self, tag: Tag) -> &TagInfo {
        self.infos.get(usize::from(tag.0)).unwrap_or(&UNALLOTTED)
    }

    /// Every tag that means something, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Tag, &TagInfo)> {
        (0..).map(Tag).zip(&self.infos)
    }

    /// The order in which contradictory entries for one device or range win, the lowest first: black before white
    /// before grey, a reason before none, the reason met first.
    #[must_use]
    pub(super) fn rank(&self, tag: Tag) -> u8 {
        let info = self.info(tag);
        let list = match info.list {
            List::Black => 0,
            List::White => 1,
            List::Grey => 2,
        };
        // A named reason may be one that no exemption lifts, so it must not vanish behind a bare entry.
        list << 5 | u8::from(info.reason.is_empty()) << 4 | tag.0
    }

    /// The [`rank`](Self::rank) of every tag, by its number.
    pub(super) fn ranks(&self) -> [u8; Tag::LIMIT] {
        let mut ranks = [u8::MAX; Tag::LIMIT];
        for (rank, (tag, _)) in ranks.iter_mut().zip(self.iter()) {
            *rank = self.rank(tag);
        }
        ranks
    }

    /// The tags section: per tag a byte for the list, a byte for the reason's length, the reason.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut section = Vec::new();
        for info in &self.infos {
            // A reason is at most MAX_REASON bytes long.
            section.extend([info.list as u8, info.reason.len() as u8]);
            section.extend(info.reason.as_bytes());
        }
        section
    }

    /// The inverse of [`TagTable::encode`].
    pub(super) fn decode(section: &[u8]) -> Result<Self, BadSection> {
        let mut infos = Vec::with_capacity(Tag::LIMIT);
        let mut rest = section;
        while let Some((&[list, length], after)) = rest.split_first_chunk() {
            let (reason, after) = after.split_at_checked(usize::from(length)).ok_or(BadSection("a reason is cut"))?;
            let list = List::from_number(list).ok_or(BadSection("no such list"))?;
            let reason = parse_reason(reason).ok_or(BadSection("a reason has characters that none may have"))?;
            infos.push(TagInfo { list, reason: reason.into_owned() });
            rest = after;
        }
        let table = Self { infos };
        if !rest.is_empty() || table.infos.len() > Tag::LIMIT {
            return Err(BadSection("not a table of at most 16 tags"));
        }
        if !table.infos.starts_with(&Self::new().infos) {
            return Err(BadSection("the reserved tags are not there"));
        }
        Ok(table)
    }
}

/// A reason as list files and operators write it, trimmed and in lower case; `None` unless at most 32 of `a-z0-9-`.
#[must_use]
pub fn parse_reason(text: &[u8]) -> Option<Cow<'_, str>> {
    let text = text.trim_ascii();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    if text.len() > MAX_REASON || !text.iter().all(allowed) {
        return None;
    }
    let reason = std::str::from_utf8(text).ok()?;
    if text.iter().any(u8::is_ascii_uppercase) {
        Some(Cow::Owned(reason.to_ascii_lowercase()))
    } else {
        Some(Cow::Borrowed(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_tags_are_the_lists_without_a_reason() {
        let mut table = TagTable::new();
        for list in [List::White, List::Black, List::Grey] {
            assert_eq!(table.allot(list, ""), Some(Tag::reserved(list)));
            assert_eq!(table.info(Tag::reserved(list)).list, list);
        }
        assert_eq!(table.iter().count(), 3);
    }

    #[test]
    fn thirteen_reasons_fit_and_the_next_does_not() {
        let mut table = TagTable::new();
        for number in 0..13u8 {
            assert_eq!(table.allot(List::Black, &format!("r{number}")), Tag::from_number(3 + number));
        }
        assert_eq!(table.allot(List::Black, "r13"), None);
        assert_eq!(table.allot(List::Black, "r12"), Tag::from_number(15));
        assert_eq!(TagTable::decode(&table.encode()), Ok(table));
    }

    #[test]
    fn one_reason_on_two_lists_is_two_tags() {
        let mut table = TagTable::new();
        let black = table.allot(List::Black, "court").unwrap();
        let white = table.allot(List::White, "court").unwrap();
        assert_ne!(black, white);
        assert_eq!(table.info(white), &TagInfo { list: List::White, reason: "court".to_owned() });
    }

    #[test]
    fn black_wins_and_a_reason_wins_over_none() {
        let mut table = TagTable::new();
        let stolen = table.allot(List::Black, "stolen").unwrap();
        let verified = table.allot(List::White, "verified").unwrap();
        let [white, black, grey] = [List::White, List::Black, List::Grey].map(Tag::reserved);
        let order = [stolen, black, verified, white, grey];
        assert!(order.is_sorted_by_key(|&tag| table.rank(tag)));
    }

    #[test]
    fn reasons_are_trimmed_and_lowered() {
        assert_eq!(parse_reason(b" Not-Verified-30 ").as_deref(), Some("not-verified-30"));
        assert_eq!(parse_reason(b"").as_deref(), Some(""));
        assert_eq!(parse_reason(&[b'a'; 32]).map(|reason| reason.len()), Some(32));
        for wrong in [&b"two words"[..], b"under_score", "причина".as_bytes(), &[b'a'; 33], b"\xff"] {
            assert_eq!(parse_reason(wrong), None);
        }
    }

    #[test]
    fn a_crafted_tag_table_is_refused() {
        let good = TagTable::new().encode();
        assert!(TagTable::decode(&good).is_ok());
        for cut in 0..good.len() {
            assert!(TagTable::decode(&good[..cut]).is_err(), "{cut}");
        }
        let many = [&good[..], &[1, 1, b'x'].repeat(14)].concat();
        assert!(TagTable::decode(&many).is_err());
        assert!(TagTable::decode(&[&good[..], &[3, 0]].concat()).is_err());
        assert!(TagTable::decode(&[&good[..], &[1, 1, b' ' + 1]].concat()).is_err());
        assert_eq!(TagTable::new().info(Tag::from_number(9).unwrap()).list, List::White);
    }
}
