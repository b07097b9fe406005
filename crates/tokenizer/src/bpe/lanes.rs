//! Merging short words, several in turns: a step of one word is a chain of a hundred cycles, each of which waits for the one
//! before; meanwhile the steps of others are made.

#[cfg(target_arch = "x86_64")]
mod avx512;

use super::{Bpe, NO_MERGE, SHORT, pair_at};

/// Words that are merged in turns.
const LANES: usize = 3;
/// Bytes of a word that fits the smaller lanes, and the most that [`merge_together`] takes.
const WIDTH: usize = 16;

/// A word's bytes and what is behind them, one more than a lane has.
type Bytes = [u8; SHORT + 1];

/// A word while it is merged.
///
/// # Safety
/// Its functions may be called only where the processor has the instructions.
trait Lane: Sized {
    /// Takes a word: the first `length` of the bytes, which are one at least and no more than the lane holds.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn new(bpe: &Bpe, bytes: &Bytes, length: usize) -> Self;

    /// Merges the pair of the lowest rank, of several the leftmost; false when there is none.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn step(&mut self, bpe: &Bpe) -> bool;

    /// Appends the ids that are left.
    fn append(&self, ids: &mut Vec<u32>);
}

/// A lane for words of up to `MOST` bytes, 32 at most, on any processor.
struct Array<const MOST: usize> {
    ids: [u32; MOST],
    /// What `pair_at` says of the pair that begins at each place.
    pairs: [u32; MOST],
    /// A bit for each place that has an id.
    places: u32,
}

impl<const MOST: usize> Lane for Array<MOST> {
    #[inline(always)]
    unsafe fn new(bpe: &Bpe, bytes: &Bytes, length: usize) -> Self {
        let mut lane = Self { ids: [0; MOST], pairs: [NO_MERGE; MOST], places: !0 >> (32 - length) };
        for (id, &byte) in lane.ids.iter_mut().zip(bytes) {
            *id = bpe.byte_ids[usize::from(byte)];
        }
        for (at, pair) in lane.pairs.iter_mut().enumerate().take(length - 1) {
            *pair = pair_at(bpe.byte_pairs[usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])], at);
        }
        lane
    }

    #[inline(always)]
    unsafe fn step(&mut self, bpe: &Bpe) -> bool {
        let lowest = self.pairs.iter().fold(NO_MERGE, |lowest, &pair| lowest.min(pair));
        if lowest == NO_MERGE {
            return false;
        }
        let at = lowest as usize % 32 % MOST;
        let id = bpe.made[(lowest >> 5) as usize];
        self.ids[at] = id;
        let behind = self.places & !1 << at;
        let right = behind.trailing_zeros() as usize % MOST;
        self.places &= !(1 << right);
        self.pairs[right] = NO_MERGE;
        let behind = behind & behind.wrapping_sub(1);
        // Whether there is a neighbour cannot be guessed, so a pair is looked up in any case.
        let next = self.ids[behind.trailing_zeros() as usize % MOST];
        self.pairs[at] = pair_at(bpe.pairs.get_in_line(id, next, behind != 0), at);
        let before = self.places & !(!0 << at);
        let left = before.checked_ilog2().unwrap_or(0) as usize % MOST;
        let previous = pair_at(bpe.pairs.get_in_line(self.ids[left], id, before != 0), left);
        let left = if before == 0 { at } else { left };
        self.pairs[left] = if before == 0 { self.pairs[at] } else { previous };
        true
    }

    fn append(&self, ids: &mut Vec<u32>) {
        ids.extend((0..MOST).filter(|at| self.places >> at & 1 == 1).map(|at| self.ids[at]));
    }
}

/// Appends the ids of a word of at most [`SHORT`] bytes.
pub(super) fn merge(bpe: &Bpe, word: &[u8], ids: &mut Vec<u32>) {
    if word.is_empty() {
        return;
    }
    let mut bytes = [0; SHORT + 1];
    bytes[..word.len()].copy_from_slice(word);
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::available() {
            // SAFETY: the instructions are there, and the length is right.
            return unsafe { avx512::merge(bpe, &bytes, word.len(), ids) };
        }
        if has_avx2() {
            // SAFETY: as above.
            return unsafe { merge_avx2(bpe, &bytes, word.len(), ids) };
        }
    }
    // SAFETY: any processor has the instructions.
    unsafe { merge_by::<Array<WIDTH>, Array<SHORT>>(bpe, &bytes, word.len(), ids) };
}

/// Calls `each` with the number and the ids of each word, in any order. A word is the first bytes of 16, and how many they
/// are, one at least.
pub(super) fn merge_together(
    bpe: &Bpe,
    words: impl Iterator<Item = ([u8; WIDTH], usize)>,
    each: impl FnMut(usize, &[u32]),
) {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::available() {
            // SAFETY: the instructions are there.
            return unsafe { avx512::merge_together(bpe, words, each) };
        }
        if has_avx2() {
            // SAFETY: the instructions are there.
            return unsafe { merge_together_avx2(bpe, words, each) };
        }
    }
    // SAFETY: any processor has the instructions.
    unsafe { merge_together_by::<Array<WIDTH>>(bpe, words, each) };
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// # Safety
/// The length is that of a word: 1 to [`SHORT`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,lzcnt,popcnt")]
unsafe fn merge_avx2(bpe: &Bpe, bytes: &Bytes, length: usize, ids: &mut Vec<u32>) {
    // SAFETY: any processor has the instructions; these make it faster.
    unsafe { merge_by::<Array<WIDTH>, Array<SHORT>>(bpe, bytes, length, ids) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,lzcnt,popcnt")]
fn merge_together_avx2(
    bpe: &Bpe,
    words: impl Iterator<Item = ([u8; WIDTH], usize)>,
    each: impl FnMut(usize, &[u32]),
) {
    // SAFETY: any processor has the instructions; these make it faster.
    unsafe { merge_together_by::<Array<WIDTH>>(bpe, words, each) };
}

/// One word, in the lane that is wide enough.
///
/// # Safety
/// The processor has the instructions of both lanes. The length is that of a word: 1 to [`SHORT`].
#[inline(always)]
unsafe fn merge_by<Narrow: Lane, Wide: Lane>(bpe: &Bpe, bytes: &Bytes, length: usize, ids: &mut Vec<u32>) {
    // SAFETY: as the caller says.
    unsafe {
        if length <= WIDTH {
            let mut lane = Narrow::new(bpe, bytes, length);
            while lane.step(bpe) {}
            lane.append(ids);
        } else {
            let mut lane = Wide::new(bpe, bytes, length);
            while lane.step(bpe) {}
            lane.append(ids);
        }
    }
}

/// # Safety
/// The processor has the lane's instructions.
#[inline(always)]
unsafe fn merge_together_by<L: Lane>(
    bpe: &Bpe,
    words: impl Iterator<Item = ([u8; WIDTH], usize)>,
    mut each: impl FnMut(usize, &[u32]),
) {
    let mut words = words.enumerate();
    let mut ids = Vec::with_capacity(WIDTH);
    let mut lanes: [Option<(usize, L)>; LANES] = std::array::from_fn(|_| None);
    let mut busy = true;
    while std::mem::take(&mut busy) {
        for lane in &mut lanes {
            if let Some((number, now)) = lane {
                busy = true;
                // SAFETY: as the caller says.
                if unsafe { now.step(bpe) } {
                    continue;
                }
                ids.clear();
                now.append(&mut ids);
                each(*number, &ids);
            }
            *lane = None;
            for (number, (word, length)) in words.by_ref() {
                if let Some(id) = bpe.whole(&word[..length]) {
                    each(number, &[id]);
                    continue;
                }
                let mut bytes = [0; SHORT + 1];
                bytes[..WIDTH].copy_from_slice(&word);
                // SAFETY: as the caller says.
                *lane = Some((number, unsafe { L::new(bpe, &bytes, length) }));
                busy = true;
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{random_word, small};
    use super::*;
    use crate::sample_text::{Random, seed};

    #[test]
    fn every_set_of_instructions_makes_the_same_ids_of_words_of_every_length() {
        let mut random = Random(seed());
        for length in 1..=SHORT {
            let bpe = small(&mut random, false);
            for _ in 0..30 {
                let word = random_word(&mut random, length);
                let mut bytes = [0xFF; SHORT + 1];
                bytes[..length].copy_from_slice(&word);
                let (mut any, mut fastest) = (Vec::new(), Vec::new());
                // SAFETY: any processor has the instructions.
                unsafe { merge_by::<Array<WIDTH>, Array<SHORT>>(&bpe, &bytes, length, &mut any) };
                merge(&bpe, &word, &mut fastest);
                assert_eq!(any, fastest, "{word:?}");
                #[cfg(target_arch = "x86_64")]
                if has_avx2() {
                    let mut avx2 = Vec::new();
                    // SAFETY: the instructions are there.
                    unsafe { merge_avx2(&bpe, &bytes, length, &mut avx2) };
                    assert_eq!(avx2, any, "{word:?}");
                }
            }
        }
    }

    #[test]
    fn words_in_turns_have_the_ids_of_each_alone_by_every_set_of_instructions() {
        let mut random = Random(seed());
        for round in 0..40 {
            let bpe = small(&mut random, round % 2 == 1);
            let words: Vec<Vec<u8>> = (0..random.below(200))
                .map(|_| {
                    let length = 1 + random.below(15);
                    random_word(&mut random, length)
                })
                .collect();
            let alone = |word: &Vec<u8>| {
                let mut ids = Vec::new();
                match bpe.whole(word) {
                    Some(id) => ids.push(id),
                    None => merge(&bpe, word, &mut ids),
                }
                ids
            };
            let expected: Vec<Vec<u32>> = words.iter().map(alone).collect();
            let windows = || {
                words.iter().map(|word| {
                    let mut bytes = [0xFF; WIDTH];
                    bytes[..word.len()].copy_from_slice(word);
                    (bytes, word.len())
                })
            };
            let mut together = vec![Vec::new(); words.len()];
            merge_together(&bpe, windows(), |number, ids| together[number].extend_from_slice(ids));
            assert_eq!(together, expected);
            let mut together = vec![Vec::new(); words.len()];
            let each = |number: usize, ids: &[u32]| together[number].extend_from_slice(ids);
            // SAFETY: any processor has the instructions.
            unsafe { merge_together_by::<Array<WIDTH>>(&bpe, windows(), each) };
            assert_eq!(together, expected);
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                let mut together = vec![Vec::new(); words.len()];
                let each = |number: usize, ids: &[u32]| together[number].extend_from_slice(ids);
                // SAFETY: the instructions are there.
                unsafe { merge_together_avx2(&bpe, windows(), each) };
                assert_eq!(together, expected);
            }
        }
    }
}
