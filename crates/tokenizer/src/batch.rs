//! Many texts at once, on threads that last.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Beyond this a number of threads is a slip of the keyboard.
const MOST_THREADS: usize = 512;

/// `encode` of each text, in order, on `threads` threads (0: as many as there are cores).
pub(crate) fn map<T: Send>(texts: &[&str], threads: usize, encode: impl Fn(&str) -> T + Sync) -> Vec<T> {
    if threads == 1 || texts.len() < 2 {
        return texts.iter().map(|text| encode(text)).collect();
    }
    match pool(threads.min(MOST_THREADS)) {
        Some(pool) => pool.install(|| texts.par_iter().map(|text| encode(text)).collect()),
        None => texts.iter().map(|text| encode(text)).collect(),
    }
}

/// A pool of so many threads, kept: its threads hold what they learned of the words. `None` when the system has no
/// more threads to give.
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
