//! The ids of words seen before, within a budget of bytes.

use std::collections::HashMap;

use crate::word::{BuildFoldHasher, mix};

/// Bytes that one cache may hold.
const BUDGET: usize = 12 << 20;
/// Slots of the table of short words, at first and at most (32 bytes each; two thirds are used at most).
const FIRST_SLOTS: usize = 1 << 12;
const MOST_SLOTS: usize = 1 << 18;
/// Words longer than this are merged anew: they hardly ever come again.
const LONGEST: usize = 256;

/// Remembers what words encode to. When the budget is spent it forgets everything and begins again.
pub(crate) struct WordCache {
    slots: Vec<Slot>,
    used: usize,
    /// Ids of short words that have more than a slot holds.
    overflow: Vec<u32>,
    long: HashMap<Box<[u8]>, Box<[u32]>, BuildFoldHasher>,
    long_bytes: usize,
}

/// A packed word, never zero, and its ids: up to three here, or the start of `count` ids in `overflow`.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Slot {
    word: u128,
    ids: [u32; 3],
    count: u32,
}

const FREE: Slot = Slot { word: 0, ids: [0; 3], count: 0 };

impl WordCache {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![FREE; FIRST_SLOTS],
            used: 0,
            overflow: Vec::new(),
            long: HashMap::default(),
            long_bytes: 0,
        }
    }

    /// Appends the ids of a packed word; false when it is not known.
    #[inline(always)]
    pub(crate) fn take_short(&self, word: u128, ids: &mut Vec<u32>) -> bool {
        let slot = &self.slots[self.place(word)];
        if slot.word != word {
            return false;
        }
        match slot.count {
            1 => ids.push(slot.ids[0]),
            2 => ids.extend_from_slice(&slot.ids[..2]),
            3 => ids.extend_from_slice(&slot.ids),
            count => {
                let start = slot.ids[0] as usize;
                ids.extend_from_slice(&self.overflow[start..start + count as usize]);
            }
        }
        true
    }

    /// Remembers a packed word that is not known.
    pub(crate) fn put_short(&mut self, word: u128, ids: &[u32]) {
        if self.used * 3 >= self.slots.len() * 2 || self.overflow.len() * 4 > BUDGET / 4 {
            self.make_room();
        }
        let mut slot = Slot { word, ids: [0; 3], count: ids.len() as u32 };
        if ids.len() <= slot.ids.len() {
            slot.ids[..ids.len()].copy_from_slice(ids);
        } else {
            slot.ids[0] = self.overflow.len() as u32;
            self.overflow.extend_from_slice(ids);
        }
        let at = self.place(word);
        self.slots[at] = slot;
        self.used += 1;
    }

    /// Appends the ids of a word that does not pack; false when it is not known.
    pub(crate) fn take_long(&self, word: &[u8], ids: &mut Vec<u32>) -> bool {
        let known = if word.len() <= LONGEST { self.long.get(word) } else { None };
        known.is_some_and(|known| {
            ids.extend_from_slice(known);
            true
        })
    }

    /// Remembers a word that does not pack.
    pub(crate) fn put_long(&mut self, word: &[u8], ids: &[u32]) {
        if word.len() > LONGEST {
            return;
        }
        // Two boxes and their places in the table.
        self.long_bytes += word.len() + 4 * ids.len() + 64;
        if self.long_bytes > BUDGET / 4 {
            self.long.clear();
            self.long_bytes = 0;
        }
        self.long.insert(word.into(), ids.into());
    }

    /// Where `word` is, or the free slot where it belongs.
    #[inline(always)]
    fn place(&self, word: u128) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = mix(word) as usize & mask;
        while self.slots[at].word != word && self.slots[at].word != 0 {
            at = (at + 1) & mask;
        }
        at
    }

    #[cold]
    fn make_room(&mut self) {
        let known = std::mem::take(&mut self.slots);
        if known.len() >= MOST_SLOTS || self.overflow.len() * 4 > BUDGET / 4 {
            self.slots = known;
            self.slots.fill(FREE);
            self.overflow.clear();
            self.used = 0;
            return;
        }
        self.slots = vec![FREE; (known.len() * 4).min(MOST_SLOTS)];
        for slot in known.into_iter().filter(|slot| slot.word != 0) {
            let at = self.place(slot.word);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::pack;

    #[test]
    fn words_come_back_as_they_were_put_while_the_budget_lasts_and_after() {
        let mut cache = WordCache::new();
        for number in 0u32..400_000 {
            let word = format!("w{number}");
            let packed = pack(word.as_bytes(), 0..word.len()).unwrap();
            let ids: Vec<u32> = (0..number % 6 + 1).map(|i| number + i).collect();
            let mut found = Vec::new();
            assert!(!cache.take_short(packed, &mut found));
            cache.put_short(packed, &ids);
            assert!(cache.take_short(packed, &mut found));
            assert_eq!(found, ids);

            let long = format!("a word that does not pack, number {number}");
            cache.put_long(long.as_bytes(), &ids);
            found.clear();
            assert!(cache.take_long(long.as_bytes(), &mut found));
            assert_eq!(found, ids);
        }
        assert!(cache.slots.len() <= MOST_SLOTS && cache.long_bytes <= BUDGET / 4);
        assert!(!cache.take_long(&[b'x'; 40], &mut Vec::new()));
    }
}
