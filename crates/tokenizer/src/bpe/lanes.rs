//! Merging short words in registers of AVX-512, several words in turns.

use std::arch::x86_64::*;

use super::{Bpe, NO_MERGE, pair_at};

/// Words that are merged in turns. A step of one word is a chain of a hundred cycles, each of which waits for the one before;
/// meanwhile the steps of others are made.
const LANES: usize = 3;

/// Bytes of a register's words.
const WIDTH: usize = 16;

/// Whether the processor has the instructions.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// A word of up to 16 bytes for each register, while it is merged.
struct Lane<const REGISTERS: usize> {
    ids: [[u32; WIDTH]; REGISTERS],
    /// What `pair_at` says of the pair that begins at each place.
    pairs: [__m512i; REGISTERS],
    /// A bit for each place that has an id.
    places: u32,
    number: usize,
}

impl<const REGISTERS: usize> Lane<REGISTERS> {
    /// Takes a word: the first `length` of the bytes, which are one at least and no more than the registers hold.
    #[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
    #[inline]
    fn new(bpe: &Bpe, bytes: &[u8; 2 * WIDTH + 1], length: usize, number: usize) -> Self {
        let none = _mm512_set1_epi32(NO_MERGE as i32);
        let mut lane = Self {
            ids: [[0; WIDTH]; REGISTERS],
            pairs: [none; REGISTERS],
            places: !0 >> (32 - length),
            number,
        };
        let here = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        for register in 0..REGISTERS {
            let start = WIDTH * register;
            let bytes = bytes[start..].first_chunk::<{ WIDTH + 1 }>().expect("two registers at most");
            // SAFETY: both loads are of 16 of the 17 bytes.
            let (left, right) = unsafe {
                let left = _mm_loadu_si128(bytes.as_ptr().cast());
                let right = match REGISTERS {
                    1 => _mm_bsrli_si128::<1>(left),
                    _ => _mm_loadu_si128(bytes[1..].as_ptr().cast()),
                };
                (left, right)
            };
            let (left, right) = (_mm512_cvtepu8_epi32(left), _mm512_cvtepu8_epi32(right));
            let both = _mm512_or_si512(_mm512_slli_epi32::<8>(left), right);
            let has_right = (lane.places >> 1 >> start) as u16;
            // SAFETY: a byte is below 256, and two of them are below 65,536, as many numbers as the tables have; the store
            // is of the array's 16 numbers.
            let ranks = unsafe {
                let ids = _mm512_i32gather_epi32::<4>(left, bpe.byte_ids.as_ptr().cast());
                _mm512_storeu_si512(lane.ids[register].as_mut_ptr().cast(), ids);
                _mm512_mask_i32gather_epi32::<4>(none, has_right, both, bpe.byte_pairs.as_ptr().cast())
            };
            let merges = _mm512_cmpneq_epi32_mask(ranks, none);
            let here = _mm512_add_epi32(here, _mm512_set1_epi32(start as i32));
            lane.pairs[register] = _mm512_mask_or_epi32(none, merges, _mm512_slli_epi32::<5>(ranks), here);
        }
        lane
    }

    /// Merges the pair of the lowest rank, of several the leftmost; false when there is none.
    #[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
    #[inline]
    fn step(&mut self, bpe: &Bpe) -> bool {
        let lowest =
            self.pairs[1..].iter().fold(self.pairs[0], |lowest, &pairs| _mm512_min_epu32(lowest, pairs));
        let lowest = _mm512_reduce_min_epu32(lowest);
        if lowest == NO_MERGE {
            return false;
        }
        let mask = WIDTH * REGISTERS - 1;
        let ids = self.ids.as_flattened_mut();
        let at = lowest as usize & mask;
        let id = bpe.made[(lowest >> 5) as usize];
        ids[at] = id;
        let behind = self.places & !1 << at;
        let right = behind & behind.wrapping_neg();
        self.places &= !right;
        let behind = behind & !right;
        // Whether there is a neighbour cannot be guessed, so a pair is looked up in any case.
        let next = ids[behind.trailing_zeros() as usize & mask];
        let next = pair_at(bpe.pairs.get_avx512(id, next, behind != 0), at);
        let before = self.places & !(!0 << at);
        let left = before.checked_ilog2().unwrap_or(0) as usize & mask;
        let previous = pair_at(bpe.pairs.get_avx512(ids[left], id, before != 0), left);
        let left = before & 1 << left;
        for (register, pairs) in self.pairs.iter_mut().enumerate() {
            let part = |bits: u32| (bits >> (WIDTH * register)) as u16;
            *pairs = _mm512_mask_set1_epi32(*pairs, part(right), NO_MERGE as i32);
            *pairs = _mm512_mask_set1_epi32(*pairs, part(1 << at), next as i32);
            *pairs = _mm512_mask_set1_epi32(*pairs, part(left), previous as i32);
        }
        true
    }

    /// Appends the ids that are left.
    #[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
    #[inline]
    fn append(&self, ids: &mut Vec<u32>) {
        let mut places = self.places;
        while places != 0 {
            ids.push(self.ids.as_flattened()[places.trailing_zeros() as usize % (WIDTH * REGISTERS)]);
            places &= places - 1;
        }
    }
}

/// Appends the ids of a word, which has at most 16 bytes for each register.
#[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
pub(super) fn merge<const REGISTERS: usize>(bpe: &Bpe, word: &[u8], ids: &mut Vec<u32>) {
    if word.is_empty() {
        return;
    }
    let mut bytes = [0; 2 * WIDTH + 1];
    bytes[..word.len()].copy_from_slice(word);
    let mut lane = Lane::<REGISTERS>::new(bpe, &bytes, word.len(), 0);
    while lane.step(bpe) {}
    lane.append(ids);
}

/// Calls `each` with the number and the ids of each word, in any order. A word is the first bytes of 16, and how many they
/// are, one at least.
#[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
pub(super) fn merge_together(
    bpe: &Bpe,
    words: impl Iterator<Item = ([u8; WIDTH], usize)>,
    mut each: impl FnMut(usize, &[u32]),
) {
    let mut words = words.enumerate();
    let mut ids = Vec::with_capacity(WIDTH);
    let mut lanes: [Option<Lane<1>>; LANES] = std::array::from_fn(|_| None);
    let mut busy = true;
    while std::mem::take(&mut busy) {
        for lane in &mut lanes {
            if let Some(now) = lane {
                busy = true;
                if now.step(bpe) {
                    continue;
                }
                ids.clear();
                now.append(&mut ids);
                each(now.number, &ids);
            }
            *lane = None;
            for (number, (word, length)) in words.by_ref() {
                if let Some(id) = bpe.whole(&word[..length]) {
                    each(number, &[id]);
                    continue;
                }
                let mut bytes = [0; 2 * WIDTH + 1];
                bytes[..WIDTH].copy_from_slice(&word);
                *lane = Some(Lane::new(bpe, &bytes, length, number));
                busy = true;
                break;
            }
        }
    }
}
