//! Words of more bytes or of more ids than the table of short words takes.

use super::short::Place;
use crate::prefetch::prefetch;
use crate::word::hash_bytes;

/// Words longer than this are merged anew: they hardly ever come again.
const LONGEST: usize = 256;
const FIRST_SLOTS: usize = 1 << 10;

/// A table of hashes into one list of words and their ids. When its budget is spent it forgets everything and begins
/// again.
pub(crate) struct LongWords {
    slots: Vec<Slot>,
    used: usize,
    /// Of each word its bytes, filled up to whole numbers, and its ids.
    words: Vec<u32>,
    budget: usize,
}

/// A free slot has no ids.
#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u64,
    start: u32,
    bytes: u16,
    ids: u16,
}

impl LongWords {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::default(); FIRST_SLOTS], used: 0, words: Vec::new(), budget: 1 << 15 }
    }

    pub(super) fn allow(&mut self, budget: usize) {
        self.budget = self.budget.max(budget);
    }

    /// Where a word is if it is known; asks the processor for it.
    #[inline]
    pub(crate) fn place(&self, word: &[u8]) -> Place {
        let hash = hash_bytes(word);
        prefetch(&self.slots[hash as usize & (self.slots.len() - 1)]);
        Place(hash)
    }

    /// Asks the processor for the word that [`LongWords::take`] will compare with.
    #[inline]
    pub(crate) fn prefetch(&self, Place(hash): Place) {
        let slot = &self.slots[hash as usize & (self.slots.len() - 1)];
        if let Some(word) = self.words.get(slot.start as usize) {
            prefetch(word);
        }
    }

    /// Appends the ids of a word; false when it is not known.
    #[inline]
    pub(crate) fn take(&self, word: &[u8], Place(hash): Place, ids: &mut Vec<u32>) -> bool {
        let mut place = hash as usize & (self.slots.len() - 1);
        loop {
            let slot = &self.slots[place];
            if slot.ids == 0 {
                return false;
            }
            if slot.hash == hash && usize::from(slot.bytes) == word.len() {
                let start = slot.start as usize;
                let middle = start + word.len().div_ceil(4);
                if spells(&self.words[start..middle], word) {
                    ids.extend_from_slice(&self.words[middle..middle + usize::from(slot.ids)]);
                    return true;
                }
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    /// Remembers a word that is not known, unless it is a very long one.
    pub(crate) fn put(&mut self, word: &[u8], Place(hash): Place, ids: &[u32]) {
        if word.len() > LONGEST || ids.is_empty() {
            return;
        }
        if self.used * 2 >= self.slots.len() || (self.words.len() + LONGEST) * 4 > self.budget / 2 {
            self.make_room();
        }
        let slot =
            Slot { hash, start: self.words.len() as u32, bytes: word.len() as u16, ids: ids.len() as u16 };
        self.words.extend(word.chunks(4).map(number));
        self.words.extend_from_slice(ids);
        self.insert(slot);
        self.used += 1;
    }

    /// Doubles the slots while they take half of the budget at most; else forgets everything.
    #[cold]
    fn make_room(&mut self) {
        let doubled = self.slots.len() * 2;
        if self.used * 2 < self.slots.len() || doubled * size_of::<Slot>() > self.budget / 2 {
            self.slots.fill(Slot::default());
            self.words.clear();
            self.used = 0;
            return;
        }
        let slots = std::mem::replace(&mut self.slots, vec![Slot::default(); doubled]);
        for slot in slots.into_iter().filter(|slot| slot.ids > 0) {
            self.insert(slot);
        }
    }

    fn insert(&mut self, slot: Slot) {
        let mut place = slot.hash as usize & (self.slots.len() - 1);
        while self.slots[place].ids > 0 {
            place = (place + 1) & (self.slots.len() - 1);
        }
        self.slots[place] = slot;
    }
}

/// Up to four bytes as a number, zeros after them.
#[inline(always)]
fn number(bytes: &[u8]) -> u32 {
    let mut four = [0; 4];
    four[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(four)
}

#[inline(always)]
fn spells(numbers: &[u32], word: &[u8]) -> bool {
    let (whole, rest) = word.as_chunks::<4>();
    numbers.iter().zip(whole).all(|(&number, &four)| number == u32::from_le_bytes(four))
        && (rest.is_empty() || numbers[whole.len()] == number(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_were_put_while_the_budget_lasts_and_after() {
        let mut table = LongWords::new();
        table.allow(1 << 20);
        for number in 0u32..100_000 {
            let word = format!("a word that is longer than others, number {number}");
            let place = table.place(word.as_bytes());
            let ids: Vec<u32> = (0..number % 9 + 1).map(|i| number + i).collect();
            let mut found = Vec::new();
            assert!(!table.take(word.as_bytes(), place, &mut found));
            table.put(word.as_bytes(), place, &ids);
            assert!(table.take(word.as_bytes(), place, &mut found));
            assert_eq!(found, ids);
        }
        assert!(table.words.len() * 4 + table.slots.len() * size_of::<Slot>() <= 1 << 20);
        let very_long = [b'x'; LONGEST + 1];
        table.put(&very_long, table.place(&very_long), &[1]);
        assert!(!table.take(&very_long, table.place(&very_long), &mut Vec::new()));
    }

    #[test]
    fn a_word_is_told_from_another_of_the_same_hash() {
        let mut table = LongWords::new();
        table.put(b"one word", Place(5), &[1]);
        table.put(b"two word", Place(5), &[2]);
        let mut found = Vec::new();
        assert!(
            table.take(b"two word", Place(5), &mut found) && table.take(b"one word", Place(5), &mut found)
        );
        assert_eq!(found, [2, 1]);
        assert!(
            !table.take(b"six word", Place(5), &mut found) && !table.take(b"one wor", Place(5), &mut found)
        );
    }
}
