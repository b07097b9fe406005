//! The queue of pairs to merge, most frequent first, ties to the smaller pair.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A pair with the count that it had when it was queued, and the words that it is to be merged in.
///
/// The order of the fields is the queue's order. Of two entries of one pair the later is the first to go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) count: i64,
    pub(super) pair: Reverse<u64>,
    sequence: u32,
    words: Words,
}

/// One word, or the index of a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Words(u32);

/// Set where `Words` is an index.
const LIST: u32 = 1 << 31;

/// Entries by the magnitude of their counts. Only the largest magnitude that has any is kept as a heap; most entries are
/// of small counts and are never looked at again.
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    /// The magnitude of the heap's entries: none has more.
    magnitude: usize,
    below: [Vec<Entry>; 64],
    lists: Vec<Box<[u32]>>,
    free: Vec<u32>,
    sequence: u32,
    /// Words in all lists.
    listed: usize,
    /// While merges are given, entries are looked for by their pair.
    by_pair: Option<HashMap<u64, Vec<Entry>>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            magnitude: 63,
            below: [const { Vec::new() }; 64],
            lists: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            listed: 0,
            by_pair: None,
        }
    }
}

impl Queue {
    /// Queues a pair that is to be merged in one word.
    pub(super) fn push_one(&mut self, count: i64, pair: u64, word: u32) {
        debug_assert!(word < LIST);
        self.push_new(count, pair, Words(word));
    }

    /// Queues a pair that is to be merged in `words`, which ascend.
    pub(super) fn push(&mut self, count: i64, pair: u64, words: Box<[u32]>) {
        if count <= 0 {
            return;
        }
        self.listed += words.len();
        let at = match self.free.pop() {
            Some(at) => {
                self.lists[at as usize] = words;
                at
            }
            None => {
                self.lists.push(words);
                (self.lists.len() - 1) as u32
            }
        };
        self.push_new(count, pair, Words(at | LIST));
    }

    fn push_new(&mut self, count: i64, pair: u64, words: Words) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.requeue(Entry { count, pair: Reverse(pair), sequence, words });
    }

    /// Queues an entry by its count; one that occurs no more is dropped.
    pub(super) fn requeue(&mut self, entry: Entry) {
        if entry.count <= 0 {
            self.words(entry);
            return;
        }
        if let Some(by_pair) = &mut self.by_pair {
            by_pair.entry(entry.pair.0).or_default().push(entry);
            return;
        }
        let magnitude = entry.count.ilog2() as usize;
        if magnitude >= self.magnitude {
            self.heap.push(entry);
        } else {
            self.below[magnitude].push(entry);
        }
    }

    /// The next entry.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.heap.pop() {
                return Some(entry);
            }
            self.magnitude = self.below.iter().rposition(|entries| !entries.is_empty())?;
            self.heap = std::mem::take(&mut self.below[self.magnitude]).into();
        }
    }

    /// The words of an entry that leaves the queue.
    pub(super) fn words(&mut self, entry: Entry) -> Box<[u32]> {
        if entry.words.0 & LIST == 0 {
            return Box::new([entry.words.0]);
        }
        let at = entry.words.0 & !LIST;
        self.free.push(at);
        let words = std::mem::take(&mut self.lists[at as usize]);
        self.listed -= words.len();
        words
    }

    /// The words of every entry of a pair, ascending; these entries leave the queue.
    pub(super) fn take(&mut self, pair: u64) -> Vec<u32> {
        if self.by_pair.is_none() {
            let entries = self.heap.drain().chain(self.below.iter_mut().flat_map(|below| below.drain(..)));
            let mut by_pair: HashMap<u64, Vec<Entry>> = HashMap::new();
            entries.for_each(|entry| by_pair.entry(entry.pair.0).or_default().push(entry));
            self.by_pair = Some(by_pair);
        }
        let entries = self.by_pair.as_mut().and_then(|by_pair| by_pair.remove(&pair)).unwrap_or_default();
        let mut words: Vec<u32> = entries.into_iter().flat_map(|entry| self.words(entry)).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// No more pairs are taken: the rest are queued by their counts.
    pub(super) fn forget_pairs(&mut self) {
        for entry in self.by_pair.take().into_iter().flatten().flat_map(|(_, entries)| entries) {
            self.requeue(entry);
        }
    }

    /// Bytes of memory that the queue holds.
    pub(super) fn held(&self) -> usize {
        let entries: usize = self.below.iter().map(Vec::capacity).sum::<usize>() + self.heap.capacity();
        entries * size_of::<Entry>()
            + self.lists.capacity() * size_of::<Box<[u32]>>()
            + (self.listed + self.free.capacity()) * size_of::<u32>()
    }
}
