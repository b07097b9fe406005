use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use serde::Serialize;

use crate::{
    Batch, FeedError, IGNORED, SourceState, StreamState,
    feed::{BatchShape, Outcome},
    pack::Marker,
    ring::{Consumer, Wait, Waker},
    skip::{Skips, add_batch},
    state::roll,
};

/// How often a wait comes back to let its caller tell that it waits.
const LOOK: Duration = Duration::from_millis(500);

/// What the next batch turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The batch was filled.
    Filled,
    /// The stream is over; the batch holds nothing.
    Ended,
    /// The interrupt was raised while waiting; calling again goes on where this stopped.
    Interrupted,
}

/// Ends the waits of a [`BatchReader`] on another thread.
#[derive(Clone)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    waker: Waker,
}

impl Interrupt {
    /// Makes the current wait, and every later one until [`lower`](Self::lower), end with [`Next::Interrupted`].
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Takes it back.
    pub fn lower(&self) {
        self.raised.store(false, Ordering::SeqCst);
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }
}

/// What a reader has left out since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Global batches.
    pub batches: u64,
    /// Targets in them.
    pub tokens: u64,
    /// End-of-text targets in them.
    pub documents: u64,
}

/// A document of a global batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Index of its source.
    pub source: usize,
    /// The pass over the source, from 1.
    pub epoch: u64,
    /// Index of its file in the source's list.
    pub file: u32,
    /// Its row group; for a file without, the turn of 1,000 rows.
    pub group: u32,
    /// Its row in the group.
    pub row: u64,
    /// Tokens of the whole document, end-of-text included.
    pub length: u64,
    /// Its first token in the batch, counted in the document.
    pub offset: u64,
    /// Where that token is among the batch's inputs, row-major.
    pub start: u64,
    /// Its inputs in the batch.
    pub tokens: u64,
}

/// Cuts batches from the ring, and knows the state that resumes after each.
pub struct BatchReader {
    ring: Consumer,
    markers: Receiver<Marker>,
    outcome: Outcome,
    interrupt: Interrupt,
    shape: BatchShape,
    skips: Skips,
    left_out: LeftOut,
    end_of_text: u32,
    /// State at the last batch; `ahead` is where reading has come since.
    state: StreamState,
    pending: VecDeque<Marker>,
    current: Option<Marker>,
    /// Tokens read from the ring: the index of the next one.
    read: u64,
    /// The first token that no source has been charged with. The very first is no target.
    charged: u64,
    /// The last token read: the next input.
    carry: Option<u32>,
    filling: Vec<u32>,
    hash: u64,
    waited: Duration,
    /// The documents begun last, with the index of their first token: those of the last batch and the next input's.
    begun: VecDeque<(u64, Span)>,
    /// Index of the last batch's first input, and how many there are.
    inputs: (u64, u64),
}

impl BatchReader {
    pub(crate) fn new(
        ring: Consumer,
        markers: Receiver<Marker>,
        outcome: Outcome,
        shape: BatchShape,
        skips: Skips,
        end_of_text: u32,
        state: StreamState,
    ) -> Self {
        let interrupt = Interrupt { raised: Arc::default(), waker: ring.waker() };
        let hash = state.hash_value();
        Self {
            ring,
            markers,
            outcome,
            interrupt,
            shape,
            skips,
            left_out: LeftOut::default(),
            end_of_text,
            state,
            pending: VecDeque::new(),
            current: None,
            read: 0,
            charged: 1,
            carry: None,
            filling: Vec::new(),
            hash,
            waited: Duration::ZERO,
            begun: VecDeque::new(),
            inputs: (0, 0),
        }
    }

    /// What ends this reader's waits.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// The shape of the batches.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// Time spent waiting for tokens so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Whether the tokens of a batch are here, so that [`BatchReader::next`] need not wait.
    pub fn is_ready(&mut self) -> bool {
        self.filling.len() + self.ring.available() > self.shape.rows * self.shape.sequence_length
    }

    /// What was left out so far.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// The documents of the last global batch, in order. Inputs past the end of a finite stream are in none.
    pub fn spans(&self) -> Vec<Span> {
        let (first, count) = self.inputs;
        let parts = self.begun.iter().filter_map(|&(at, span)| {
            let from = at.max(first);
            let until = (at + span.length - span.offset).min(first + count);
            (from < until).then(|| Span {
                offset: span.offset + (from - at),
                start: from - first,
                tokens: until - from,
                ..span
            })
        });
        parts.collect()
    }

    /// The state that resumes after the last batch (or, before the first, from the beginning).
    pub fn state(&self) -> &StreamState {
        &self.state
    }

    /// Reads the next global batch that is not left out and leaves this rank's rows in `batch`.
    ///
    /// Waits for tokens; `waiting` is called now and then meanwhile, with the length of this wait.
    ///
    /// # Errors
    /// Whatever made the source fail.
    pub fn next(&mut self, batch: &mut Batch, waiting: &mut dyn FnMut(Duration)) -> Result<Next, FeedError> {
        loop {
            match self.fill(waiting)? {
                Next::Filled if self.skips.contains(self.state.batches + 1) => self.leave_out(),
                Next::Filled => {
                    self.cut(batch);
                    return Ok(Next::Filled);
                }
                other => return Ok(other),
            }
            // Where tokens never run short, no wait looks at it.
            if self.interrupt.is_raised() {
                return Ok(Next::Interrupted);
            }
        }
    }

    /// Fills `filling` with the targets of a batch; fewer than a batch's where the stream ends.
    fn fill(&mut self, waiting: &mut dyn FnMut(Duration)) -> Result<Next, FeedError> {
        let wanted = self.shape.rows * self.shape.sequence_length;
        if self.carry.is_none() && !self.read_tokens(1, waiting)? {
            return Ok(self.incomplete());
        }
        if self.carry.is_none() {
            self.carry = self.filling.pop();
        }
        while self.filling.len() < wanted {
            let missing = wanted - self.filling.len();
            if !self.read_tokens(missing, waiting)? {
                if self.interrupt.is_raised() {
                    return Ok(Next::Interrupted);
                }
                break;
            }
        }
        Ok(if self.filling.is_empty() { Next::Ended } else { Next::Filled })
    }

    fn incomplete(&self) -> Next {
        if self.interrupt.is_raised() { Next::Interrupted } else { Next::Ended }
    }

    /// Moves up to `limit` tokens (at least one) from the ring to `filling`; false at the end or when interrupted.
    fn read_tokens(&mut self, limit: usize, waiting: &mut dyn FnMut(Duration)) -> Result<bool, FeedError> {
        let mut since = None;
        let ready = loop {
            if self.ring.available() > 0 {
                break true;
            }
            if self.interrupt.is_raised() {
                break false;
            }
            let start = *since.get_or_insert_with(Instant::now);
            match self.ring.wait(Some(LOOK)) {
                Wait::Ready => break true,
                Wait::Finished => {
                    let outcome = self.outcome.lock().expect("no thread panics while it holds this").clone();
                    outcome.unwrap_or_else(|| Err(FeedError::lost_thread()))?;
                    break false;
                }
                Wait::Woken => waiting(start.elapsed()),
            }
        };
        if let Some(start) = since {
            self.waited += start.elapsed();
        }
        if !ready {
            return Ok(false);
        }
        let (first, second) = self.ring.peek(limit);
        let count = first.len() + second.len();
        self.filling.extend_from_slice(first);
        self.filling.extend_from_slice(second);
        self.ring.release(count);
        self.read += count as u64;
        Ok(true)
    }

    /// Consumes `filling` without making a batch of it.
    fn leave_out(&mut self) {
        let (tokens, documents) = (self.state.tokens, self.state.documents);
        let targets = std::mem::take(&mut self.filling);
        self.consume(&targets);
        add_batch(&mut self.state.skipped, self.state.batches);
        self.left_out.batches += 1;
        self.left_out.tokens += self.state.tokens - tokens;
        self.left_out.documents += self.state.documents - documents;
        // Its memory serves the next.
        self.filling = targets;
        self.filling.clear();
    }

    /// Moves the state behind a batch with these targets.
    fn consume(&mut self, targets: &[u32]) {
        let counted = targets.len() as u64;
        self.inputs = (self.read - 1 - counted, counted);
        self.carry = targets.last().copied();
        self.state.batches += 1;
        self.state.tokens += counted;
        self.state.documents += targets.iter().filter(|&&t| t == self.end_of_text).count() as u64;
        self.hash = targets.iter().fold(self.hash, |hash, &token| roll(hash, token));
        self.state.hash = format!("{:016x}", self.hash);
        self.follow();
    }

    /// Makes a batch of `filling`, which holds its targets, and moves the state behind it.
    fn cut(&mut self, batch: &mut Batch) {
        let wanted = self.shape.rows * self.shape.sequence_length;
        let mut targets = std::mem::take(&mut self.filling);
        let mut inputs = Vec::with_capacity(wanted);
        inputs.extend(self.carry);
        inputs.extend_from_slice(&targets[..targets.len() - 1]);
        let counted = targets.len() as u64;
        self.consume(&targets);
        inputs.resize(wanted, self.end_of_text);
        targets.resize(wanted, IGNORED);
        // A part of the last batch may hold no target at all; it is still this rank's part of the step.
        let BatchShape { rows, sequence_length, rank, world_size } = self.shape;
        let part =
            rank * rows / world_size * sequence_length..(rank + 1) * rows / world_size * sequence_length;
        batch.rows = rows / world_size;
        batch.sequence_length = sequence_length;
        if world_size == 1 {
            (batch.inputs, batch.targets, batch.counted) = (inputs, targets, counted);
        } else {
            batch.counted = (counted as usize).clamp(part.start, part.end) as u64 - part.start as u64;
            (batch.inputs, batch.targets) = (inputs[part.clone()].to_vec(), targets[part].to_vec());
        }
    }

    /// Brings the state to the token read last, which is the next input.
    fn follow(&mut self) {
        let token = self.read - 1;
        let first = self.inputs.0;
        while self.begun.front().is_some_and(|(at, span)| at + span.length - span.offset <= first) {
            self.begun.pop_front();
        }
        loop {
            if self.pending.is_empty() {
                // Markers are sent before their tokens: everything up to `token` is here.
                self.pending.extend(self.markers.try_iter());
            }
            match self.pending.front() {
                Some(marker) if marker.at <= token => {
                    let marker = self.pending.pop_front().expect("looked at it just now");
                    self.enter(marker);
                }
                _ => break,
            }
        }
        let marker = self.current.as_ref().expect("the first token has a marker");
        let source = &mut self.state.sources[marker.source];
        source.offset = marker.offset + (token - marker.at);
        source.tokens += token + 1 - self.charged;
        self.charged = token + 1;
    }

    fn enter(&mut self, marker: Marker) {
        if let Some(left) = &self.current {
            let source: &mut SourceState = &mut self.state.sources[left.source];
            (source.document, source.offset) = (left.document + 1, 0);
            source.tokens += marker.at - self.charged;
            self.charged = marker.at;
        }
        self.state.started += 1;
        self.state.current = marker.source;
        for (source, &consumed) in self.state.sources.iter_mut().zip(&marker.consumed) {
            source.consumed = consumed;
        }
        for (source, &dropped) in self.state.sources.iter_mut().zip(&marker.dropped) {
            source.dropped = dropped;
        }
        let source = &mut self.state.sources[marker.source];
        source.begin = (*marker.begin).clone();
        let (file, group, row) = marker.place;
        self.begun.push_back((
            marker.at,
            Span {
                source: marker.source,
                epoch: source.epoch(),
                file,
                group,
                row,
                length: marker.length,
                offset: marker.offset,
                start: 0,
                tokens: 0,
            },
        ));
        (source.document, source.offset) = (marker.document, marker.offset);
        self.current = Some(marker);
    }
}
