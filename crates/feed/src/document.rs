use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{Gauge, link::Inbox, reader::Begin};

/// One non-empty document.
///
/// It owns its text, so that memory goes document by document while a window drains in its random order: a frame that
/// all its documents referred to would stay until nearly the last of the window.
pub struct Document {
    text: Box<[u8]>,
    file: u32,
    group: u32,
    row: u64,
    gauge: Arc<Gauge>,
}

impl Document {
    pub(crate) fn new(text: &[u8], file: u32, group: u32, row: u64, gauge: Arc<Gauge>) -> Self {
        gauge.add_text(text.len() as u64);
        Self { text: text.into(), file, group, row, gauge }
    }

    /// Its bytes, never empty, as they came; not checked to be UTF-8.
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// Index of its file, its row group (or turn) and its row within that.
    pub fn place(&self) -> (u32, u32, u64) {
        (self.file, self.group, self.row)
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        self.gauge.remove_text(self.text.len() as u64);
    }
}

/// Documents in the order in which they are to be used.
pub(crate) struct Window {
    pub(crate) begin: Arc<Begin>,
    pub(crate) documents: Vec<Document>,
    /// None in file order, where a window is a frame.
    pub(crate) undrained: Option<Arc<Undrained>>,
}

/// What a reader has handed on and nobody has begun to encode. It fetches no faster than this shrinks, so that the
/// window that drains and the one that fills take little more memory than one.
pub(crate) struct Undrained {
    documents: AtomicU64,
    bytes: AtomicU64,
    /// Documents and bytes taken since the reader was told.
    untold: (AtomicU64, AtomicU64),
    reader: Arc<Inbox>,
}

/// The reader is told after so many documents or bytes: each time costs a change of thread, and it fetches row groups.
const TELL_DOCUMENTS: u64 = 256;
const TELL_BYTES: u64 = 1 << 20;

impl Undrained {
    pub(crate) fn new(reader: Arc<Inbox>) -> Self {
        Self { documents: AtomicU64::new(0), bytes: AtomicU64::new(0), untold: Default::default(), reader }
    }

    pub(crate) fn documents(&self) -> u64 {
        self.documents.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, documents: u64, bytes: u64) {
        self.documents.fetch_add(documents, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Some were taken, by the only thread that takes them: when it is worth it, and when nothing is left, the reader
    /// looks whether it may fetch more.
    pub(crate) fn remove(&self, documents: u64, bytes: u64) {
        let left = self.documents.fetch_sub(documents, Ordering::Relaxed) - documents;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let untold = (
            self.untold.0.fetch_add(documents, Ordering::Relaxed) + documents,
            self.untold.1.fetch_add(bytes, Ordering::Relaxed) + bytes,
        );
        if left == 0 || untold.0 >= TELL_DOCUMENTS || untold.1 >= TELL_BYTES {
            self.untold.0.store(0, Ordering::Relaxed);
            self.untold.1.store(0, Ordering::Relaxed);
            self.reader.nudge();
        }
    }
}
