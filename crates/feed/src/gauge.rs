use std::sync::atomic::{AtomicU64, Ordering};

/// What a feed holds in memory, counted by its parts; read by anyone at any time.
#[derive(Debug, Default)]
pub struct Gauge {
    text: AtomicU64,
    text_peak: AtomicU64,
    tokens: AtomicU64,
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
}

impl Gauge {
    /// Bytes of text in frames and windows now.
    pub fn text_bytes(&self) -> u64 {
        self.text.load(Ordering::Relaxed)
    }

    /// The most that [`text_bytes`](Self::text_bytes) has been.
    pub fn text_bytes_peak(&self) -> u64 {
        self.text_peak.load(Ordering::Relaxed)
    }

    /// Bytes of encoded tokens that are not in the ring yet, plus the ring's own memory.
    pub fn token_bytes(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Rows received so far: prefetched ones, nulls and held-out ones included.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// Bytes of text read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    pub(crate) fn add_text(&self, bytes: u64) {
        let now = self.text.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.text_peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn remove_text(&self, bytes: u64) {
        self.text.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_tokens(&self, count: usize) {
        self.tokens.fetch_add(count as u64 * 4, Ordering::Relaxed);
    }

    pub(crate) fn remove_tokens(&self, count: usize) {
        self.tokens.fetch_sub(count as u64 * 4, Ordering::Relaxed);
    }

    pub(crate) fn count_read(&self, rows: u64, bytes: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }
}
