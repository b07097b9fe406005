//! Counts of words over documents: a table in shards, and before it, for each thread, a small cache of the words that
//! come again and again. What the table has no room for lies on disk in sorted runs.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::corpus::{Corpus, Part};
use super::runs::Runs;
use super::sorted::{Words, merge};
use super::table::{Table, hash_long, hash_short};
use super::words_file::{About, WordsReader, WordsWriter};
use crate::error::TokenizerError;
use crate::nfc::nfc;
use crate::pattern::Pattern;
use crate::scan::Cutter;
use crate::word::pack;

/// Parts of the table, by the upper bits of a word's hash; each has a lock.
const SHARD_BITS: u32 = 5;
const SHARDS: usize = 1 << SHARD_BITS;
/// Slots of a thread's cache; with the waiting words it fits in the second-level cache of a core.
const CACHED: usize = 1 << 13;
/// Words that wait for a shard before its lock is taken.
const WAITING: usize = 128;
/// Bytes of long words that wait for a shard.
const WAITING_BYTES: usize = 8192;

/// Counts words in 64 bits.
pub(super) struct WordCounter {
    pattern: Pattern,
    shards: Vec<Mutex<Table>>,
    threads: Vec<Counting>,
    /// Bytes that table and threads may hold: an eighth of the limit. Sorting it for the disk takes as much again at most, and
    /// merging words several times of what counting them takes.
    room: usize,
    runs: Runs,
    documents: u64,
    bytes: u64,
}

/// What one thread has counted and not yet given to the shards.
struct Counting {
    /// Made for the first document.
    cutter: Option<Cutter>,
    cache: Vec<(u128, u64)>,
    waiting: Vec<Waiting>,
}

/// Words on their way to a shard.
#[derive(Default)]
struct Waiting {
    short: Vec<(u128, u64)>,
    long: Vec<(u64, u32)>,
    bytes: Vec<u8>,
}

impl WordCounter {
    /// A counter that holds `limit` bytes at most.
    pub(super) fn new(pattern: Pattern, limit: u64, runs: Runs) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let room = usize::try_from(limit / 8).unwrap_or(usize::MAX);
        Self { pattern, shards, threads: Vec::new(), room, runs, documents: 0, bytes: 0 }
    }

    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts on rayon's threads; which thread counts a document does not change the sums.
    pub(super) fn count(&mut self, mut documents: &[&str]) -> Result<(), TokenizerError> {
        // So much text at a time that all its words would not go far past the room there is.
        let most = (self.room / 32).clamp(1 << 16, 1 << 26);
        while !documents.is_empty() {
            let mut bytes = 0;
            let fitting = documents.iter().take_while(|document| {
                let fits = bytes < most;
                bytes += document.len();
                fits
            });
            let (some, rest) = documents.split_at(fitting.count());
            self.count_all(some);
            self.make_room()?;
            documents = rest;
        }
        Ok(())
    }

    fn count_all(&mut self, documents: &[&str]) {
        self.documents += documents.iter().filter(|text| !text.is_empty()).count() as u64;
        self.bytes += documents.iter().map(|text| text.len() as u64).sum::<u64>();
        let threads = rayon::current_num_threads().clamp(1, documents.len().max(1));
        if self.threads.len() < threads {
            self.threads.resize_with(threads, Counting::new);
        }
        let Self { pattern, shards, threads: counting, .. } = self;
        let next = AtomicUsize::new(0);
        counting[..threads].par_iter_mut().for_each(|counting| {
            while let Some(document) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
                if *pattern == Pattern::Qwen2 {
                    counting.count(*pattern, &nfc(document), shards);
                } else {
                    counting.count(*pattern, document, shards);
                }
            }
        });
    }

    /// Adds the counts of a file that [`save`](Self::save) wrote.
    pub(super) fn load(&mut self, path: &Path) -> Result<(), TokenizerError> {
        WordsReader::verify(path)?.check(self.pattern, path)?;
        let mut reader = WordsReader::open(path)?;
        let mut word = Vec::new();
        for at in 1u64.. {
            let Some(count) = reader.next(&mut word)? else { break };
            match pack(&word, 0..word.len()) {
                Some(packed) => {
                    let shard = &self.shards[shard_of(hash_short(packed))];
                    shard.lock().expect("no thread panics while it holds this").add_short(&[(packed, count)]);
                }
                None => {
                    let hash = hash_long(&word);
                    let shard = &self.shards[shard_of(hash)];
                    shard.lock().expect("no thread panics while it holds this").add_long(hash, &word, count);
                }
            }
            if at.is_multiple_of(4096) {
                self.make_room()?;
            }
        }
        self.documents += reader.about().documents;
        self.bytes += reader.about().bytes;
        Ok(())
    }

    /// Writes all counts into a file.
    pub(super) fn save(&mut self, path: &Path) -> Result<(), TokenizerError> {
        let mut writer = WordsWriter::create(path, &self.about())?;
        let mut words = self.sorted_tables();
        words.extend(self.runs.readers()?);
        merge(words, |word, count| writer.push(word, count))?;
        writer.finish()?;
        Ok(())
    }

    /// Puts everything counted so far on disk, for a later training to go on from at `position`.
    pub(super) fn commit(&mut self, position: &str) -> Result<(), TokenizerError> {
        self.spill()?;
        self.runs.commit(self.about(), position)
    }

    /// [`commit`](Self::commit) of counts that stay in memory too: for the last time, before the merges.
    pub(super) fn commit_held(&mut self, position: &str) -> Result<(), TokenizerError> {
        let words = self.sorted_tables();
        self.runs.commit_held(words, self.about(), position)
    }

    /// Takes over what `runs` hold.
    pub(super) fn resume(&mut self, runs: Runs, about: Option<&About>) {
        self.runs = runs;
        if let Some(about) = about {
            (self.documents, self.bytes) = (about.documents, about.bytes);
        }
    }

    /// The words of all documents. `OUT_OF_MEMORY_HOST` when they take more than `limit` bytes.
    pub(super) fn into_corpus(mut self, limit: u64) -> Result<Corpus, TokenizerError> {
        let parts: Vec<Part> = if self.runs.is_empty() {
            self.settle();
            let tables = self.shards.into_par_iter().map(|mut shard| std::mem::take(locked(&mut shard)));
            tables.map(|table| Part::of(&table)).collect()
        } else {
            let mut words = self.sorted_tables();
            self.shards.clear();
            words.extend(self.runs.readers()?);
            let mut parts = vec![Part::default()];
            merge(words, |word, count| {
                if parts.last().is_none_or(Part::is_full) {
                    Corpus::check(&parts, limit)?;
                    parts.push(Part::default());
                }
                parts.last_mut().expect("one was pushed just above").push(word, count);
                Ok(())
            })?;
            parts
        };
        Corpus::check(&parts, limit)?;
        Ok(Corpus::of(parts))
    }

    fn about(&self) -> About {
        About::new(self.pattern, self.documents, self.bytes)
    }

    fn make_room(&mut self) -> Result<(), TokenizerError> {
        let tables: usize = self.shards.iter_mut().map(|shard| locked(shard).held()).sum();
        let threads: usize = self.threads.iter().map(Counting::held).sum();
        if tables + threads > self.room { self.spill() } else { Ok(()) }
    }

    /// Puts the counts in memory on disk.
    fn spill(&mut self) -> Result<(), TokenizerError> {
        let words = self.sorted_tables();
        if words.is_empty() {
            return Ok(());
        }
        self.shards.iter_mut().for_each(|shard| *locked(shard) = Table::default());
        self.runs.add(words, &self.about())
    }

    /// A copy of every table that has words.
    fn sorted_tables(&mut self) -> Vec<Words> {
        self.settle();
        let tables = self.shards.par_iter_mut().map(|shard| locked(shard).sorted());
        tables.filter(|table| !table.is_empty()).map(Words::Table).collect()
    }

    /// Gives the shards what the threads hold.
    fn settle(&mut self) {
        for counting in &mut self.threads {
            let cached = std::mem::replace(&mut counting.cache, vec![(0, 0); CACHED]);
            for (word, count) in cached.into_iter().filter(|(_, count)| *count > 0) {
                counting.evict(word, count, &self.shards);
            }
            for (waiting, shard) in counting.waiting.iter_mut().zip(&self.shards) {
                waiting.give(shard);
            }
        }
    }
}

impl Counting {
    fn new() -> Self {
        let waiting = (0..SHARDS).map(|_| Waiting::default()).collect();
        Self { cutter: None, cache: vec![(0, 0); CACHED], waiting }
    }

    /// Bytes of memory.
    fn held(&self) -> usize {
        let waiting = self.waiting.iter().map(|waiting| {
            waiting.short.capacity() * size_of::<(u128, u64)>()
                + waiting.long.capacity() * size_of::<(u64, u32)>()
                + waiting.bytes.capacity()
        });
        self.cache.capacity() * size_of::<(u128, u64)>() + waiting.sum::<usize>()
    }

    fn count(&mut self, pattern: Pattern, text: &str, shards: &[Mutex<Table>]) {
        let mut cutter = self.cutter.take().unwrap_or_else(|| Cutter::new(pattern));
        let mut from = 0;
        while from < text.len() {
            let words = cutter.cut(&text[from..]);
            let mut start = 0;
            for &end in words.ends {
                let end = end as usize;
                self.note(words.bytes, start..end, shards);
                start = end;
            }
            from += start;
        }
        self.cutter = Some(cutter);
    }

    #[inline(always)]
    fn note(&mut self, bytes: &[u8], word: Range<usize>, shards: &[Mutex<Table>]) {
        let Some(packed) = pack(bytes, word.clone()) else {
            self.note_long(&bytes[word], shards);
            return;
        };
        let slot = &mut self.cache[cache_slot(packed)];
        if slot.0 == packed {
            slot.1 += 1;
        } else {
            let (old, count) = std::mem::replace(slot, (packed, 1));
            if count > 0 {
                self.evict(old, count, shards);
            }
        }
    }

    #[inline(never)]
    fn evict(&mut self, word: u128, count: u64, shards: &[Mutex<Table>]) {
        let shard = shard_of(hash_short(word));
        let waiting = &mut self.waiting[shard];
        waiting.short.push((word, count));
        if waiting.short.len() >= WAITING {
            waiting.give(&shards[shard]);
        }
    }

    #[inline(never)]
    fn note_long(&mut self, word: &[u8], shards: &[Mutex<Table>]) {
        let hash = hash_long(word);
        let shard = shard_of(hash);
        let waiting = &mut self.waiting[shard];
        waiting.long.push((hash, word.len() as u32));
        waiting.bytes.extend_from_slice(word);
        if waiting.bytes.len() >= WAITING_BYTES {
            waiting.give(&shards[shard]);
        }
    }
}

impl Waiting {
    fn give(&mut self, shard: &Mutex<Table>) {
        let mut table = shard.lock().expect("no thread panics while it holds this");
        table.add_short(&self.short);
        let mut bytes = self.bytes.as_slice();
        for &(hash, length) in &self.long {
            let (word, rest) = bytes.split_at(length as usize);
            table.add_long(hash, word, 1);
            bytes = rest;
        }
        self.short.clear();
        self.long.clear();
        self.bytes.clear();
    }
}

/// The table of a shard that no thread is using.
fn locked(shard: &mut Mutex<Table>) -> &mut Table {
    shard.get_mut().expect("no thread panics while it holds this")
}

fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARD_BITS)) as usize
}

/// One multiplication is enough to spread words over a small cache.
#[inline(always)]
fn cache_slot(word: u128) -> usize {
    let mixed = (word as u64 ^ ((word >> 64) as u64).rotate_left(23)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (64 - CACHED.trailing_zeros())) as usize
}
