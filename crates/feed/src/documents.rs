use std::{collections::VecDeque, sync::Arc};

use crossbeam_channel::Receiver;

use crate::{
    FeedError, OnExhausted,
    document::{Document, Undrained},
    mix::Mix,
    reader::Windows,
};

/// The documents of a feed, in its order, without tokens. Several sources are mixed as batches are, with bytes of text
/// standing for tokens.
pub struct Documents {
    sources: Vec<Source>,
    mix: Mix,
    /// Documents until the limit; none: no limit.
    left: Option<u64>,
    /// The source of the next document where that is decided already.
    next: Option<usize>,
}

/// One source of a feed of documents.
pub(crate) struct Source {
    windows: Receiver<Windows>,
    ready: VecDeque<Document>,
    undrained: Option<Arc<Undrained>>,
    on_exhausted: OnExhausted,
}

impl Source {
    pub(crate) fn new(windows: Receiver<Windows>, on_exhausted: OnExhausted) -> Self {
        Self { windows, ready: VecDeque::new(), undrained: None, on_exhausted }
    }
}

impl Documents {
    pub(crate) fn new(sources: Vec<Source>, weights: Vec<f64>, limit: Option<u64>) -> Self {
        Self { sources, mix: Mix::new(weights), left: limit, next: None }
    }

    /// The next document, or none at the end.
    ///
    /// # Errors
    /// Whatever made a source fail.
    pub fn next_document(&mut self) -> Result<Option<Document>, FeedError> {
        while self.left != Some(0) {
            let Some(index) = self.next.take().or_else(|| self.mix.next()) else { break };
            let source = &mut self.sources[index];
            if let Some(document) = source.ready.pop_front() {
                if let Some(undrained) = &source.undrained {
                    undrained.remove(1, document.bytes().len() as u64);
                }
                self.mix.consume(index, document.bytes().len() as u64);
                if let Some(left) = &mut self.left {
                    *left -= 1;
                }
                return Ok(Some(document));
            }
            match source.windows.recv().map_err(|_| FeedError::lost_thread())?? {
                Some(window) => {
                    source.ready.extend(window.documents);
                    source.undrained = window.undrained;
                    self.next = Some(index);
                }
                None if source.on_exhausted == OnExhausted::Drop => self.mix.drop_source(index),
                None => break,
            }
        }
        self.left = Some(0);
        Ok(None)
    }

    /// Up to `max` documents, at least one unless the stream is over.
    ///
    /// # Errors
    /// Whatever made a source fail.
    pub fn take(&mut self, max: usize) -> Result<Vec<Document>, FeedError> {
        let mut documents = Vec::new();
        while documents.len() < max {
            // What is there now is enough: waiting for more would hold back what can be used.
            let waits = self.mix.next().is_some_and(|index| self.sources[index].ready.is_empty());
            if !documents.is_empty() && waits {
                break;
            }
            match self.next_document()? {
                Some(document) => documents.push(document),
                None => break,
            }
        }
        Ok(documents)
    }
}
