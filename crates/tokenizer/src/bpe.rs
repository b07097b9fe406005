//! Merging: from the bytes of a word to ids, lowest rank first, then leftmost.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::word::BuildFoldHasher;

/// Words up to this many bytes search for the lowest rank anew each time; longer ones keep their pairs in order.
const SHORT: usize = 48;
/// Words up to this many bytes keep them in a heap, which stays in the processor's cache.
const MEDIUM: usize = 1 << 14;
/// No pair, no neighbour.
const NONE: u32 = u32::MAX;
/// What [`PairTable::get`] gives for a pair that does not merge; larger than any merge.
const NO_MERGE: u64 = u64::MAX;

/// The merges of a byte-level vocabulary.
pub(crate) struct Bpe {
    byte_ids: [u32; 256],
    pairs: PairTable,
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
    pairs: Vec<u64>,
    chain: Chain,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Bpe {
    /// `merges` by rank as (left id, right id, merged id); of a pair named twice the later rank counts.
    pub(crate) fn new(
        byte_ids: [u32; 256],
        merges: &[(u32, u32, u32)],
        whole: Option<HashMap<Box<[u8]>, u32, BuildFoldHasher>>,
    ) -> Self {
        let mut last_made: HashMap<u32, usize, BuildFoldHasher> = HashMap::default();
        let mut pairs = PairTable::with_room(merges.len());
        for (rank, &(left, right, id)) in merges.iter().enumerate() {
            pairs.set(left, right, (rank as u64) << 32 | u64::from(id));
            last_made.insert(id, rank);
        }
        let made_before = |part: u32, rank: usize| last_made.get(&part).is_none_or(|&made| made < rank);
        let ordered = merges
            .iter()
            .enumerate()
            .all(|(rank, &(left, right, _))| made_before(left, rank) && made_before(right, rank));
        Self { byte_ids, pairs, ordered, whole }
    }

    /// Leaves the ids of `word` in `work.ids`.
    pub(crate) fn encode_word(&self, word: &[u8], work: &mut Workspace) {
        work.ids.clear();
        if let Some(&id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            work.ids.push(id);
            return;
        }
        work.ids.extend(word.iter().map(|&byte| self.byte_ids[usize::from(byte)]));
        if word.len() <= SHORT {
            self.merge_short(work);
        } else if word.len() > MEDIUM && self.ordered {
            self.merge_by_rank(work);
        } else {
            self.merge_by_heap(work);
        }
    }

    fn merge_short(&self, work: &mut Workspace) {
        let Workspace { ids, pairs, .. } = work;
        pairs.clear();
        pairs.extend(ids.windows(2).map(|pair| self.pairs.get(pair[0], pair[1])));
        loop {
            let (mut best, mut at) = (NO_MERGE, 0);
            for (index, &pair) in pairs.iter().enumerate() {
                if pair < best {
                    (best, at) = (pair, index);
                }
            }
            if best == NO_MERGE {
                return;
            }
            ids[at] = best as u32;
            ids.remove(at + 1);
            pairs.remove(at);
            if at > 0 {
                pairs[at - 1] = self.pairs.get(ids[at - 1], ids[at]);
            }
            if at < pairs.len() {
                pairs[at] = self.pairs.get(ids[at], ids[at + 1]);
            }
        }
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
                if let Some((before, pair_before, pair_after)) = chain.merge(at, rank, &self.pairs) {
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
        let entry = |pair: u64, at: u32| (pair != NO_MERGE).then_some(Reverse(((pair >> 32) as u32, at)));
        heap.extend(
            (0..).zip(ids.windows(2)).filter_map(|(at, pair)| entry(self.pairs.get(pair[0], pair[1]), at)),
        );
        while let Some(Reverse((rank, at))) = heap.pop() {
            if let Some((before, pair_before, pair_after)) = chain.merge(at, rank, &self.pairs) {
                heap.extend(entry(pair_before, before));
                heap.extend(entry(pair_after, at));
            }
        }
        if heap.capacity() > 1 << 20 {
            *heap = BinaryHeap::new();
        }
        chain.unlink(ids);
    }
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

    /// Merges the pair at `at` if it still has `rank`; returns the place before it, and the new pairs there and at
    /// `at`.
    fn merge(&mut self, at: u32, rank: u32, pairs: &PairTable) -> Option<(u32, u64, u64)> {
        let here = self.nodes[at as usize];
        if here.id == NONE || here.next == NONE {
            return None;
        }
        let next = self.nodes[here.next as usize];
        let pair = pairs.get(here.id, next.id);
        if pair == NO_MERGE || (pair >> 32) as u32 != rank {
            return None;
        }
        let id = pair as u32;
        self.nodes[at as usize] = Node { id, next: next.next, ..here };
        self.nodes[here.next as usize].id = NONE;
        let mut pair_after = NO_MERGE;
        if next.next != NONE {
            let after = &mut self.nodes[next.next as usize];
            after.previous = at;
            pair_after = pairs.get(id, after.id);
        }
        let before = self.nodes.get(here.previous as usize);
        let pair_before = before.map_or(NO_MERGE, |before| pairs.get(before.id, id));
        Some((here.previous, pair_before, pair_after))
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
    fn note(&mut self, pair: u64, at: u32) {
        if pair == NO_MERGE {
            return;
        }
        let rank = (pair >> 32) as u32;
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

/// Merge of each pair of ids: rank in the upper half, merged id in the lower.
struct PairTable {
    slots: Vec<(u64, u64)>,
    shift: u32,
}

impl PairTable {
    const EMPTY: u64 = u64::MAX;

    fn with_room(pairs: usize) -> Self {
        let size = (pairs * 2).next_power_of_two().max(16);
        Self { slots: vec![(Self::EMPTY, NO_MERGE); size], shift: 64 - size.trailing_zeros() }
    }

    #[inline(always)]
    fn get(&self, left: u32, right: u32) -> u64 {
        let (key, mut at) = self.place(left, right);
        loop {
            let slot = &self.slots[at];
            if slot.0 == key {
                return slot.1;
            }
            if slot.0 == Self::EMPTY {
                return NO_MERGE;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn set(&mut self, left: u32, right: u32, merge: u64) {
        let (key, mut at) = self.place(left, right);
        while self.slots[at].0 != key && self.slots[at].0 != Self::EMPTY {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = (key, merge);
    }

    #[inline(always)]
    fn place(&self, left: u32, right: u32) -> (u64, usize) {
        let key = u64::from(left) << 32 | u64::from(right);
        let mixed = (key ^ key >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (key, (mixed >> self.shift) as usize)
    }
}
