//! A hash table that is read without a lock while it is written: the ground of the grey table and the overlay.
//!
//! Keys are non-zero `u64`, values `W` words. Readers never wait: a look-up loads one pointer and reads atomics.
//! Writers take the lock of one of 256 shards; a shard that fills up is copied into a larger one and swapped, so no
//! writer waits for more than 1/256 of the table. Called by [`crate::grey`] and [`crate::lists::overlay`].
//!
//! A cell, once it has a key, keeps it until its shard is copied: removal leaves a tombstone that is not used again, so
//! a reader that has found its key never reads another key's value.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::scatter::scatter;

const SHARDS: usize = 256;
const FIRST_CELLS: usize = 16;
const FREE: u64 = 0;
const REMOVED: u64 = u64::MAX;

/// A table from `u64` (neither 0 nor `u64::MAX`) to `W` words.
pub struct Table<const W: usize> {
    shards: Box<[Shard<W>]>,
    entries: AtomicUsize,
    /// Drawn at start, so that nobody outside can choose keys that collide.
    seed: u64,
}

struct Shard<const W: usize> {
    cells: ArcSwap<Cells<W>>,
    /// Cells that are not free: entries and tombstones. Locked by whoever writes.
    used: Mutex<usize>,
}

struct Cells<const W: usize>(Box<[Cell<W>]>);

struct Cell<const W: usize> {
    key: AtomicU64,
    value: [AtomicU64; W],
}

impl<const W: usize> Cell<W> {
    fn read(&self) -> [u64; W] {
        std::array::from_fn(|at| self.value.get(at).map_or(0, |word| word.load(Ordering::Relaxed)))
    }

    fn write(&self, value: [u64; W]) {
        for (word, new) in self.value.iter().zip(value) {
            word.store(new, Ordering::Relaxed);
        }
    }
}

impl<const W: usize> Cells<W> {
    fn new(count: usize) -> Self {
        let free = || Cell { key: AtomicU64::new(FREE), value: std::array::from_fn(|_| AtomicU64::new(0)) };
        Self(std::iter::repeat_with(free).take(count).collect())
    }

    /// The cell of `key`, or the free one where it would go; `None` if there is neither.
    fn find(&self, hash: u64, key: u64) -> Option<(&Cell<W>, bool)> {
        // The low half of the hash, as a share of the cells, whose number is any.
        let first = ((u64::from(hash as u32) * self.0.len() as u64) >> 32) as usize;
        let (before, after) = self.0.split_at_checked(first)?;
        for cell in after.iter().chain(before) {
            match cell.key.load(Ordering::Acquire) {
                FREE => return Some((cell, false)),
                found if found == key => return Some((cell, true)),
                _ => {}
            }
        }
        None
    }

    fn entries(&self) -> impl Iterator<Item = (u64, &Cell<W>)> {
        self.0.iter().filter_map(|cell| match cell.key.load(Ordering::Acquire) {
            FREE | REMOVED => None,
            key => Some((key, cell)),
        })
    }
}

impl<const W: usize> Default for Table<W> {
    fn default() -> Self {
        let shard = || Shard { cells: ArcSwap::from_pointee(Cells::new(FIRST_CELLS)), used: Mutex::new(0) };
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            entries: AtomicUsize::new(0),
            seed: RandomState::new().hash_one(SHARDS),
        }
    }
}

impl<const W: usize> Table<W> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `key`. Words written by one call may be seen apart; each word is whole.
    #[inline]
    pub fn get(&self, key: u64) -> Option<[u64; W]> {
        if self.is_empty() {
            return None;
        }
        let (shard, hash) = self.shard(key)?;
        match shard.cells.load().find(hash, key) {
            Some((cell, true)) => Some(cell.read()),
            _ => None,
        }
    }

    /// Sets what `change` makes of the present value and returns that; `None` leaves everything as it is.
    ///
    /// `change` runs under the shard's lock: two callers that both add a key see each other.
    pub fn update(&self, key: u64, change: impl FnOnce(Option<[u64; W]>) -> Option<[u64; W]>) -> Option<[u64; W]> {
        let (shard, hash) = self.shard(key)?;
        let mut used = lock(&shard.used);
        let cells = shard.cells.load_full();
        if let Some((cell, true)) = cells.find(hash, key) {
            let value = change(Some(cell.read()))?;
            cell.write(value);
            return Some(value);
        }
        let value = change(None)?;
        let cells = if (*used + 1) * 5 > cells.0.len() * 4 { self.grow(shard, &cells, &mut used) } else { cells };
        let (cell, _) = cells.find(hash, key)?;
        cell.write(value);
        // The value first, then the key that makes it visible.
        cell.key.store(key, Ordering::Release);
        *used += 1;
        self.entries.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// Takes `key` out if `condition` holds for its value; whether it did.
    pub fn remove_if(&self, key: u64, condition: impl FnOnce([u64; W]) -> bool) -> bool {
        let Some((shard, hash)) = self.shard(key) else { return false };
        let _used = lock(&shard.used);
        match shard.cells.load().find(hash, key) {
            Some((cell, true)) if condition(cell.read()) => {
                cell.key.store(REMOVED, Ordering::Release);
                self.entries.fetch_sub(1, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Calls `visit` with every key and value, shard by shard; what changes meanwhile may or may not be seen.
    pub fn for_each(&self, mut visit: impl FnMut(u64, [u64; W])) {
        for shard in &self.shards {
            for (key, cell) in shard.cells.load().entries() {
                visit(key, cell.read());
            }
        }
    }

    /// Calls `visit` for one shard after the other with all its keys and values, as they are between two changes: what
    /// [`Table::update`] has begun in a shard is over, and what comes waits until the shard is copied.
    pub fn for_each_shard(&self, mut visit: impl FnMut(&[(u64, [u64; W])])) {
        let mut copied = Vec::new();
        for shard in &self.shards {
            copied.clear();
            let used = lock(&shard.used);
            copied.extend(shard.cells.load().entries().map(|(key, cell)| (key, cell.read())));
            drop(used);
            visit(&copied);
        }
    }

    /// Octets of all cells.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| size_of_val(&*shard.cells.load().0)).sum()
    }

    /// Takes out every key for which `keep` is false.
    pub fn retain(&self, mut keep: impl FnMut(u64, [u64; W]) -> bool) {
        for shard in &self.shards {
            let _used = lock(&shard.used);
            for (key, cell) in shard.cells.load().entries() {
                if !keep(key, cell.read()) {
                    cell.key.store(REMOVED, Ordering::Release);
                    self.entries.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn shard(&self, key: u64) -> Option<(&Shard<W>, u64)> {
        if key == FREE || key == REMOVED {
            return None;
        }
        let hash = scatter(key, self.seed);
        Some((self.shards.get(hash as usize >> 56)?, hash))
    }

    /// Copies a full shard, without its tombstones, into cells of which two in three are used: a table is never more than
    /// four fifths full, nor less than two thirds but at its beginning.
    fn grow(&self, shard: &Shard<W>, old: &Cells<W>, used: &mut MutexGuard<'_, usize>) -> Arc<Cells<W>> {
        let live = old.entries().count();
        let new = Cells::new(((live + 1) * 3 / 2).max(FIRST_CELLS));
        for (key, cell) in old.entries() {
            if let Some((_, hash)) = self.shard(key)
                && let Some((free, false)) = new.find(hash, key)
            {
                free.write(cell.read());
                free.key.store(key, Ordering::Relaxed);
            }
        }
        **used = live;
        let new = Arc::new(new);
        shard.cells.store(Arc::clone(&new));
        new
    }
}

/// A writer that panicked has left whole words behind; the table stays usable.
fn lock(used: &Mutex<usize>) -> MutexGuard<'_, usize> {
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(acts in prop::collection::vec((0u8..4, 1u64..60, any::<u64>()), 0..400)) {
            let table = Table::<2>::default();
            let mut model = HashMap::new();
            for (act, key, word) in acts {
                match act {
                    0 | 1 => {
                        table.update(key, |_| Some([word, !word]));
                        model.insert(key, [word, !word]);
                    }
                    2 => assert_eq!(table.remove_if(key, |_| true), model.remove(&key).is_some()),
                    _ => assert!(!table.remove_if(key, |_| false)),
                }
                assert_eq!(table.get(key), model.get(&key).copied());
                assert_eq!(table.len(), model.len());
            }
            let mut seen = HashMap::new();
            table.for_each(|key, value| assert_eq!(seen.insert(key, value), None));
            assert_eq!(seen, model);
            table.retain(|key, _| key % 2 == 0);
            assert_eq!(table.len(), model.keys().filter(|key| **key % 2 == 0).count());
        }
    }

    #[test]
    fn reserved_keys_are_never_held() {
        let table = Table::<1>::default();
        for key in [FREE, REMOVED] {
            assert_eq!(table.update(key, |_| Some([1])), None);
            assert_eq!(table.get(key), None);
        }
    }

    #[test]
    fn readers_see_every_key_while_writers_grow_the_table() {
        let table = Table::<1>::default();
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for key in 1..100_000 {
                    table.update(key, |_| Some([key * 3]));
                    written.store(key, Ordering::Release);
                }
            });
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let at = written.load(Ordering::Acquire);
                    for key in (1..=at).rev().take(100) {
                        assert_eq!(table.get(key), Some([key * 3]));
                    }
                }
            });
        });
        assert_eq!(table.len(), 99_999);
    }
}
