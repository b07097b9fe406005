use serde::{Deserialize, Serialize};

use crate::feed::ring_tokens;
use crate::reader::{AHEAD_ROWS, WINDOW_BYTES};

/// What decides how much memory a feed of batches takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedMemory {
    /// Sources, each with a window of its own.
    pub sources: usize,
    /// Documents of a window.
    pub shuffle_buffer_size: u64,
    /// Documents a frame.
    pub batch_size: u64,
    /// Mean UTF-8 bytes of a document.
    pub document_bytes: u64,
    /// Tokens of a global batch.
    pub batch_tokens: usize,
    /// Threads that encode.
    pub threads: usize,
}

impl FeedMemory {
    /// Bytes of the windows with what is fetched beyond them, of frames on their way in, and of the token ring.
    pub fn bytes(&self) -> u64 {
        let document = self.document_bytes + DOCUMENT_OVERHEAD;
        let window = self.shuffle_buffer_size.saturating_mul(document).min(WINDOW_BYTES);
        let ahead = AHEAD_ROWS.saturating_mul(document).min(WINDOW_BYTES);
        let frame = self.batch_size.saturating_mul(self.document_bytes).min(FRAME_BYTES);
        let ring = ring_tokens(self.batch_tokens).next_power_of_two() as u64 * 4;
        self.sources as u64 * (window + ahead + frame) + ring
    }

    /// Bytes of the words that the encoding threads remember, at most.
    pub fn cache_bytes(&self) -> u64 {
        self.threads as u64 * candlewick_tokenizer::DOCUMENTS_BUDGET as u64
    }
}

/// A document's entry in its window and the allocator's rounding.
const DOCUMENT_OVERHEAD: u64 = 64;

/// A frame carries at most so much text, unless one document is longer.
const FRAME_BYTES: u64 = 32 << 20;
