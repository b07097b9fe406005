//! Lanes in registers of AVX-512.

use std::arch::x86_64::*;

use super::{Bytes, Lane, WIDTH, merge_by, merge_together_by};
use crate::bpe::{Bpe, NO_MERGE, pair_at};

/// Whether the processor has the instructions.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// [`super::merge_by`].
///
/// # Safety
/// The length is that of a word: 1 to 32.
#[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
pub(super) unsafe fn merge(bpe: &Bpe, bytes: &Bytes, length: usize, ids: &mut Vec<u32>) {
    // SAFETY: the instructions are there, and the length is as the caller says.
    unsafe { merge_by::<Registers<1>, Registers<2>>(bpe, bytes, length, ids) };
}

/// [`super::merge_together`].
#[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
pub(super) fn merge_together(
    bpe: &Bpe,
    words: impl Iterator<Item = ([u8; WIDTH], usize)>,
    each: impl FnMut(usize, &[u32]),
) {
    // SAFETY: the instructions are there.
    unsafe { merge_together_by::<Registers<1>>(bpe, words, each) };
}

/// A word of up to 16 bytes for each register, of which there are one or two.
struct Registers<const COUNT: usize> {
    ids: [[u32; WIDTH]; COUNT],
    /// What `pair_at` says of the pair that begins at each place.
    pairs: [__m512i; COUNT],
    /// A bit for each place that has an id.
    places: u32,
}

impl<const COUNT: usize> Lane for Registers<COUNT> {
    #[inline(always)]
    unsafe fn new(bpe: &Bpe, bytes: &Bytes, length: usize) -> Self {
        // SAFETY: the caller says that the instructions are there.
        unsafe { Self::take(bpe, bytes, length) }
    }

    #[inline(always)]
    unsafe fn step(&mut self, bpe: &Bpe) -> bool {
        // SAFETY: the caller says that the instructions are there, which is all that they ask for.
        unsafe {
            let mut lowest = self.pairs[0];
            for &pairs in &self.pairs[1..] {
                lowest = _mm512_min_epu32(lowest, pairs);
            }
            let lowest = _mm512_reduce_min_epu32(lowest);
            if lowest == NO_MERGE {
                return false;
            }
            let mask = WIDTH * COUNT - 1;
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
    }

    fn append(&self, ids: &mut Vec<u32>) {
        let mut places = self.places;
        while places != 0 {
            ids.push(self.ids.as_flattened()[places.trailing_zeros() as usize % (WIDTH * COUNT)]);
            places &= places - 1;
        }
    }
}

impl<const COUNT: usize> Registers<COUNT> {
    #[target_feature(enable = "avx512f,bmi1,lzcnt,popcnt")]
    #[inline]
    fn take(bpe: &Bpe, bytes: &Bytes, length: usize) -> Self {
        let none = _mm512_set1_epi32(NO_MERGE as i32);
        let mut lane = Self { ids: [[0; WIDTH]; COUNT], pairs: [none; COUNT], places: !0 >> (32 - length) };
        let here = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        for register in 0..COUNT {
            let start = WIDTH * register;
            let bytes = bytes[start..].first_chunk::<{ WIDTH + 1 }>().expect("two registers at most");
            // SAFETY: both loads are of 16 of the 17 bytes.
            let (left, right) = unsafe {
                let left = _mm_loadu_si128(bytes.as_ptr().cast());
                let right = match COUNT {
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
}
