use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::{
    FeedError, Gauge,
    encode::{Coming, Encoded},
    mix::{Mix, OnExhausted},
    reader::Begin,
    ring::Producer,
};

/// Tells the reading end which document begins where in the stream of tokens.
pub(crate) struct Marker {
    /// Tokens pushed before this document's first.
    pub(crate) at: u64,
    pub(crate) source: usize,
    pub(crate) begin: Arc<Begin>,
    /// Number of the document in its window's order.
    pub(crate) document: u64,
    /// Its first token that was pushed: not 0 for the document that a resumed stream begins in.
    pub(crate) offset: u64,
    /// Tokens each source had given before this document; empty when there is one source.
    pub(crate) consumed: Box<[u64]>,
    pub(crate) dropped: Box<[bool]>,
    /// File, group and row of the document.
    pub(crate) place: (u32, u32, u64),
    /// Tokens of the document, end-of-text included.
    pub(crate) length: u64,
}

/// The encoded documents of one source, one after the other.
pub(crate) struct Documents {
    coming: Receiver<Coming>,
    chunk: Option<(Encoded, usize)>,
    pub(crate) on_exhausted: OnExhausted,
}

impl Documents {
    pub(crate) fn new(coming: Receiver<Coming>, on_exhausted: OnExhausted) -> Self {
        Self { coming, chunk: None, on_exhausted }
    }

    /// Makes the next document current; false at the end of the source.
    fn advance(&mut self, gauge: &Gauge) -> Result<bool, FeedError> {
        if let Some((chunk, index)) = &mut self.chunk {
            *index += 1;
            if *index < chunk.ends.len() {
                return Ok(true);
            }
            gauge.remove_tokens(chunk.ids.len());
            self.chunk = None;
        }
        let Some(coming) = self.coming.recv().map_err(|_| FeedError::lost_thread())?? else {
            return Ok(false);
        };
        // No chunk is empty.
        self.chunk = Some((coming.recv().map_err(|_| FeedError::lost_thread())??, 0));
        Ok(true)
    }

    fn current(&self) -> (&Encoded, &[u32], u64) {
        let (chunk, index) = self.chunk.as_ref().expect("advance said that there is a document");
        let start = if *index == 0 { 0 } else { chunk.ends[index - 1] };
        (chunk, &chunk.ids[start..chunk.ends[*index]], chunk.first + *index as u64)
    }
}

/// What the packer goes on from.
pub(crate) struct PackStart {
    pub(crate) mix: Mix,
    /// Documents begun before this stream, the one it resumes in not counted.
    pub(crate) started: u64,
    /// The source and the token of its document that a resumed stream begins with.
    pub(crate) resume: Option<(usize, u64)>,
    pub(crate) max_samples: Option<u64>,
}

/// Mixes the sources document by document into the ring, until a limit or the end.
pub(crate) fn pack(
    mut sources: Vec<Documents>,
    start: PackStart,
    ring: &mut Producer,
    markers: &Sender<Marker>,
    gauge: &Gauge,
) -> Result<(), FeedError> {
    let PackStart { mut mix, mut started, mut resume, max_samples } = start;
    let single = sources.len() == 1;
    let mut at = 0_u64;
    while max_samples.is_none_or(|limit| started < limit) {
        let (index, offset) = match resume.take() {
            Some(place) => place,
            None => match mix.next() {
                Some(index) => (index, 0),
                None => return Ok(()),
            },
        };
        let source = &mut sources[index];
        if !source.advance(gauge)? {
            match source.on_exhausted {
                // A source that repeats ends only with the feed.
                OnExhausted::Stop | OnExhausted::Repeat => return Ok(()),
                OnExhausted::Drop => mix.drop_source(index),
            }
            continue;
        }
        let (chunk, ids, document) = source.current();
        let marker = Marker {
            at,
            source: index,
            begin: chunk.begin.clone(),
            document,
            offset,
            consumed: if single { Box::default() } else { mix.consumed().into() },
            dropped: if single { Box::default() } else { mix.dropped().into() },
            place: chunk.places[(document - chunk.first) as usize],
            length: ids.len() as u64,
        };
        let Some(tokens) = ids.get(offset as usize..).filter(|rest| !rest.is_empty()) else {
            return Err(FeedError::new(
                "SOURCE_CORRUPT",
                format!(
                    "the document that the stream stopped in has {} tokens, but token {offset} is next",
                    ids.len()
                ),
                "the dataset or the tokenizer has changed since the checkpoint; use the ones the run began with",
            ));
        };
        // The marker first: whoever reads the token finds where it belongs.
        if markers.send(marker).is_err() || ring.push(tokens).is_err() {
            return Ok(());
        }
        at += tokens.len() as u64;
        mix.consume(index, ids.len() as u64);
        started += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_whose_threads_are_gone_has_not_ended() {
        let (sender, coming) = crossbeam_channel::bounded(1);
        let mut documents = Documents::new(coming, OnExhausted::Stop);
        drop(sender);
        assert_eq!(documents.advance(&Gauge::default()).unwrap_err().code, "INTERNAL");
        let (sender, coming) = crossbeam_channel::bounded(1);
        sender.send(Ok(None)).unwrap();
        assert!(!Documents::new(coming, OnExhausted::Stop).advance(&Gauge::default()).unwrap());
    }
}
