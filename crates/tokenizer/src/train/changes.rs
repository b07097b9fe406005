//! What one merge does to the counts of other pairs, and the queue of pairs to merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pairs::{PairCounts, pair_key};

/// Count, then the smaller pair; the words that an entry stands for are in `Queue::words`.
pub(super) type Entry = (i64, Reverse<u64>, usize);

/// The pairs to merge, most frequent first.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) heap: BinaryHeap<Entry>,
    pub(super) words: Vec<Vec<u32>>,
}

impl Queue {
    pub(super) fn push(&mut self, count: i64, pair: u64, words: Vec<u32>) {
        if count > 0 {
            self.heap.push((count, Reverse(pair), self.words.len()));
            self.words.push(words);
        }
    }
}

/// What one merge changes: every pair it touches is a neighbour with `a`, `b` or the new token, so the changes
/// are kept by neighbour.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) before: Side,
    pub(super) after: Side,
}

#[derive(Default)]
pub(super) struct Side {
    neighbours: Vec<Neighbour>,
    touched: Vec<u32>,
}

#[derive(Default, Clone)]
struct Neighbour {
    seen: bool,
    taken: i64,
    given: i64,
    words: Vec<u32>,
}

impl Side {
    fn touch(&mut self, symbol: u32) -> &mut Neighbour {
        let neighbour = &mut self.neighbours[symbol as usize];
        if !neighbour.seen {
            neighbour.seen = true;
            self.touched.push(symbol);
        }
        neighbour
    }

    pub(super) fn take(&mut self, symbol: u32, count: i64) {
        self.touch(symbol).taken += count;
    }

    pub(super) fn give(&mut self, symbol: u32, count: i64, word: u32) {
        let neighbour = self.touch(symbol);
        neighbour.given += count;
        if neighbour.words.last() != Some(&word) {
            neighbour.words.push(word);
        }
    }
}

impl Changes {
    pub(super) fn reserve(&mut self, tokens: usize) {
        self.before.neighbours.resize(tokens, Neighbour::default());
        self.after.neighbours.resize(tokens, Neighbour::default());
    }

    /// Changes the counts, then queues each pair that was formed.
    pub(super) fn apply(&mut self, a: u32, b: u32, id: u32, counts: &mut PairCounts, queue: &mut Queue) {
        let mut formed: Vec<(u64, Vec<u32>)> = Vec::new();
        let mut twice: Option<usize> = None;
        for symbol in self.before.touched.drain(..) {
            let change = std::mem::take(&mut self.before.neighbours[symbol as usize]);
            counts.add(pair_key(symbol, a), -change.taken);
            counts.add(pair_key(symbol, id), change.given);
            if symbol == id {
                twice = Some(formed.len());
            }
            formed.push((pair_key(symbol, id), change.words));
        }
        for symbol in self.after.touched.drain(..) {
            let change = std::mem::take(&mut self.after.neighbours[symbol as usize]);
            counts.add(pair_key(b, symbol), -change.taken);
            counts.add(pair_key(id, symbol), change.given);
            match twice {
                // The pair (id, id) may be formed from both sides.
                Some(at) if symbol == id => {
                    let words = &mut formed[at].1;
                    words.extend(change.words);
                    words.sort_unstable();
                    words.dedup();
                }
                _ => formed.push((pair_key(id, symbol), change.words)),
            }
        }
        for (pair, words) in formed {
            queue.push(counts.get(pair), pair, words);
        }
    }
}
