use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use candlewick_tokenizer::Tokenizer;
use crossbeam_channel::{Receiver, bounded, unbounded};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    BatchReader, FeedError, Gauge, HeldOutEnd, Input, OnExhausted, Place, SourceState, StreamState,
    documents::{self, Documents},
    encode::{dispatch, start_workers},
    link::Inbox,
    mix::Mix,
    order::{OPEN_FILES, Plan},
    pack::{Documents as EncodedDocuments, PackStart, pack},
    reader::{Begin, Reader, ReaderOptions, Windows},
    ring::{Waker, ring},
    skip::Skips,
    state::HASH_START,
};

/// The order of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderKind {
    /// File after file, row after row.
    File,
    /// The order of training: permuted files and segments, shuffle windows.
    Shuffled,
}

/// One source of a feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// Paths of its files, sorted.
    pub files: Vec<String>,
    /// Files are read by row group.
    pub row_groups: bool,
    /// Its share of the tokens, relative to the other sources'.
    pub weight: f64,
    /// What happens at its last epoch's end.
    pub on_exhausted: OnExhausted,
    /// Where its held-out part ends.
    pub held_out: Option<HeldOutEnd>,
    /// In file order: the last row that was read before; reading goes on behind it.
    #[serde(default)]
    pub after: Option<Place>,
    /// What makes it this source and no other: compared when a stream goes on.
    #[serde(default)]
    pub identity: Map<String, Value>,
}

/// What batches look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchShape {
    /// Sequences of the global batch.
    pub rows: usize,
    /// Tokens a sequence.
    pub sequence_length: usize,
    /// Which part of the rows this process takes.
    pub rank: usize,
    /// How many parts there are; divides `rows`.
    pub world_size: usize,
}

/// What a feed reads and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedOptions {
    /// Where documents come from.
    pub sources: Vec<SourceOptions>,
    /// In which order.
    pub order: OrderKind,
    /// Decides every permutation.
    pub seed: u64,
    /// Documents of a shuffle window.
    pub shuffle_buffer_size: usize,
    /// Documents a frame: the streamer's business, here only told.
    pub batch_size: usize,
    /// Passes over each source; none: no limit.
    pub epochs: Option<u64>,
    /// Documents in all; none: no limit.
    pub max_samples: Option<u64>,
    /// Threads that encode; 0: as many as there are processors.
    pub threads: usize,
    /// Present for a feed of batches.
    pub batches: Option<BatchShape>,
    /// State to go on from, as JSON.
    pub state: Option<String>,
    /// Start over: of `state` only the counters and the hash go on.
    #[serde(default)]
    pub reset: bool,
    /// Global batches to leave out: first and last of each range, numbered from 1.
    #[serde(default)]
    pub skip: Vec<[u64; 2]>,
}

/// A running stream. Dropping it, or [`close`](Self::close), ends its threads.
pub struct Feed {
    stopper: Stopper,
    threads: Vec<JoinHandle<()>>,
    gauge: Arc<Gauge>,
}

/// Stops a feed from another thread, without waiting for it.
#[derive(Clone, Default)]
pub struct Stopper {
    inboxes: Vec<Arc<Inbox>>,
    ring: Option<(Waker, Outcome)>,
}

/// How a stream of tokens ended; nothing until it has.
pub(crate) type Outcome = Arc<Mutex<Option<Result<(), FeedError>>>>;

impl Stopper {
    /// Whoever waits for documents or batches gets the error `ABORTED`; the feed's threads end.
    pub fn stop(&self) {
        for inbox in &self.inboxes {
            inbox.fail(FeedError::closed());
        }
        if let Some((ring, failure)) = &self.ring {
            failure
                .lock()
                .expect("no thread panics while it holds this")
                .get_or_insert_with(|| Err(FeedError::closed()));
            ring.abandon();
        }
    }
}

impl Feed {
    /// Starts a feed of documents.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for a source without its link.
    pub fn documents<L: Clone + Into<Input>>(
        options: &FeedOptions,
        links: &[L],
    ) -> Result<(Self, Documents), FeedError> {
        check_links(options, links)?;
        let mut feed = Self::empty();
        let sources = options
            .sources
            .iter()
            .zip(links)
            .enumerate()
            .map(|(index, (source, link))| {
                let windows = feed.start_reader(options, index, link.clone().into(), None);
                documents::Source::new(windows, source.on_exhausted)
            })
            .collect();
        let weights = options.sources.iter().map(|s| s.weight).collect();
        Ok((feed, Documents::new(sources, weights, options.max_samples)))
    }

    /// Starts a feed of batches.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for a shape without rows or a world size that does not divide them, `TOKENIZER_INVALID` for a
    /// tokenizer without end-of-text, `RESUME_MISMATCH` and `CHECKPOINT_CORRUPT` for a state that does not fit (the
    /// batches left out before it included).
    pub fn batches<L: Clone + Into<Input>>(
        options: &FeedOptions,
        links: &[L],
        tokenizer: &Tokenizer,
    ) -> Result<(Self, BatchReader), FeedError> {
        let shape = checked_shape(options)?;
        check_links(options, links)?;
        let (end_of_text, _) = tokenizer.eos_token()?;
        let mut state = initial_state(options, shape, tokenizer)?;
        readmit(&mut state, options.epochs);
        let skips = Skips::new(&options.skip)?;
        skips.check(&state)?;
        let resumed = state.started > 0;

        let mut feed = Self::empty();
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let (job_sender, jobs) = bounded(threads);
        feed.threads.extend(start_workers(threads, tokenizer, end_of_text, &feed.gauge, &jobs));
        drop(jobs);
        let mut sources = Vec::new();
        for (index, (link, at)) in links.iter().zip(&state.sources).enumerate() {
            let begin = resumed.then(|| at.begin.clone());
            let windows = feed.start_reader(options, index, link.clone().into(), begin);
            let (coming_sender, coming) = bounded(2 * threads + 2);
            let (jobs, skip) = (job_sender.clone(), at.document);
            feed.spawn("dispatch", move || dispatch(windows, jobs, coming_sender, skip));
            sources.push(EncodedDocuments::new(coming, options.sources[index].on_exhausted));
        }
        drop(job_sender);

        let mut mix = Mix::new(options.sources.iter().map(|s| s.weight).collect());
        mix.restore(
            state.sources.iter().map(|s| s.consumed).collect(),
            state.sources.iter().map(|s| s.dropped).collect(),
        );
        let start = PackStart {
            mix,
            started: state.earlier + state.started.saturating_sub(1),
            resume: resumed.then(|| (state.current, state.sources[state.current].offset)),
            max_samples: options.max_samples,
        };
        let (mut producer, consumer) = ring(ring_tokens(shape.rows * shape.sequence_length));
        feed.gauge.add_tokens(producer.capacity());
        let (marker_sender, markers) = unbounded();
        let outcome = Outcome::default();
        feed.stopper.ring = Some((consumer.waker(), outcome.clone()));
        let (told, gauge) = (outcome.clone(), feed.gauge.clone());
        feed.spawn("pack", move || {
            let ended = pack(sources, start, &mut producer, &marker_sender, &gauge);
            // Told before the producer goes, so that whoever sees the end also sees how it came.
            told.lock().expect("no thread panics while it holds this").get_or_insert(ended);
        });
        // The first token of the stream, or of the resumed one, enters its document again.
        let state = StreamState { started: state.started.saturating_sub(1), ..state };
        Ok((feed, BatchReader::new(consumer, markers, outcome, shape, skips, end_of_text, state)))
    }

    /// What this feed holds and has read.
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// A handle that stops this feed from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Ends the feed and waits for its threads.
    pub fn close(&mut self) {
        self.stopper.stop();
        for thread in self.threads.drain(..) {
            // A panic of a thread was reported where it happened.
            let _ = thread.join();
        }
    }

    fn empty() -> Self {
        Self { stopper: Stopper::default(), threads: Vec::new(), gauge: Arc::default() }
    }

    fn start_reader(
        &mut self,
        options: &FeedOptions,
        index: usize,
        link: Input,
        from: Option<Begin>,
    ) -> Receiver<Windows> {
        let source = &options.sources[index];
        let shuffled = options.order == OrderKind::Shuffled;
        let inbox = Arc::new(Inbox::new(self.gauge.clone()));
        self.stopper.inboxes.push(inbox.clone());
        // One full window may wait while another drains; in file order a window is only a frame.
        let (sender, windows) = bounded(if shuffled { 0 } else { 4 });
        let repeats = source.on_exhausted == OnExhausted::Repeat && options.sources.len() > 1;
        let reader = Reader::new(
            link,
            inbox,
            source.files.clone().into(),
            ReaderOptions {
                name: (options.sources.len() > 1).then(|| source_name(index, source)),
                seed: shuffled.then_some(options.seed),
                window_documents: match (shuffled, options.max_samples) {
                    (true, _) => options.shuffle_buffer_size.max(1),
                    (false, limit) => limit.map_or(usize::MAX, |n| n.max(1) as usize),
                },
                epochs: options.epochs.filter(|_| !repeats),
                held_out: source.held_out,
                after: source.after.filter(|_| !shuffled),
                row_groups: source.row_groups,
            },
            from,
            sender,
        );
        self.spawn("read", move || reader.run());
        windows
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body);
        self.threads.push(thread.expect("the operating system starts a thread"));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.close();
    }
}

/// Tokens that the ring has room for: two batches, so that the next one is there when the step wants it.
pub(crate) fn ring_tokens(batch: usize) -> usize {
    (2 * batch + 1).max(1 << 17)
}

/// Lets sources that dropped out after their last epoch take part again where more epochs are asked for now. Counts
/// restart, as they did when the source dropped out: nobody has to make up for its share.
fn readmit(state: &mut StreamState, epochs: Option<u64>) {
    let mut readmitted = false;
    for source in &mut state.sources {
        if source.dropped && epochs.is_none_or(|last| source.epoch() < last) {
            source.dropped = false;
            readmitted = true;
        }
    }
    if readmitted {
        state.sources.iter_mut().for_each(|source| source.consumed = 0);
    }
}

fn check_links<L>(options: &FeedOptions, links: &[L]) -> Result<(), FeedError> {
    if links.is_empty() || links.len() != options.sources.len() {
        return Err(invalid("every source needs its link", "this is a bug of candlewick; please report it"));
    }
    Ok(())
}

fn checked_shape(options: &FeedOptions) -> Result<BatchShape, FeedError> {
    let shape = options.batches.ok_or_else(|| {
        invalid("a feed of batches needs their shape", "this is a bug of candlewick; please report it")
    })?;
    if shape.rows == 0 || shape.sequence_length == 0 {
        return Err(invalid(
            "a batch needs at least one sequence of one token",
            "raise the batch size or sequence_length",
        ));
    }
    if shape.world_size == 0 || shape.rows % shape.world_size != 0 || shape.rank >= shape.world_size {
        let BatchShape { rows, rank, world_size, .. } = shape;
        return Err(invalid(
            format!("rank {rank} of {world_size} has no equal part of {rows} sequences"),
            "choose a global batch size that the number of ranks divides",
        ));
    }
    if options.order != OrderKind::Shuffled {
        return Err(invalid("batches are cut from the shuffled order", "use order: shuffled"));
    }
    Ok(shape)
}

/// The state that `options` name, or that of a stream that has not begun.
fn initial_state(
    options: &FeedOptions,
    shape: BatchShape,
    tokenizer: &Tokenizer,
) -> Result<StreamState, FeedError> {
    let mut identity = Map::new();
    identity.insert("data.seed".into(), options.seed.into());
    identity.insert("data.shuffle_buffer_size".into(), options.shuffle_buffer_size.into());
    identity.insert("tokenizer digest".into(), tokenizer.digest().into());
    let several = options.sources.len() > 1;
    let sources: Vec<_> =
        options.sources.iter().map(|s| (source_identity(s, several), s.files.len(), OPEN_FILES)).collect();
    let batch_tokens = (shape.rows * shape.sequence_length) as u64;
    let before = match &options.state {
        Some(json) if options.reset => Some(StreamState::read(json, batch_tokens)?),
        Some(json) => return StreamState::parse(json, &identity, &sources, batch_tokens),
        None => None,
    };
    let position = Plan::new(Arc::from([]), Some(options.seed)).start(1);
    let fresh = StreamState {
        version: StreamState::version(),
        tokens: 0,
        documents: 0,
        started: 0,
        earlier: 0,
        hash: format!("{HASH_START:016x}"),
        batches: 0,
        skipped: Vec::new(),
        current: 0,
        sources: sources
            .into_iter()
            .map(|(identity, ..)| SourceState {
                begin: Begin::new(0, position.clone()),
                document: 0,
                offset: 0,
                consumed: 0,
                tokens: 0,
                dropped: false,
                identity,
            })
            .collect(),
        identity,
    };
    Ok(match before {
        Some(before) => fresh.after(&before),
        None => fresh,
    })
}

/// What messages call a source of several.
fn source_name(index: usize, source: &SourceOptions) -> String {
    let name = match (source.identity.get("dataset"), source.identity.get("command")) {
        (Some(Value::String(dataset)), _) => dataset.clone(),
        (_, Some(Value::Array(command))) => {
            command.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        _ => return format!("sources[{index}]"),
    };
    format!("sources[{index}] ({name})")
}

fn source_identity(source: &SourceOptions, several: bool) -> Map<String, Value> {
    let mut identity = source.identity.clone();
    let mut digest = Sha256::new();
    for file in &source.files {
        digest.update(file.as_bytes());
        digest.update([0]);
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    identity.insert("digest of the file list".into(), hex.into());
    let held_out = source.held_out.map_or(0, |end| end.documents);
    identity.insert("evaluation.documents".into(), held_out.into());
    if several {
        // JavaScript writes 3.0 as 3: what it gives back has to be the same.
        let whole = source.weight.fract() == 0.0 && source.weight < 2_f64.powi(53);
        let weight = if whole { json!(source.weight as u64) } else { json!(source.weight) };
        identity.insert("weight".into(), weight);
        identity.insert("on_exhausted".into(), json!(source.on_exhausted));
    }
    identity
}

fn invalid(message: impl Into<String>, hint: impl Into<String>) -> FeedError {
    FeedError::new("CONFIG_INVALID", message, hint)
}
