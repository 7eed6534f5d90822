//! Little-endian numbers read at an offset of a mapped section.
//!
//! Its one job: reads that cannot panic and do not care for alignment. Every section's reader calls it. It never trusts
//! an offset: one beyond the end gives `None`.

/// The `N` bytes at `at`.
#[inline]
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// The u16 at `at`.
#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(|found| u16::from_le_bytes(*found))
}

/// The u32 at `at`.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(|found| u32::from_le_bytes(*found))
}

/// The u64 at `at`.
#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(|found| u64::from_le_bytes(*found))
}
