//! The counts of pairs of ids.

use crate::prefetch::prefetch;

/// Two ids as one key; keys order as (left, right) does.
pub(super) fn pair_key(left: u32, right: u32) -> u64 {
    (u64::from(left) << 32) | u64::from(right)
}

/// No two ids are this.
const EMPTY: u64 = u64::MAX;

/// How often each pair occurs, in 64 bits: open addressing, at most five slots of eight in use.
pub(super) struct PairCounts {
    slots: Vec<(u64, i64)>,
    used: usize,
}

impl Default for PairCounts {
    fn default() -> Self {
        Self { slots: vec![(EMPTY, 0); 1 << 12], used: 0 }
    }
}

impl PairCounts {
    /// Adds each change. Slots are asked for in groups before any is needed, so that the waits for memory overlap.
    pub(super) fn add(&mut self, changes: &[(u64, i64)]) {
        for group in changes.chunks(32) {
            if (self.used + group.len()) * 8 >= self.slots.len() * 5 {
                self.grow();
            }
            for (pair, _) in group {
                prefetch(&self.slots[self.start(*pair)]);
            }
            for &(pair, change) in group {
                let at = self.find(pair);
                let slot = &mut self.slots[at];
                if slot.0 == EMPTY {
                    *slot = (pair, 0);
                    self.used += 1;
                }
                slot.1 += change;
            }
        }
    }

    pub(super) fn get(&self, pair: u64) -> i64 {
        match self.slots[self.find(pair)] {
            (EMPTY, _) => 0,
            (_, count) => count,
        }
    }

    /// Bytes of memory that the counts hold.
    pub(super) fn held(&self) -> usize {
        self.slots.capacity() * size_of::<(u64, i64)>()
    }

    #[inline(always)]
    fn start(&self, pair: u64) -> usize {
        let mixed = pair.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) as usize
            >> (64 - self.slots.len().trailing_zeros())
    }

    /// The slot of a pair, or the empty one where it would be.
    #[inline(always)]
    fn find(&self, pair: u64) -> usize {
        let mut at = self.start(pair);
        while self.slots[at].0 != pair && self.slots[at].0 != EMPTY {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        let old = std::mem::replace(&mut self.slots, vec![(EMPTY, 0); slots]);
        for slot in old.into_iter().filter(|slot| slot.0 != EMPTY) {
            let at = self.find(slot.0);
            self.slots[at] = slot;
        }
    }
}
