//! What one merge does to the counts of other pairs.

use super::pairs::{PairCounts, pair_key};
use super::queue::Queue;

/// What one merge changes: every pair it touches is a neighbour with `a`, `b` or the new token, so the changes
/// are kept by neighbour.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) before: Side,
    pub(super) after: Side,
    updates: Vec<(u64, i64)>,
}

#[derive(Default)]
pub(super) struct Side {
    neighbours: Vec<Neighbour>,
    touched: Vec<u32>,
    /// Neighbours and the words that they were met in, each once.
    met: Vec<(u32, u32)>,
}

#[derive(Default, Clone, Copy)]
struct Neighbour {
    /// How often the old pair ended and the new one was formed.
    sum: i64,
    /// In how many words.
    words: u32,
    /// The last of these; later the list for them.
    last: u32,
}

impl Side {
    #[inline(always)]
    pub(super) fn note(&mut self, symbol: u32, count: i64, word: u32) {
        let neighbour = &mut self.neighbours[symbol as usize];
        if neighbour.words == 0 {
            self.touched.push(symbol);
        } else if neighbour.last == word {
            neighbour.sum += count;
            return;
        }
        *neighbour = Neighbour { sum: neighbour.sum + count, words: neighbour.words + 1, last: word };
        self.met.push((symbol, word));
    }

    /// Takes over what `later` has noted of later words.
    fn absorb(&mut self, later: &mut Side) {
        for symbol in later.touched.drain(..) {
            let Neighbour { sum, words, last } = std::mem::take(&mut later.neighbours[symbol as usize]);
            let neighbour = &mut self.neighbours[symbol as usize];
            if neighbour.words == 0 {
                self.touched.push(symbol);
            }
            *neighbour = Neighbour { sum: neighbour.sum + sum, words: neighbour.words + words, last };
        }
        self.met.append(&mut later.met);
    }

    /// The words of each neighbour, in the order of `touched`; empty for those met in one word.
    fn lists(&mut self) -> Vec<Vec<u32>> {
        let mut lists = Vec::with_capacity(self.touched.len());
        for (at, &symbol) in (0..).zip(&self.touched) {
            let neighbour = &mut self.neighbours[symbol as usize];
            if neighbour.words > 1 {
                lists.push(Vec::with_capacity(neighbour.words as usize));
                neighbour.last = at;
            } else {
                lists.push(Vec::new());
            }
        }
        for (symbol, word) in self.met.drain(..) {
            let neighbour = self.neighbours[symbol as usize];
            if neighbour.words > 1 {
                lists[neighbour.last as usize].push(word);
            }
        }
        lists
    }
}

impl Changes {
    pub(super) fn reserve(&mut self, tokens: usize) {
        if self.before.neighbours.len() < tokens {
            // Doubling: this is called for every token.
            let room = tokens.next_power_of_two();
            self.before.neighbours.resize(room, Neighbour::default());
            self.after.neighbours.resize(room, Neighbour::default());
        }
    }

    /// Takes over what `later` has noted of later words.
    pub(super) fn absorb(&mut self, later: &mut Changes) {
        self.before.absorb(&mut later.before);
        self.after.absorb(&mut later.after);
    }

    /// Changes the counts, then queues each pair that was formed and `fits`.
    pub(super) fn apply(
        &mut self,
        a: u32,
        b: u32,
        id: u32,
        fits: impl Fn(u32) -> bool,
        counts: &mut PairCounts,
        queue: &mut Queue,
    ) {
        self.updates.clear();
        for &symbol in &self.before.touched {
            let sum = self.before.neighbours[symbol as usize].sum;
            self.updates.push((pair_key(symbol, a), -sum));
            if fits(symbol) {
                self.updates.push((pair_key(symbol, id), sum));
            }
        }
        for &symbol in &self.after.touched {
            let sum = self.after.neighbours[symbol as usize].sum;
            self.updates.push((pair_key(b, symbol), -sum));
            if fits(symbol) {
                self.updates.push((pair_key(id, symbol), sum));
            }
        }
        counts.add(&self.updates);

        // The pair (id, id) may be formed from both sides.
        let both =
            self.before.neighbours[id as usize].words > 0 && self.after.neighbours[id as usize].words > 0;
        let mut twice = Vec::new();
        for (side, after) in [(&mut self.before, false), (&mut self.after, true)] {
            for (symbol, words) in side.lists().into_iter().enumerate() {
                let symbol = side.touched[symbol];
                let neighbour = std::mem::take(&mut side.neighbours[symbol as usize]);
                if !fits(symbol) {
                    continue;
                }
                let pair = if after { pair_key(id, symbol) } else { pair_key(symbol, id) };
                if both && symbol == id {
                    twice.extend(if neighbour.words > 1 { words } else { vec![neighbour.last] });
                    if after {
                        twice.sort_unstable();
                        twice.dedup();
                        queue.push(counts.get(pair), pair, std::mem::take(&mut twice).into());
                    }
                } else if neighbour.words > 1 {
                    queue.push(counts.get(pair), pair, words.into());
                } else {
                    queue.push_one(counts.get(pair), pair, neighbour.last);
                }
            }
            side.touched.clear();
        }
    }
}
