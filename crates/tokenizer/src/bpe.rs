//! Merging: from the bytes of a word to ids, lowest rank first, then leftmost.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use self::pairs::{BITS, PairTable};
use crate::word::BuildFoldHasher;

mod lanes;
mod pairs;

/// Words up to this many bytes search for the lowest rank anew each time; longer ones keep their pairs in order.
const SHORT: usize = 32;
/// Words up to this many bytes keep them in a heap, which stays in the processor's cache.
const MEDIUM: usize = 1 << 14;
/// Bytes of the parts that longer words are merged in, and tokens that two parts may share.
const WINDOW: usize = 1 << 13;
const SHARED: usize = 64;
/// No pair, no neighbour.
const NONE: u32 = u32::MAX;
/// The rank of a pair that does not merge; larger than any other.
const NO_MERGE: u32 = u32::MAX;

/// The merges of a byte-level vocabulary.
pub(crate) struct Bpe {
    byte_ids: [u32; 256],
    /// Rank of the merge of each two bytes, the left one in the upper half.
    byte_pairs: Box<[u32]>,
    pairs: PairTable,
    /// The id that the merge of each rank makes.
    made: Vec<u32>,
    /// Bytes of each token that bytes or merges make.
    lengths: Vec<u32>,
    /// Every merge's parts are made by earlier merges only, so merging never uncovers a pair of lower rank.
    ordered: bool,
    /// With `ignore_merges`, a word that is a token is that token.
    whole: Option<HashMap<Box<[u8]>, u32, BuildFoldHasher>>,
}

/// Buffers for one word, kept from word to word.
#[derive(Default)]
pub(crate) struct Workspace {
    /// The ids of the last word.
    pub(crate) ids: Vec<u32>,
    chain: Chain,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Bpe {
    /// Ids and merges are fewer than this.
    pub(crate) const LIMIT: usize = (1 << BITS) - 1;

    /// `merges` by rank as (left id, right id, merged id); of a pair named twice the later rank counts.
    pub(crate) fn new(
        byte_ids: [u32; 256],
        merges: &[(u32, u32, u32)],
        whole: Option<HashMap<Box<[u8]>, u32, BuildFoldHasher>>,
    ) -> Self {
        let mut last_made: HashMap<u32, usize, BuildFoldHasher> = HashMap::default();
        let mut pairs = PairTable::with_room(merges.len());
        for (rank, &(left, right, id)) in merges.iter().enumerate() {
            pairs.set(left, right, rank as u32);
            last_made.insert(id, rank);
        }
        let made_before = |part: u32, rank: usize| last_made.get(&part).is_none_or(|&made| made < rank);
        let ordered = merges
            .iter()
            .enumerate()
            .all(|(rank, &(left, right, _))| made_before(left, rank) && made_before(right, rank));
        let byte_pairs =
            (0..1usize << 16).map(|bytes| pairs.get(byte_ids[bytes >> 8], byte_ids[bytes & 0xFF]));
        let byte_pairs = byte_pairs.collect();
        let made: Vec<u32> = merges.iter().map(|&(_, _, id)| id).collect();
        let ids = byte_ids.iter().chain(&made);
        let mut lengths = vec![1u32; ids.max().map_or(0, |&id| id as usize + 1)];
        for &(left, right, id) in merges {
            let of = |id: u32| lengths.get(id as usize).copied().unwrap_or(1);
            lengths[id as usize] = of(left).saturating_add(of(right));
        }
        Self { byte_ids, byte_pairs, pairs, made, lengths, ordered, whole }
    }

    /// Whether a word that is a token may be another token than its merges make.
    pub(crate) fn ignores_merges(&self) -> bool {
        self.whole.is_some()
    }

    /// The token that `word` is without merging.
    fn whole(&self, word: &[u8]) -> Option<u32> {
        self.whole.as_ref()?.get(word).copied()
    }

    /// Leaves the ids of `word` in `work.ids`.
    pub(crate) fn encode_word(&self, word: &[u8], work: &mut Workspace) {
        work.ids.clear();
        if let Some(id) = self.whole(word) {
            work.ids.push(id);
            return;
        }
        if word.len() <= SHORT {
            lanes::merge(self, word, &mut work.ids);
        } else {
            let bytes = |word: &[u8], ids: &mut Vec<u32>| {
                ids.clear();
                ids.extend(word.iter().map(|&byte| self.byte_ids[usize::from(byte)]));
            };
            if word.len() <= MEDIUM || !self.ordered {
                bytes(word, &mut work.ids);
                self.merge_by_heap(work);
            } else if !self.merge_in_windows(word, work) {
                bytes(word, &mut work.ids);
                self.merge_by_rank(work);
            }
        }
    }

    /// Calls `each` with the number and the ids of each of `words`, in any order. A word is the first bytes of 16, at most 15,
    /// and how many they are, one at least.
    pub(crate) fn encode_words(
        &self,
        words: impl Iterator<Item = ([u8; 16], usize)>,
        each: impl FnMut(usize, &[u32]),
    ) {
        lanes::merge_together(self, words, each);
    }

    /// For ordered merges and very long words: the word in windows, each of which begins at a token near the end of
    /// the one before. False where two windows never agree on a token.
    ///
    /// Where both have one token at one place, what the first has before it and what the second has after it are
    /// the ids of the whole: ids are those of the merges if and only if each two neighbours, merged by themselves,
    /// stay these two (van Antwerpen and Neubeck, "So many tokens, so little time", 2024), and here each two stand
    /// side by side in one of the windows.
    fn merge_in_windows(&self, word: &[u8], work: &mut Workspace) -> bool {
        let mut done: Vec<u32> = Vec::new();
        let mut start = 0;
        loop {
            let window = &word[start..word.len().min(start + WINDOW)];
            work.ids.clear();
            work.ids.extend(window.iter().map(|&byte| self.byte_ids[usize::from(byte)]));
            self.merge_by_heap(work);
            if start > 0 {
                let mut kept = done.len() - SHARED;
                let (mut old, mut new, mut from) = (start, start, 0);
                // What was done before and what the window makes of the same bytes, token by token.
                while old != new || done[kept] != work.ids[from] {
                    if old <= new {
                        old += self.length(done[kept]);
                        kept += 1;
                    } else {
                        new += self.length(work.ids[from]);
                        from += 1;
                    }
                    if kept == done.len() || from == work.ids.len() {
                        return false;
                    }
                }
                done.truncate(kept);
                done.extend_from_slice(&work.ids[from..]);
            } else {
                done.extend_from_slice(&work.ids);
            }
            let end = start + window.len();
            if end == word.len() {
                break;
            }
            let Some(shared) = done.len().checked_sub(SHARED) else { return false };
            let next = end - done[shared..].iter().map(|&id| self.length(id)).sum::<usize>();
            if next <= start {
                return false;
            }
            start = next;
        }
        work.ids = done;
        true
    }

    /// Bytes of a token.
    fn length(&self, id: u32) -> usize {
        self.lengths[id as usize] as usize
    }

    /// For ordered merges: all places of the lowest rank at once, from left to right. A pair that this uncovers has
    /// a higher rank, so no place is visited before its time; each costs its share of one sort.
    fn merge_by_rank(&self, work: &mut Workspace) {
        let Workspace { ids, chain, .. } = work;
        chain.link(ids);
        let mut places = PlacesByRank::default();
        for (at, pair) in (0..).zip(ids.windows(2)) {
            places.note(self.pairs.get(pair[0], pair[1]), at);
        }
        while let Some((rank, now)) = places.take_lowest() {
            for at in now {
                if let Some((before, pair_before, pair_after)) = self.merge(chain, at, rank) {
                    places.note(pair_before, before);
                    places.note(pair_after, at);
                }
            }
        }
        chain.unlink(ids);
    }

    /// For merges in any order: a heap of (rank, place); n log n.
    fn merge_by_heap(&self, work: &mut Workspace) {
        let Workspace { ids, chain, heap, .. } = work;
        chain.link(ids);
        let entry = |rank: u32, at: u32| (rank != NO_MERGE).then_some(Reverse((rank, at)));
        heap.extend(
            (0..).zip(ids.windows(2)).filter_map(|(at, pair)| entry(self.pairs.get(pair[0], pair[1]), at)),
        );
        while let Some(Reverse((rank, at))) = heap.pop() {
            if let Some((before, pair_before, pair_after)) = self.merge(chain, at, rank) {
                heap.extend(entry(pair_before, before));
                heap.extend(entry(pair_after, at));
            }
        }
        if heap.capacity() > 1 << 20 {
            *heap = BinaryHeap::new();
        }
        chain.unlink(ids);
    }

    /// Merges the pair at `at` if it still has `rank`; returns the place before it, and the ranks of the new pairs
    /// there and at `at`.
    fn merge(&self, chain: &mut Chain, at: u32, rank: u32) -> Option<(u32, u32, u32)> {
        let nodes = &mut chain.nodes;
        let here = nodes[at as usize];
        if here.id == NONE || here.next == NONE {
            return None;
        }
        let next = nodes[here.next as usize];
        if self.pairs.get(here.id, next.id) != rank {
            return None;
        }
        let id = self.made[rank as usize];
        nodes[at as usize] = Node { id, next: next.next, ..here };
        nodes[here.next as usize].id = NONE;
        let mut pair_after = NO_MERGE;
        if next.next != NONE {
            let after = &mut nodes[next.next as usize];
            after.previous = at;
            pair_after = self.pairs.get(id, after.id);
        }
        let before = nodes.get(here.previous as usize);
        let pair_before = before.map_or(NO_MERGE, |before| self.pairs.get(before.id, id));
        Some((here.previous, pair_before, pair_after))
    }
}

/// The rank of a pair, then its place: of two with one rank the lower is the leftmost.
#[inline(always)]
fn pair_at(rank: u32, at: usize) -> u32 {
    if rank == NO_MERGE { NO_MERGE } else { rank << 5 | at as u32 }
}

/// A long word's ids as a doubly linked list, so that a merge costs the same wherever it is.
#[derive(Default)]
struct Chain {
    nodes: Vec<Node>,
}

/// An id and the places of its neighbours; the id is `NONE` once it was merged away.
#[derive(Clone, Copy)]
struct Node {
    id: u32,
    previous: u32,
    next: u32,
}

impl Chain {
    fn link(&mut self, ids: &[u32]) {
        self.nodes.clear();
        self.nodes.extend((0u32..).zip(ids).map(|(at, &id)| Node {
            id,
            previous: at.wrapping_sub(1),
            next: at + 1,
        }));
        if let Some(last) = self.nodes.last_mut() {
            last.next = NONE;
        }
    }

    /// Leaves what is left in `ids`, and gives back a very long word's memory.
    fn unlink(&mut self, ids: &mut Vec<u32>) {
        ids.clear();
        ids.extend(self.nodes.iter().map(|node| node.id).filter(|&id| id != NONE));
        if self.nodes.capacity() > 1 << 20 {
            self.nodes = Vec::new();
        }
    }
}

/// The places of pairs, by the rank of their merge.
#[derive(Default)]
struct PlacesByRank {
    places: HashMap<u32, Vec<u32>, BuildFoldHasher>,
    ranks: BinaryHeap<Reverse<u32>>,
}

impl PlacesByRank {
    fn note(&mut self, rank: u32, at: u32) {
        if rank == NO_MERGE {
            return;
        }
        let places = self.places.entry(rank).or_default();
        if places.is_empty() {
            self.ranks.push(Reverse(rank));
        }
        places.push(at);
    }

    /// The lowest rank, and its places from left to right.
    fn take_lowest(&mut self) -> Option<(u32, Vec<u32>)> {
        let Reverse(rank) = self.ranks.pop()?;
        let mut places = self.places.remove(&rank)?;
        places.sort_unstable();
        Some((rank, places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_text::Random;

    /// Merges of few letters, so that words are full of pairs that merge; with `whole`, two words are tokens without merging.
    pub(super) fn small(random: &mut Random, whole: bool) -> Bpe {
        let byte_ids = std::array::from_fn(|byte| byte as u32);
        let mut merges = Vec::new();
        for id in 256..600 {
            let mut part = || match random.below(3) {
                0 => u32::from(b'a') + random.below(4) as u32,
                _ if id > 256 => 256 + random.below(id as usize - 256) as u32,
                _ => u32::from(b'b'),
            };
            merges.push((part(), part(), id));
        }
        let words = || HashMap::from_iter([(b"abc".as_slice().into(), 256), (b"dd".as_slice().into(), 300)]);
        Bpe::new(byte_ids, &merges, whole.then(words))
    }

    pub(super) fn random_word(random: &mut Random, length: usize) -> Vec<u8> {
        (0..length).map(|_| b'a' + random.below(4) as u8).collect()
    }
}
