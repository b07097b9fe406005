//! Many texts at once, on threads that last.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::TokenizerError;
use crate::pages::advise_large_pages;

/// Beyond this a number of threads is a slip of the keyboard.
const MOST_THREADS: usize = 512;
/// Bytes of text that one list of ids is made from: fewer are not worth a task, more could have more ids than are
/// counted in 32 bits.
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

/// The ids of texts that follow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The ids of all of them.
    pub ids: Vec<u32>,
    /// Of each text, where its ids end.
    pub ends: Vec<u32>,
}

/// A part of a batch.
pub(crate) struct Task<'a, T> {
    pub(crate) texts: &'a [T],
    /// Bytes of the whole batch.
    pub(crate) whole: usize,
    /// Whether other threads have other parts.
    pub(crate) shared: bool,
}

/// Encodes the texts on `threads` threads (0: as many as there are cores): `encode` appends the ids of some to a
/// list. What comes back is in the order of the texts.
pub(crate) fn encode<T: Text>(
    texts: &[T],
    threads: usize,
    encode: impl Fn(Task<T>, &mut Encoded) -> Result<(), TokenizerError> + Sync,
) -> Result<Vec<Encoded>, TokenizerError> {
    let whole = texts.iter().map(Text::length).sum();
    let pool = if threads == 1 { None } else { pool(threads.min(MOST_THREADS)) };
    let shared = pool.as_ref().is_some_and(|pool| pool.current_num_threads() > 1);
    let one = |run: Range<usize>| {
        let texts = &texts[run];
        // Text has three bytes a token or more, mostly; what is never written is never there.
        let bytes = texts.iter().map(Text::length).sum::<usize>();
        let mut encoded = Encoded { ids: list_for(bytes / 3 + 64), ends: Vec::with_capacity(texts.len()) };
        encode(Task { texts, whole, shared }, &mut encoded).map(|()| encoded)
    };
    match pool {
        Some(pool) => {
            let runs = runs(texts, pool.current_num_threads());
            pool.install(|| runs.into_par_iter().with_max_len(1).map(one).collect())
        }
        None => runs(texts, 1).into_iter().map(one).collect(),
    }
}

/// Lists that were given back, for the next texts.
static SPARE: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());
/// Bytes of a list that is worth keeping, and of all that are kept.
const LEAST_SPARE: usize = 1 << 17;
const MOST_SPARE: usize = 64 << 20;

/// Takes back a list of ids that is no longer needed, for a later batch: where memory is fresh, the kernel clears each
/// page of it when it is first written, which takes longer than to encode what is written there. Up to 64 MiB are kept.
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
    let each = if threads == 1 { MOST } else { (bytes / (threads * 24)).clamp(LEAST, MOST) };
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
