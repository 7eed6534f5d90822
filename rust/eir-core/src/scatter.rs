//! Where a key belongs in a table of cells.

/// A key's hash under a table's seed, of which any bits may be used.
///
/// Both halves of a product are laid upon each other, twice: after one multiplication alone, the devices of a TAC crowd
/// together under one seed in ten.
#[inline]
pub(crate) fn scatter(key: u64, seed: u64) -> u64 {
    fold(fold(key ^ seed))
}

#[inline]
fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}
