//! Many texts at once, on threads that last.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::TokenizerError;
use crate::pages::advise_large_pages;

/// Beyond this a number of threads is a slip of the keyboard.
const MOST_THREADS: usize = 512;
/// Bytes of text that a thread takes at a time, at least, and that one list of ids is made from, at most: more could have more
/// ids than are counted in 32 bits.
const LEAST: usize = 64 << 10;
const MOST: usize = 1 << 30;

/// A text to encode.
pub trait Text: Sync {
    /// Its length in bytes, or nearly.
    fn length(&self) -> usize;

    /// The addresses of its bytes, for the processor to fetch them before they are read.
    fn addresses(&self) -> Range<usize>;

    /// The text itself; `room` may be used to keep it in.
    fn read<'a>(&'a self, room: &'a mut Vec<u8>) -> Cow<'a, str>;
}

impl Text for &str {
    fn length(&self) -> usize {
        self.len()
    }

    fn addresses(&self) -> Range<usize> {
        let bytes = self.as_bytes().as_ptr_range();
        bytes.start.addr()..bytes.end.addr()
    }

    fn read<'a>(&'a self, _: &'a mut Vec<u8>) -> Cow<'a, str> {
        Cow::Borrowed(self)
    }
}

/// The ids of texts, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The ids of all of them.
    pub ids: Vec<u32>,
    /// Of each text, where its ids end.
    pub ends: Vec<u32>,
}

/// The ids of a batch: a list from each thread, and where in the lists the texts are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedBatch {
    /// The lists, in no order.
    pub lists: Vec<Encoded>,
    /// In the order of the texts, those that follow each other in a list, too: the number of the list, and which of its
    /// texts they are.
    pub parts: Vec<(usize, Range<usize>)>,
}

impl EncodedBatch {
    /// The ids of each text.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.parts.iter().flat_map(|(list, texts)| {
            let Encoded { ids, ends } = &self.lists[*list];
            texts.clone().map(move |at| {
                let start = if at == 0 { 0 } else { ends[at - 1] };
                &ids[start as usize..ends[at] as usize]
            })
        })
    }
}

/// A part of a batch.
pub(crate) struct Task<'a, T> {
    pub(crate) texts: &'a [T],
    /// Bytes of the whole batch.
    pub(crate) whole: usize,
    /// Whether other threads have other parts.
    pub(crate) shared: bool,
}

/// Encodes the texts on `threads` threads (0: as many as there are cores): `encode` appends the ids of some to a list.
pub(crate) fn encode<T: Text>(
    texts: &[T],
    threads: usize,
    encode: impl Fn(Task<T>, &mut Encoded) -> Result<(), TokenizerError> + Sync,
) -> Result<EncodedBatch, TokenizerError> {
    let pool = if threads == 1 { None } else { pool(threads.min(MOST_THREADS)) };
    let most = pool.as_ref().map_or(1, |pool| pool.current_num_threads());
    let runs = runs(texts, most);
    let threads = runs.len().clamp(1, most);
    let whole = texts.iter().map(Text::length).sum::<usize>();
    // One thread is faster than another.
    let room = if threads == 1 { whole } else { whole / threads / 2 * 3 };
    let (shares, failed) = (Shares::new(runs.len(), threads), AtomicBool::new(false));
    let work = || {
        let mut done = Done::new(room);
        while let Some(run) = shares.next().filter(|_| !failed.load(Ordering::Relaxed)) {
            let run = &runs[run];
            let texts = &texts[run.clone()];
            let list = done.list_for(texts);
            encode(Task { texts, whole, shared: threads > 1 }, list)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            done.parts.push((run.start, done.lists.len() - 1, run.len()));
        }
        Ok(done)
    };
    let done = match pool {
        Some(pool) if threads > 1 => pool.install(|| {
            (0..threads).into_par_iter().with_max_len(1).map(|_| work()).collect::<Result<_, _>>()
        }),
        _ => work().map(|done| vec![done]),
    };
    done.map(together)
}

/// Which runs have been taken. Each thread takes those of its own share first, then what others have not come to: what it learns
/// of words serves it best in texts like those that it had before.
struct Shares(Vec<(AtomicUsize, usize)>);

impl Shares {
    fn new(runs: usize, threads: usize) -> Self {
        let border = |thread: usize| runs * thread / threads;
        Self((0..threads).map(|thread| (AtomicUsize::new(border(thread)), border(thread + 1))).collect())
    }

    /// The number of a run that nobody has taken.
    fn next(&self) -> Option<usize> {
        let own = rayon::current_thread_index().unwrap_or_default() % self.0.len();
        let (before, from) = self.0.split_at(own);
        from.iter()
            .chain(before)
            .find_map(|(next, end)| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|run| run < end))
    }
}

/// What one thread has encoded.
struct Done {
    lists: Vec<Encoded>,
    /// The first text of each run, the list, and how many texts there are.
    parts: Vec<(usize, usize, usize)>,
    /// Bytes of text that this thread has room for at first, and those of its last list.
    room: usize,
    bytes: usize,
}

impl Done {
    fn new(room: usize) -> Self {
        Self { lists: Vec::new(), parts: Vec::new(), room, bytes: 0 }
    }

    /// The list to append some texts to.
    fn list_for<T: Text>(&mut self, texts: &[T]) -> &mut Encoded {
        let bytes = texts.iter().map(Text::length).sum::<usize>();
        if self.lists.is_empty() || self.bytes.saturating_add(bytes) > MOST {
            // Text has three bytes a token or more, mostly; what is never written is never there.
            let room = bytes.max(self.room.min(MOST)) / 3 + 64;
            self.lists.push(Encoded { ids: list_for(room), ends: Vec::new() });
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.lists.last_mut().expect("there is one now")
    }
}

/// The batch that threads have encoded.
fn together(done: Vec<Done>) -> EncodedBatch {
    let (mut lists, mut parts) = (Vec::new(), Vec::new());
    for Done { lists: more, parts: those, .. } in done {
        let mut texts = vec![0; more.len()];
        for (first, list, count) in those {
            let start = texts[list];
            texts[list] += count;
            parts.push((first, (lists.len() + list, start..start + count)));
        }
        lists.extend(more);
    }
    parts.sort_unstable_by_key(|&(first, _)| first);
    EncodedBatch { lists, parts: parts.into_iter().map(|(_, part)| part).collect() }
}

/// Lists that were given back, for the next texts.
static SPARE: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());
/// Bytes of a list that is worth keeping, and of all that are kept.
const LEAST_SPARE: usize = 1 << 17;
const MOST_SPARE: usize = 256 << 20;

/// Takes back a list of ids that is no longer needed, for a later batch: where memory is fresh, the kernel clears each
/// page of it when it is first written, which takes longer than to encode what is written there. Up to 256 MiB are kept.
pub fn recycle(mut ids: Vec<u32>) {
    let bytes = |list: &Vec<u32>| list.capacity() * size_of::<u32>();
    ids.clear();
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept: usize = spare.iter().map(bytes).sum();
    if bytes(&ids) >= LEAST_SPARE && kept + bytes(&ids) <= MOST_SPARE {
        spare.push(ids);
    }
}

/// An empty list with room for so many ids, or nearly.
fn list_for(ids: usize) -> Vec<u32> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |list: &Vec<u32>| (ids / 2..ids.saturating_mul(4)).contains(&list.capacity());
    if let Some(at) = spare.iter().position(fits) {
        return spare.swap_remove(at);
    }
    drop(spare);
    let mut list = Vec::with_capacity(ids);
    advise_large_pages(&mut list);
    list
}

/// Texts that follow each other, of about as many bytes each: several for each thread, so that none waits long for
/// another.
fn runs<T: Text>(texts: &[T], threads: usize) -> Vec<Range<usize>> {
    let bytes = texts.iter().map(Text::length).sum::<usize>();
    let each = if threads == 1 { MOST } else { (bytes / (threads * 48)).clamp(LEAST, MOST) };
    let (mut runs, mut start, mut length) = (Vec::new(), 0, 0);
    for (at, text) in texts.iter().enumerate() {
        if length > 0 && length + text.length() > each {
            runs.push(start..at);
            (start, length) = (at, 0);
        }
        length += text.length();
    }
    if start < texts.len() {
        runs.push(start..texts.len());
    }
    runs
}

/// A pool of so many threads, kept. `None` when the system has no more threads to give.
fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    static POOLS: Mutex<Vec<(usize, Arc<ThreadPool>)>> = Mutex::new(Vec::new());
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, pool)) = pools.iter().find(|(known, _)| *known == threads) {
        return Some(pool.clone());
    }
    let named = ThreadPoolBuilder::new().num_threads(threads).thread_name(|at| format!("tokenizer-{at}"));
    let pool = Arc::new(named.build().ok()?);
    pools.push((threads, pool.clone()));
    Some(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_taken_once_whoever_asks() {
        for (runs, threads) in [(0, 1), (1, 3), (7, 3), (100, 4)] {
            let shares = Shares::new(runs, threads);
            let taken = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        while let Some(run) = shares.next() {
                            taken.lock().unwrap().push(run);
                        }
                    });
                }
            });
            let mut taken = taken.into_inner().unwrap();
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..runs));
        }
    }

    #[test]
    fn texts_of_many_lists_are_found_in_their_order() {
        let list = |numbers: Range<u32>| {
            let mut list = Encoded::default();
            for number in numbers {
                list.ids.extend(vec![number; number as usize]);
                list.ends.push(list.ids.len() as u32);
            }
            list
        };
        // The third list was begun when the second was full.
        let one = Done { lists: vec![list(4..7)], parts: vec![(6, 0, 1), (4, 0, 2)], room: 0, bytes: 0 };
        let two = Done {
            lists: vec![list(0..3), list(3..4)],
            parts: vec![(0, 0, 2), (2, 0, 1), (3, 1, 1)],
            room: 0,
            bytes: 0,
        };
        let batch = together(vec![one, two]);
        let found: Vec<&[u32]> = batch.iter().collect();
        let expected: [&[u32]; 7] = [&[], &[1], &[2; 2], &[3; 3], &[5; 5], &[6; 6], &[4; 4]];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_is_begun_where_the_ids_would_be_too_many() {
        struct Long(usize);
        impl Text for Long {
            fn length(&self) -> usize {
                self.0
            }
            fn addresses(&self) -> Range<usize> {
                0..0
            }
            fn read<'a>(&'a self, _: &'a mut Vec<u8>) -> Cow<'a, str> {
                Cow::Borrowed("x")
            }
        }
        let texts = [Long(10), Long(MOST), Long(MOST / 2), Long(MOST / 2), Long(1)];
        let one = |Task { texts, .. }: Task<Long>, list: &mut Encoded| {
            for _ in texts {
                list.ids.push(7);
                list.ends.push(list.ids.len() as u32);
            }
            Ok(())
        };
        let batch = encode(&texts, 1, one).unwrap();
        assert_eq!(batch.lists.iter().map(|list| list.ends.len()).collect::<Vec<_>>(), [1, 1, 2, 1]);
        assert_eq!(batch.iter().count(), texts.len());
    }
}
