//! What threads learn of words while they encode, kept from text to text.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bpe::Workspace;
use crate::cache::{Key, Place, Slot, WordCache};
use crate::group::Lookup;
use crate::pattern::Pattern;
use crate::prefetch::prefetch_address;
use crate::scan::Cutter;

/// Words that threads tell each other of are forgotten when there are so many, 8 MiB, the oldest first.
const MOST_NEWS: usize = 1 << 18;

/// What one thread at a time learns and encodes with.
pub(crate) struct Memory {
    number: usize,
    pub(crate) tools: Tools,
    pub(crate) cutter: Cutter,
    pub(crate) ahead: Ahead,
    /// Lists of what others learnt that it knows of.
    heard: usize,
}

/// The cache and what it is used and filled with.
pub(crate) struct Tools {
    pub(crate) cache: WordCache,
    pub(crate) lookup: Lookup,
    pub(crate) work: Workspace,
    /// Parts of a long word.
    pub(crate) parts: Vec<Part>,
    /// Words that are about to be learnt.
    pub(crate) new: Vec<Key>,
    /// Words that were learnt, for other threads; `None` when there are none.
    pub(crate) learnt: Option<Vec<Slot>>,
}

/// Where a part starts and ends in its word, and where it is in the cache.
pub(crate) type Part = (usize, usize, Key, Place);

/// What is left to be fetched of a text that comes next: its addresses, which are never read here.
#[derive(Default)]
pub(crate) struct Ahead(Range<usize>);

impl Ahead {
    /// Bytes that the processor fetches at once.
    const LINE: usize = 64;
    /// Lines that are fetched for each group of words, more than its own text takes.
    const LINES: usize = 8;

    pub(crate) fn of(text: Range<usize>) -> Self {
        Self(text)
    }

    /// Asks the processor for some more of it.
    #[inline(always)]
    pub(crate) fn fetch(&mut self) {
        if self.0.is_empty() {
            return;
        }
        for _ in 0..Self::LINES {
            prefetch_address(std::ptr::without_provenance(self.0.start));
            self.0.start = self.0.start.wrapping_add(Self::LINE);
        }
    }
}

/// The memories that no thread uses now.
pub(crate) struct Memories {
    /// What each knows from the beginning.
    known: Vec<Slot>,
    idle: Mutex<Vec<(usize, Box<Memory>)>>,
    made: AtomicUsize,
    news: Mutex<News>,
}

/// What memories have learnt, in lists with the number of the memory, and how many lists have been forgotten before these.
#[derive(Default)]
struct News {
    lists: VecDeque<(usize, Arc<[Slot]>)>,
    words: usize,
    forgotten: usize,
}

impl Memories {
    pub(crate) fn new(known: Vec<Slot>) -> Self {
        Self { known, idle: Mutex::default(), made: AtomicUsize::new(0), news: Mutex::default() }
    }

    /// The memory that this thread used last, so that it finds what is in its processor's cache; else any, or a new one. Its
    /// words take up to `budget` bytes, and it has room for those of so many bytes of text. With `shares`, it knows what others
    /// that share have learnt until now.
    pub(crate) fn borrow(&self, pattern: Pattern, budget: usize, bytes: usize, shares: bool) -> Box<Memory> {
        let idle = self.take();
        let is_new = idle.is_none();
        let mut memory = idle.unwrap_or_else(|| self.make(pattern, budget));
        let tools = &mut memory.tools;
        tools.cache.allow(budget);
        tools.cache.expect(bytes);
        tools.learnt = shares.then(Vec::new);
        if is_new {
            tools.cache.short.adopt(&self.known);
        }
        if shares {
            for words in self.since(memory.number, &mut memory.heard) {
                memory.tools.cache.short.adopt(&words);
            }
        }
        memory
    }

    /// Keeps a memory for the next who borrows one.
    pub(crate) fn give_back(&self, mut memory: Box<Memory>) {
        if let Some(learnt) = memory.tools.learnt.take().filter(|learnt| !learnt.is_empty()) {
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.words += learnt.len();
            news.lists.push_back((memory.number, learnt.into()));
            while news.words > MOST_NEWS
                && let Some((_, oldest)) = news.lists.pop_front()
            {
                news.words -= oldest.len();
                news.forgotten += 1;
            }
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((thread_number(), memory));
    }

    fn take(&self) -> Option<Box<Memory>> {
        let thread = thread_number();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let own = idle.iter().rposition(|&(last, _)| last == thread);
        match own {
            Some(own) => Some(idle.swap_remove(own).1),
            None => idle.pop().map(|(_, memory)| memory),
        }
    }

    fn make(&self, pattern: Pattern, budget: usize) -> Box<Memory> {
        let tools = Tools {
            cache: WordCache::new(budget),
            lookup: Lookup::new(),
            work: Workspace::default(),
            parts: Vec::new(),
            new: Vec::new(),
            learnt: None,
        };
        Box::new(Memory {
            number: self.made.fetch_add(1, Ordering::Relaxed),
            tools,
            cutter: Cutter::new(pattern),
            ahead: Ahead::default(),
            heard: 0,
        })
    }

    /// The lists of others after those that were heard of, which are all then.
    fn since(&self, number: usize, heard: &mut usize) -> Vec<Arc<[Slot]>> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let new = news.lists.iter().skip(heard.saturating_sub(news.forgotten));
        *heard = news.forgotten + news.lists.len();
        new.filter(|(author, _)| *author != number).map(|(_, words)| words.clone()).collect()
    }
}

/// A number that no other thread of the process has.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Ids;

    fn learn(memory: &mut Memory, numbers: Range<u32>) {
        for number in numbers {
            let word = Key::of(format!("w{number}").as_bytes());
            let ids = memory.tools.cache.short.put(word, &[number]);
            memory.tools.learnt.as_mut().unwrap().push(Slot { word, ids });
        }
    }

    fn knows(memory: &Memory, number: u32) -> bool {
        let short = &memory.tools.cache.short;
        let word = Key::of(format!("w{number}").as_bytes());
        let mut ids = Vec::new();
        let known = short.take(short.get(word, short.place(word)), &mut ids);
        assert!(!known || ids == [number]);
        known
    }

    #[test]
    fn a_memory_knows_what_others_learnt_before_it_was_borrowed() {
        let memories = Memories::new(Vec::new());
        let borrow = |shares| memories.borrow(Pattern::Gpt2, 1 << 20, 0, shares);
        let (mut one, mut two, alone) = (borrow(true), borrow(true), borrow(false));
        learn(&mut one, 0..100);
        learn(&mut two, 100..150);
        assert!(knows(&one, 0) && !knows(&two, 0));
        memories.give_back(one);
        memories.give_back(two);
        memories.give_back(alone);
        let (one, two, three) = (borrow(true), borrow(true), borrow(true));
        for memory in [&one, &two, &three] {
            assert!((0..150).all(|number| knows(memory, number)), "{}", memory.number);
        }
        assert!(!knows(&three, 150));
    }

    #[test]
    fn every_memory_knows_some_words_from_the_beginning() {
        let word = Key::of(b"w7");
        let memories = Memories::new(vec![Slot { word, ids: Ids::pack(&[7]).unwrap() }]);
        let (one, two) =
            (memories.borrow(Pattern::Gpt2, 1, 0, false), memories.borrow(Pattern::Gpt2, 1, 0, true));
        assert!(knows(&one, 7) && knows(&two, 7) && !knows(&one, 8));
    }

    #[test]
    fn news_do_not_grow_without_end_and_the_latest_are_kept() {
        let memories = Memories::new(Vec::new());
        let most = MOST_NEWS as u32;
        for turn in 0..6 {
            let mut one = memories.borrow(Pattern::Gpt2, 1 << 20, 0, true);
            learn(&mut one, turn * most / 4..(turn + 1) * most / 4);
            memories.give_back(one);
        }
        let news = memories.news.lock().unwrap();
        assert!(news.words == MOST_NEWS && news.forgotten == 2 && news.lists.len() == 4);
        drop(news);
        let _one = memories.borrow(Pattern::Gpt2, 1 << 20, 0, true);
        let late = memories.borrow(Pattern::Gpt2, 64 << 20, 1 << 26, true);
        assert!(knows(&late, most * 6 / 4 - 1) && knows(&late, most / 2) && !knows(&late, most / 2 - 1));
    }
}
