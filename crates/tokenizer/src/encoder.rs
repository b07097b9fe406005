//! Our own encoder: scanner, word cache, merges.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bpe::{Bpe, Workspace};
use crate::cache::WordCache;
use crate::nfc::nfc;
use crate::pattern::Pattern;
use crate::scan::for_each_word;
use crate::special::{AddedTokens, Piece};
use crate::word::pack;

/// Caches that a thread keeps, of the encoders it used last.
const CACHES_A_THREAD: usize = 4;

/// Turns text into ids with the parts of one `tokenizer.json`.
pub(crate) struct Encoder {
    pattern: Pattern,
    nfc: bool,
    bpe: Bpe,
    /// Added tokens found in text as it comes, and those found in what the normaliser left.
    raw: AddedTokens,
    normalized: AddedTokens,
    /// Distinguishes this encoder's caches from those of every other in the process.
    serial: u64,
}

/// What a thread keeps for an encoder.
struct Memory {
    serial: u64,
    cache: WordCache,
    work: Workspace,
}

thread_local! {
    /// Most recently used last.
    static MEMORIES: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

impl Encoder {
    pub(crate) fn new(
        pattern: Pattern,
        nfc: bool,
        bpe: Bpe,
        raw: AddedTokens,
        normalized: AddedTokens,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { pattern, nfc, bpe, raw, normalized, serial: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// Appends the ids of `text`; with `special`, special tokens in it are recognised.
    pub(crate) fn encode(&self, text: &str, special: bool, ids: &mut Vec<u32>) {
        let mut memory = self.borrow_memory();
        self.raw.split(text, special, |piece| match piece {
            Piece::Token(id) => ids.push(id),
            Piece::Text(text) => {
                let text = if self.nfc { nfc(text) } else { Cow::Borrowed(text) };
                self.normalized.split(&text, special, |piece| match piece {
                    Piece::Token(id) => ids.push(id),
                    Piece::Text(text) => self.encode_plain(text, &mut memory, ids),
                });
            }
        });
        give_back(memory);
    }

    /// Whether `word`, taken whole, becomes the one token `id`.
    pub(crate) fn makes(&self, word: &[u8], id: u32, work: &mut Workspace) -> bool {
        self.bpe.encode_word(word, work);
        work.ids == [id]
    }

    fn encode_plain(&self, text: &str, memory: &mut Memory, ids: &mut Vec<u32>) {
        let Memory { cache, work, .. } = memory;
        let bytes = text.as_bytes();
        for_each_word(self.pattern, text, |word| match pack(bytes, word.clone()) {
            Some(packed) => {
                if !cache.take_short(packed, ids) {
                    self.bpe.encode_word(&bytes[word], work);
                    cache.put_short(packed, &work.ids);
                    ids.extend_from_slice(&work.ids);
                }
            }
            None => {
                let word = &bytes[word];
                if !cache.take_long(word, ids) {
                    self.bpe.encode_word(word, work);
                    cache.put_long(word, &work.ids);
                    ids.extend_from_slice(&work.ids);
                }
            }
        });
    }

    fn borrow_memory(&self) -> Memory {
        let kept = MEMORIES.with_borrow_mut(|memories| {
            let at = memories.iter().position(|memory| memory.serial == self.serial)?;
            Some(memories.remove(at))
        });
        kept.unwrap_or_else(|| Memory {
            serial: self.serial,
            cache: WordCache::new(),
            work: Workspace::default(),
        })
    }
}

fn give_back(memory: Memory) {
    MEMORIES.with_borrow_mut(|memories| {
        if memories.len() == CACHES_A_THREAD {
            memories.remove(0);
        }
        memories.push(memory);
    });
}
