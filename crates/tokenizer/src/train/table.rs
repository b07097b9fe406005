//! Tables of words and their counts.

use crate::prefetch::prefetch;
use crate::word::{FoldHasher, mix, unpack};
use std::hash::Hasher;

/// A packed word (as two halves; zeros: an empty slot) and its count.
#[derive(Clone, Copy, Default)]
struct Short {
    low: u64,
    high: u64,
    count: u64,
}

/// A word whose bytes lie in the table's `bytes`, and its count; a count of zero is an empty slot.
#[derive(Clone, Copy, Default)]
struct Long {
    hash: u64,
    start: u64,
    length: u32,
    count: u64,
}

/// Slots of a table that holds something.
const LEAST_SLOTS: usize = 256;

/// Counts of distinct words: open addressing, at most five slots of eight in use.
#[derive(Default)]
pub(super) struct Table {
    short: Vec<Short>,
    short_used: usize,
    long: Vec<Long>,
    long_used: usize,
    bytes: Vec<u8>,
}

/// The hash of a packed word; tables and shards take different bits of it.
#[inline(always)]
pub(super) fn hash_short(word: u128) -> u64 {
    mix(word)
}

/// The hash of a word that does not pack.
#[inline(always)]
pub(super) fn hash_long(word: &[u8]) -> u64 {
    let mut hasher = FoldHasher::default();
    hasher.write(word);
    hasher.finish()
}

/// Whether `used` of `slots` are too many.
fn is_full(used: usize, slots: usize) -> bool {
    used * 8 >= slots * 5
}

impl Table {
    /// Adds counts to packed words. They are looked up in groups: a group's slots are asked for before any is needed,
    /// so that the waits for memory overlap.
    pub(super) fn add_short(&mut self, words: &[(u128, u64)]) {
        let mut hashes = [0; 32];
        for group in words.chunks(hashes.len()) {
            while is_full(self.short_used + group.len(), self.short.len()) {
                self.grow_short();
            }
            let mask = self.short.len() - 1;
            for (hash, (word, _)) in hashes.iter_mut().zip(group) {
                *hash = hash_short(*word) as usize & mask;
                prefetch(&self.short[*hash]);
            }
            for (&hash, &(word, count)) in hashes.iter().zip(group) {
                let (low, high) = (word as u64, (word >> 64) as u64);
                let mut at = hash;
                let slot = loop {
                    let slot = &mut self.short[at];
                    if slot.high == high && slot.low == low {
                        break slot;
                    }
                    if slot.high == 0 {
                        *slot = Short { low, high, count: 0 };
                        self.short_used += 1;
                        break slot;
                    }
                    at = (at + 1) & mask;
                };
                slot.count = slot.count.saturating_add(count);
            }
        }
    }

    /// Adds to the count of a word that does not pack.
    pub(super) fn add_long(&mut self, hash: u64, word: &[u8], count: u64) {
        if is_full(self.long_used + 1, self.long.len()) {
            self.grow_long();
        }
        let mask = self.long.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = &mut self.long[at];
            if slot.count == 0 {
                let (start, length) = (self.bytes.len() as u64, word.len() as u32);
                *slot = Long { hash, start, length, count };
                self.bytes.extend_from_slice(word);
                self.long_used += 1;
                return;
            }
            if slot.hash == hash && slot.word(&self.bytes) == word {
                slot.count = slot.count.saturating_add(count);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Calls `word` with every word and its count, in no order that means anything.
    pub(super) fn for_each(&self, mut word: impl FnMut(&[u8], u64)) {
        let mut bytes = Vec::new();
        for slot in self.short.iter().filter(|slot| slot.high != 0) {
            bytes.clear();
            unpack(slot.packed(), &mut bytes);
            word(&bytes, slot.count);
        }
        for slot in self.long.iter().filter(|slot| slot.count != 0) {
            word(slot.word(&self.bytes), slot.count);
        }
    }

    /// A copy of the words and counts, to be read in ascending order.
    pub(super) fn sorted(&self) -> SortedTable {
        let mut short: Vec<Short> = self.short.iter().filter(|slot| slot.high != 0).copied().collect();
        short.sort_unstable_by_key(|slot| (slot.low.swap_bytes(), slot.high.swap_bytes()));
        let mut long: Vec<Long> = self.long.iter().filter(|slot| slot.count != 0).copied().collect();
        long.sort_unstable_by(|a, b| a.word(&self.bytes).cmp(b.word(&self.bytes)));
        SortedTable { short: short.into_iter(), long: long.into_iter().peekable(), bytes: self.bytes.clone() }
    }

    /// Bytes of memory that the table holds.
    pub(super) fn held(&self) -> usize {
        self.short.capacity() * size_of::<Short>()
            + self.long.capacity() * size_of::<Long>()
            + self.bytes.capacity()
    }

    fn grow_short(&mut self) {
        let slots = (self.short.len() * 2).max(LEAST_SLOTS);
        let old = std::mem::replace(&mut self.short, vec![Short::default(); slots]);
        for slot in old.into_iter().filter(|slot| slot.high != 0) {
            let mut at = hash_short(slot.packed()) as usize & (slots - 1);
            while self.short[at].high != 0 {
                at = (at + 1) & (slots - 1);
            }
            self.short[at] = slot;
        }
    }

    fn grow_long(&mut self) {
        let slots = (self.long.len() * 2).max(LEAST_SLOTS);
        let old = std::mem::replace(&mut self.long, vec![Long::default(); slots]);
        for slot in old.into_iter().filter(|slot| slot.count != 0) {
            let mut at = slot.hash as usize & (slots - 1);
            while self.long[at].count != 0 {
                at = (at + 1) & (slots - 1);
            }
            self.long[at] = slot;
        }
    }
}

/// The words of a table in ascending order.
pub(super) struct SortedTable {
    short: std::vec::IntoIter<Short>,
    long: std::iter::Peekable<std::vec::IntoIter<Long>>,
    bytes: Vec<u8>,
}

impl SortedTable {
    pub(super) fn is_empty(&self) -> bool {
        self.short.len() == 0 && self.long.len() == 0
    }

    /// Puts the next word into `word` and returns its count; none at the end.
    pub(super) fn next(&mut self, word: &mut Vec<u8>) -> Option<u64> {
        word.clear();
        let short = self.short.as_slice().first().copied();
        if let Some(short) = short {
            unpack(short.packed(), word);
        }
        if let Some(long) =
            self.long.next_if(|long| short.is_none() || long.word(&self.bytes) < word.as_slice())
        {
            word.clear();
            word.extend_from_slice(long.word(&self.bytes));
            return Some(long.count);
        }
        self.short.next().map(|short| short.count)
    }
}

impl Short {
    fn packed(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

impl Long {
    fn word<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..self.start as usize + self.length as usize]
    }
}
