//! The ranks of pairs.

use std::hint::select_unpredictable;

use super::NO_MERGE;

/// The rank of the merge of each pair of ids, in a table of one number a slot. Eight slots are a line of the
/// processor's cache; a pair that finds them taken is in those of the next line.
pub(super) struct PairTable {
    lines: Vec<Line>,
}

/// Left id, right id and rank, from the highest bits on.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

/// Bits of an id and of a rank.
pub(super) const BITS: u32 = 21;

impl PairTable {
    /// No pair: the two ids are not both the largest.
    const EMPTY: u64 = u64::MAX;
    /// More than two ids make, so in no slot.
    const NOWHERE: u64 = 1 << 63;

    pub(super) fn with_room(pairs: usize) -> Self {
        let lines = pairs.div_ceil(5).next_power_of_two();
        Self { lines: vec![Line([Self::EMPTY; 8]); lines] }
    }

    #[inline(always)]
    pub(super) fn get(&self, left: u32, right: u32) -> u32 {
        let (pair, mut at) = self.place(left, right);
        loop {
            for slot in self.lines[at].0 {
                if slot >> BITS == pair {
                    return slot as u32 & ((1 << BITS) - 1);
                }
                if slot == Self::EMPTY {
                    return NO_MERGE;
                }
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    /// [`PairTable::get`], all slots of a line at once, which compilers do with vectors. Unless `is_pair`, nothing is found, and no
    /// branch depends on that.
    #[inline(always)]
    pub(super) fn get_in_line(&self, left: u32, right: u32, is_pair: bool) -> u32 {
        /// Above what a slot holds.
        const FOUND: u64 = 1 << (3 * BITS);
        let (pair, mut at) = self.place(left, right);
        let pair = select_unpredictable(is_pair, pair, Self::NOWHERE);
        loop {
            let line = &self.lines[at].0;
            let slot = line
                .iter()
                .fold(0, |found, &slot| found | if slot >> BITS == pair { slot | FOUND } else { 0 });
            if (line[7] == Self::EMPTY) | (slot != 0) {
                return if slot != 0 { slot as u32 & ((1 << BITS) - 1) } else { NO_MERGE };
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    /// [`PairTable::get_in_line`]. Unless `is_pair`, nothing is found, and no branch depends on that.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,bmi1")]
    #[inline]
    pub(super) fn get_avx512(&self, left: u32, right: u32, is_pair: bool) -> u32 {
        use std::arch::x86_64::{
            _mm512_cmpeq_epi64_mask, _mm512_load_si512, _mm512_set1_epi64, _mm512_srli_epi64,
        };
        let (pair, mut at) = self.place(left, right);
        let pair = select_unpredictable(is_pair, pair, Self::NOWHERE);
        loop {
            let line = &self.lines[at];
            // SAFETY: the load is of the line's 64 bytes, which are aligned to as many.
            let slots = unsafe { _mm512_load_si512((&raw const *line).cast()) };
            let equal =
                _mm512_cmpeq_epi64_mask(_mm512_srli_epi64::<BITS>(slots), _mm512_set1_epi64(pair as i64));
            // Read whether it is there or not: which of the two it is cannot be guessed.
            let rank = line.0[equal.trailing_zeros() as usize % 8] as u32 & ((1 << BITS) - 1);
            let full = line.0[7] != Self::EMPTY;
            if !full | (equal != 0) {
                return if equal != 0 { rank } else { NO_MERGE };
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    pub(super) fn set(&mut self, left: u32, right: u32, rank: u32) {
        let (pair, mut at) = self.place(left, right);
        loop {
            let free =
                self.lines[at].0.iter_mut().find(|slot| **slot >> BITS == pair || **slot == Self::EMPTY);
            if let Some(slot) = free {
                *slot = pair << BITS | u64::from(rank);
                return;
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    #[inline(always)]
    fn place(&self, left: u32, right: u32) -> (u64, usize) {
        let pair = u64::from(left) << BITS | u64::from(right);
        let mixed = (pair ^ pair >> 17).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (pair, (mixed >> 40) as usize & (self.lines.len() - 1))
    }
}
