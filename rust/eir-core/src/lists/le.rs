//! Little-endian numbers read at an offset of a mapped section.
//!
//! Its one job: reads that cannot panic and do not care for alignment, and hints of reads to come. Every section's reader calls it. It never trusts
//! an offset: one beyond the end gives `None`.

/// The `N` bytes at `at`.
#[inline]
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
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

/// Ask the processor to have the cache line at `at` ready; a hint without effect where there is nothing, or no such
/// instruction.
#[inline]
pub(super) fn prefetch(bytes: &[u8], at: usize) {
    if let Some(byte) = bytes.get(at) {
        prefetch_of(byte);
    }
}

/// Ask the processor to have the cache line ready in which `value` begins.
#[inline]
pub(crate) fn prefetch_of<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer is a reference's; and the instruction reads nothing that the program would see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
