//! The national lists as one immutable file, answered from where it lies in memory.
//!
//! Its one job: take a mapped file, or refuse it, and answer what it says of a device or subscriber. The verdict asks
//! it for every request. It never parses or allocates after it was opened, never changes, and never panics whatever the
//! file holds. Deltas and the operator's own entries lie above it, elsewhere.

use std::fmt;
use std::ops::Range;

use super::List;
use super::compare::Said;
use super::deadlines::Deadlines;
use super::imei_set::ImeiSet;
use super::layout::{self, BadSection, Header, Layout, SectionKind, SnapshotError};
use super::pairs::Pairs;
use super::sorted::{Interval, Tacs, check_intervals, check_tacs, find_interval, has_tac, intervals, tacs};
use super::tag::{Tag, TagInfo, TagTable};
use crate::UnixTime;
use crate::imei::{Imei, Imsi};

/// An open snapshot.
pub struct Snapshot {
    data: Box<dyn AsRef<[u8]> + Send + Sync>,
    layout: Layout,
    tags: TagTable,
    imeis: ImeiSet,
    imeis_at: Range<usize>,
    ranges_at: Range<usize>,
    exempt_tacs_at: Range<usize>,
    allocated_tacs_at: Range<usize>,
    exempt_imsis_at: Range<usize>,
    pairs: Pairs,
    pairs_at: Range<usize>,
    deadlines: Deadlines,
    deadlines_at: Range<usize>,
}

impl Snapshot {
    /// Take a snapshot file's bytes, after checking its header, and checksums and structure of what is small and of
    /// what leads to the rest. That is quick, however large the file is; [`verify`](Self::verify) checks everything.
    ///
    /// `data` must give the same bytes each time; a file that someone changes while it is mapped gives wrong answers.
    ///
    /// # Errors
    /// [`SnapshotError`] with what is wrong and where.
    pub fn open(data: Box<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, SnapshotError> {
        let file = (*data).as_ref();
        let layout = layout::read(file)?;
        let section = |place: &Range<usize>| file.get(place.clone()).unwrap_or_default();
        let in_section = |kind| move |fault| SnapshotError::BadSection(kind, fault);
        let counted = |kind, found: u64, expected: u64| {
            let wrong = BadSection("not as many entries as the file's header says");
            if found == expected { Ok(()) } else { Err(SnapshotError::BadSection(kind, wrong)) }
        };

        let [tags_at, imeis_at, ranges_at, exempt_tacs_at, allocated_tacs_at, exempt_imsis_at, pairs_at, deadlines_at] =
            layout.sections.clone();
        let part = |place: &Range<usize>, part: Range<usize>| place.start + part.start..place.start + part.end;
        // Of what does not even say where its small part is, all is checked: it is damaged, or refused as it is opened.
        let head = |place: &Range<usize>, small: Option<Range<usize>>| {
            part(place, small.unwrap_or(0..place.end - place.start))
        };
        let small = [
            tags_at.clone(),
            head(&imeis_at, ImeiSet::small(section(&imeis_at))),
            ranges_at.clone(),
            exempt_tacs_at.clone(),
            allocated_tacs_at.clone(),
            exempt_imsis_at.clone(),
            part(&pairs_at, Pairs::small(section(&pairs_at))),
            head(&deadlines_at, Deadlines::small(section(&deadlines_at))),
        ];
        layout.check(file, small)?;

        let counts = layout.header.counts;
        let tags = TagTable::decode(section(&tags_at)).map_err(in_section(SectionKind::Tags))?;
        let imeis = ImeiSet::open(section(&imeis_at)).map_err(in_section(SectionKind::Imeis))?;
        let listed = counts.white.saturating_add(counts.black).saturating_add(counts.grey);
        counted(SectionKind::Imeis, imeis.len(), listed)?;
        let pairs = Pairs::open(section(&pairs_at)).map_err(in_section(SectionKind::Pairs))?;
        counted(SectionKind::Pairs, pairs.len(), counts.pairs)?;
        let deadlines = Deadlines::open(section(&deadlines_at)).map_err(in_section(SectionKind::Deadlines))?;
        counted(SectionKind::Deadlines, deadlines.len(), counts.deadlines)?;
        for (kind, place, expected) in [
            (SectionKind::ExemptTacs, &exempt_tacs_at, counts.exempt_tacs),
            (SectionKind::AllocatedTacs, &allocated_tacs_at, counts.allocated_tacs),
        ] {
            counted(kind, check_tacs(section(place)).map_err(in_section(kind))?, expected)?;
        }
        for (kind, place, expected) in [
            (SectionKind::Ranges, &ranges_at, counts.ranges),
            (SectionKind::ExemptImsis, &exempt_imsis_at, counts.exempt_imsis),
        ] {
            counted(kind, check_intervals(section(place)).map_err(in_section(kind))?, expected)?;
        }

        Ok(Self {
            data,
            layout,
            tags,
            imeis,
            imeis_at,
            ranges_at,
            exempt_tacs_at,
            allocated_tacs_at,
            exempt_imsis_at,
            pairs,
            pairs_at,
            deadlines,
            deadlines_at,
        })
    }

    /// Check every checksum, and the structure of what [`open`](Self::open) does not look into. Reads the whole file.
    ///
    /// # Errors
    /// [`SnapshotError`] with what is wrong and where.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        self.scrub(0, usize::MAX)?;
        let in_section = |kind| move |fault| SnapshotError::BadSection(kind, fault);
        self.imeis.check(self.section(&self.imeis_at)).map_err(in_section(SectionKind::Imeis))?;
        self.pairs.check(self.section(&self.pairs_at)).map_err(in_section(SectionKind::Pairs))?;
        self.deadlines.check(self.section(&self.deadlines_at)).map_err(in_section(SectionKind::Deadlines))
    }

    /// Check the checksums of the bytes from `from` on, for about `budget` bytes but at least one checksum's; gives
    /// where to go on, or `None` at the end. Who begins with 0 and goes on until then has checked all of the file.
    ///
    /// # Errors
    /// [`SnapshotError`] with what is damaged.
    pub fn scrub(&self, from: usize, budget: usize) -> Result<Option<usize>, SnapshotError> {
        self.layout.scrub((*self.data).as_ref(), from, budget)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn length(&self) -> usize {
        (*self.data).as_ref().len()
    }

    /// What the snapshot says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.layout.header
    }

    /// What every tag of this snapshot means.
    #[must_use]
    pub fn tags(&self) -> &TagTable {
        &self.tags
    }

    /// What a tag of this snapshot means.
    #[inline]
    #[must_use]
    pub fn tag_info(&self, tag: Tag) -> &TagInfo {
        self.tags.info(tag)
    }

    /// The tag of a device that is listed by itself.
    #[inline]
    #[must_use]
    pub fn imei(&self, imei: Imei) -> Option<Tag> {
        self.imeis.get(self.section(&self.imeis_at), imei)
    }

    /// Until when a device on the grey list has access: the first second without, where the national database says so.
    #[inline]
    #[must_use]
    pub fn deadline(&self, imei: Imei) -> Option<UnixTime> {
        self.deadlines.get(self.section(&self.deadlines_at), imei)
    }

    /// Ask the processor for the first part of what [`imei`](Self::imei) will read.
    #[inline]
    pub fn warm_index(&self, imei: Imei) {
        self.imeis.warm_index(self.section(&self.imeis_at), imei);
    }

    /// Ask the processor for the second part of what [`imei`](Self::imei) will read, when the first has come.
    #[inline]
    pub fn warm_entries(&self, imei: Imei) {
        self.imeis.warm_entries(self.section(&self.imeis_at), imei);
    }

    /// The tag of the narrowest range that a device is in.
    #[inline]
    #[must_use]
    pub fn range(&self, imei: Imei) -> Option<Tag> {
        find_interval(self.section(&self.ranges_at), imei.number())
    }

    /// Whether this subscriber may use this device, whatever else is said of it.
    #[inline]
    #[must_use]
    pub fn paired(&self, imei: Imei, imsi: Imsi) -> bool {
        self.pairs.contains(self.section(&self.pairs_at), imei, imsi)
    }

    /// Whether there are any pairs.
    #[inline]
    #[must_use]
    pub fn has_pairs(&self) -> bool {
        self.layout.header.counts.pairs != 0
    }

    /// Whether this subscriber needs no verified device.
    #[inline]
    #[must_use]
    pub fn exempt_imsi(&self, imsi: Imsi) -> bool {
        find_interval(self.section(&self.exempt_imsis_at), imsi.padded()).is_some()
    }

    /// Whether devices of this TAC need no verification.
    #[inline]
    #[must_use]
    pub fn exempt_tac(&self, tac: u32) -> bool {
        has_tac(self.section(&self.exempt_tacs_at), tac)
    }

    /// Whether the GSMA has allocated this TAC; `None` where the snapshot has no list of them.
    #[inline]
    #[must_use]
    pub fn allocated_tac(&self, tac: u32) -> Option<bool> {
        (self.layout.header.tac_as_of != 0).then(|| has_tac(self.section(&self.allocated_tacs_at), tac))
    }

    /// All devices that are listed by themselves, in rising order.
    pub fn devices(&self) -> impl Iterator<Item = (Imei, Tag)> {
        self.imeis.iter(self.section(&self.imeis_at))
    }

    /// What is said of a device that has this tag here.
    #[must_use]
    pub fn said(&self, imei: Imei, tag: Tag) -> Said<'_> {
        let TagInfo { list, reason } = self.tag_info(tag);
        let until = if *list == List::Grey { self.deadline(imei) } else { None };
        Said { list: *list, reason, until }
    }

    /// All pairs, in no order.
    pub fn pairs(&self) -> impl Iterator<Item = (Imei, Imsi)> {
        self.pairs.iter(self.section(&self.pairs_at))
    }

    /// All ranges, in rising order: the first and the last key.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64, Tag)> {
        intervals(self.section(&self.ranges_at)).map(|Interval { from, to, tag }| (from, to, tag))
    }

    /// All ranges of IMSIs that need no verified device, in rising order, in the form of [`Imsi::padded`].
    pub fn exempt_imsis(&self) -> impl Iterator<Item = (u64, u64)> {
        intervals(self.section(&self.exempt_imsis_at)).map(|Interval { from, to, .. }| (from, to))
    }

    /// All TACs of devices that need no verification, in rising order.
    pub fn exempt_tacs(&self) -> Tacs<'_> {
        tacs(self.section(&self.exempt_tacs_at))
    }

    /// All TACs that the GSMA has allocated, in rising order.
    pub fn allocated_tacs(&self) -> Tacs<'_> {
        tacs(self.section(&self.allocated_tacs_at))
    }

    #[inline]
    fn section(&self, place: &Range<usize>) -> &[u8] {
        (*self.data).as_ref().get(place.clone()).unwrap_or_default()
    }
}

/// What it says of itself; the lists are too long to show.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("header", &self.layout.header).finish_non_exhaustive()
    }
}
