//! The promise of the stream over random cases: datasets, mixtures, windows, epochs and limits; a streamer that dies in
//! the middle of frames; a process that ends at random points and goes on, with other threads, frames, limits and ranks.
//! What comes is compared with the documents that a few lines of plain code derive from the words of the promise.
//!
//! `CANDLEWICK_CASES` says how many cases (default 400), `CANDLEWICK_FIRST_CASE` where to begin.

mod support;

use candlewick_feed::{
    Batch, BatchShape, Feed, FeedOptions, HASH_START, HeldOutEnd, IGNORED, Next, OnExhausted, StreamState,
};
use candlewick_tokenizer::Tokenizer;
use support::*;

const SEED: u64 = 7;
const WEIGHTS: usize = 4;
const END_OF_TEXT: u32 = 0;

#[test]
fn every_token_comes_exactly_once_whatever_happens() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let first: u64 = number("CANDLEWICK_FIRST_CASE", 0);
    let cases = first..first + number("CANDLEWICK_CASES", 400_u64);
    let tokenizer = bytes_tokenizer();
    assert_eq!(tokenizer.eos_token().unwrap().0, END_OF_TEXT);
    let next = std::sync::atomic::AtomicU64::new(cases.start);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if case >= cases.end {
                        return;
                    }
                    // Shown when it fails: this case alone is `CANDLEWICK_FIRST_CASE=… CANDLEWICK_CASES=1`.
                    println!("case {case}");
                    Case::random(case).check(&tokenizer);
                }
            });
        }
    });
}

struct Case {
    number: u64,
    random: Random,
    datasets: Vec<Dataset>,
    options: FeedOptions,
    weights: Vec<u64>,
}

impl Case {
    fn random(number: u64) -> Self {
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x00ca_5e00);
        let many = random.below(3) == 0;
        let datasets: Vec<_> =
            (0..if many { 2 + random.below(4) } else { 1 }).map(|_| small_dataset(&mut random)).collect();
        let weights: Vec<_> = datasets.iter().map(|_| 1 + random.below(WEIGHTS) as u64).collect();
        let holds_out = random.below(4) == 0;
        let sources = datasets
            .iter()
            .zip(&weights)
            .map(|(dataset, &weight)| {
                let mut source = source(dataset);
                source.weight = weight as f64;
                source.on_exhausted =
                    [OnExhausted::Stop, OnExhausted::Drop, OnExhausted::Repeat][random.below(3)];
                source.held_out = holds_out.then(|| hold_out(dataset)).flatten();
                source
            })
            .collect();
        let mut options = options(sources, 1 + random.below(30), 4, 1 + random.below(20));
        options.epochs = Some(1 + random.below(3) as u64);
        if random.below(3) == 0 {
            options.max_samples = Some(1 + random.below(200) as u64);
        }
        // Where every source begins again for ever, only a limit ends the stream.
        let endless = many && options.sources.iter().all(|s| s.on_exhausted == OnExhausted::Repeat);
        if endless && options.max_samples.is_none() {
            options.max_samples = Some(150);
        }
        // One source that drops out leaves others that may be endless.
        if many && options.sources.iter().any(|s| s.on_exhausted == OnExhausted::Repeat) {
            options.max_samples = options.max_samples.or(Some(150));
        }
        Self { number, random, datasets, options, weights }
    }

    fn check(mut self, tokenizer: &Tokenizer) {
        let last = self.options.max_samples;
        let (tokens, ends) = self.expected(tokenizer, last.unwrap_or(u64::MAX));
        let mut expected = Expected { tokens, at: 0, hash: HASH_START };
        let mut legs = self.random.below(6);
        let mut state = None;
        loop {
            let finish = legs == 0;
            legs = legs.saturating_sub(1);
            // A leg may have a lower limit, as a run whose `max_samples` is raised afterwards.
            let limit = (!finish && self.random.below(3) == 0).then(|| 1 + self.random.below(ends.len()));
            let end = limit.map_or(expected.tokens.len(), |documents| ends[documents - 1]);
            let world_size = [1, 2, 4][self.random.below(3)];
            let options = FeedOptions {
                max_samples: limit.map(|n| n as u64).or(last),
                batch_size: 1 + self.random.below(40),
                threads: 1 + self.random.below(2),
                batches: self.options.batches.map(|shape| BatchShape {
                    rank: self.random.below(world_size),
                    world_size,
                    ..shape
                }),
                state: state.clone(),
                ..self.options.clone()
            };
            let most = if finish { usize::MAX } else { self.random.below(expected.left() / 40 + 3) };
            state = self.leg(&options, tokenizer, &mut expected, end, most).or(state);
            if finish {
                break;
            }
        }
        assert_eq!(expected.left(), 0, "case {}: the last leg goes to the end", self.number);
    }

    /// Reads up to `most` batches of a stream that ends before token `end`; gives the state after the last.
    fn leg(
        &mut self,
        options: &FeedOptions,
        tokenizer: &Tokenizer,
        expected: &mut Expected,
        end: usize,
        most: usize,
    ) -> Option<String> {
        let mortal = self.random.below(2) == 0;
        let streamers: Vec<_> = self
            .datasets
            .iter()
            .map(|dataset| {
                let deaths = mortal.then(|| Random(self.random.below(usize::MAX) as u64));
                Streamer::start_mortal(dataset, options.batch_size, deaths)
            })
            .collect();
        let links: Vec<_> = streamers.iter().map(|s| s.link.clone()).collect();
        let (feed, mut reader) = Feed::batches(options, &links, tokenizer).unwrap();
        let mut state = None;
        for _ in 0..most {
            let mut batch = Batch::default();
            let next = reader.next(&mut batch, &mut |_| ()).unwrap();
            let wanted = expected.batch(options.batches.unwrap(), end);
            assert_eq!(next == Next::Filled, wanted.is_some(), "case {} at {}", self.number, expected.at);
            let Some(wanted) = wanted else { break };
            assert!(
                (&batch.inputs, &batch.targets, batch.counted)
                    == (&wanted.inputs, &wanted.targets, wanted.counted),
                "case {} at token {}",
                self.number,
                expected.at
            );
            let json = serde_json::to_string(reader.state()).unwrap();
            let now: StreamState = serde_json::from_str(&json).unwrap();
            assert_eq!(
                (now.tokens, now.hash),
                (expected.at as u64, format!("{:016x}", expected.hash)),
                "case {}",
                self.number
            );
            state = Some(json);
        }
        drop(reader);
        drop(feed);
        state
    }

    /// The tokens of the first `most` documents, and where each document ends.
    fn expected(&self, tokenizer: &Tokenizer, most: u64) -> (Vec<u32>, Vec<usize>) {
        let epochs = self.options.epochs.unwrap();
        let count = self.datasets.len();
        let mut queues: Vec<std::vec::IntoIter<String>> = vec![Vec::new().into_iter(); count];
        let mut epoch = vec![0; count];
        let (mut consumed, mut active) = (vec![0_u64; count], vec![true; count]);
        let (mut tokens, mut ends) = (Vec::new(), Vec::new());
        while (ends.len() as u64) < most && active.contains(&true) {
            // The largest weight · total − consumed, times the sum of the weights so that it stays whole.
            let weights: u64 = (0..count).filter(|&i| active[i]).map(|i| self.weights[i]).sum();
            let total: u64 = consumed.iter().sum();
            let deficit = |i: usize| (self.weights[i] * total) as i128 - (consumed[i] * weights) as i128;
            let mut chosen = None;
            for i in (0..count).filter(|&i| active[i]) {
                if chosen.is_none_or(|best| deficit(i) > deficit(best)) {
                    chosen = Some(i);
                }
            }
            let i = chosen.unwrap();
            let source = &self.options.sources[i];
            let repeats = count > 1 && source.on_exhausted == OnExhausted::Repeat;
            let document = loop {
                if let Some(document) = queues[i].next() {
                    break Some(document);
                }
                if !repeats && epoch[i] == epochs {
                    break None;
                }
                epoch[i] += 1;
                let window = self.options.shuffle_buffer_size;
                queues[i] =
                    self.datasets[i].in_training_order(SEED, epoch[i], window, source.held_out).into_iter();
            };
            match document {
                Some(document) => {
                    let before = tokens.len();
                    tokenizer.encode_document(&document, &mut tokens).unwrap();
                    tokens.push(END_OF_TEXT);
                    consumed[i] += (tokens.len() - before) as u64;
                    ends.push(tokens.len());
                }
                None if source.on_exhausted == OnExhausted::Drop => {
                    active[i] = false;
                    consumed.fill(0);
                }
                None => break,
            }
        }
        (tokens, ends)
    }
}

/// The stream as it must come, and how much of it has.
struct Expected {
    tokens: Vec<u32>,
    /// The next input.
    at: usize,
    hash: u64,
}

impl Expected {
    fn left(&self) -> usize {
        self.tokens.len() - 1 - self.at
    }

    /// The next batch of a rank when the stream ends before token `end`.
    fn batch(&mut self, shape: BatchShape, end: usize) -> Option<Batch> {
        let BatchShape { rows, sequence_length, rank, world_size } = shape;
        let size = rows * sequence_length;
        let counted = size.min(end.saturating_sub(self.at + 1));
        if counted == 0 {
            return None;
        }
        let mut inputs = self.tokens[self.at..self.at + counted].to_vec();
        let mut targets = self.tokens[self.at + 1..self.at + 1 + counted].to_vec();
        for &target in &targets {
            self.hash = (self.hash ^ u64::from(target)).wrapping_mul(0x0100_0000_01b3);
        }
        self.at += counted;
        inputs.resize(size, END_OF_TEXT);
        targets.resize(size, IGNORED);
        let part = size / world_size;
        let (inputs, targets) =
            (inputs[rank * part..][..part].to_vec(), targets[rank * part..][..part].to_vec());
        let counted = targets.iter().filter(|&&t| t != IGNORED).count() as u64;
        Some(Batch { inputs, targets, rows: rows / world_size, sequence_length, counted })
    }
}

/// A few files of a few rows; now and then one of more than a turn.
fn small_dataset(random: &mut Random) -> Dataset {
    let row_groups = random.below(2) == 0;
    let mut files: Vec<_> = (0..1 + random.below(6))
        .map(|f| {
            let long = random.below(60) == 0;
            let groups = match (row_groups, long) {
                (true, true) => 130,
                (true, false) => random.below(5),
                (false, _) => 1,
            };
            let most = if !row_groups && long { 2_300 } else { 7 };
            let groups = (0..groups)
                .map(|g| {
                    (0..random.below(most))
                        .map(|r| match random.below(9) {
                            0 => None,
                            1 => Some(String::new()),
                            _ => Some(format!("{f}.{g}.{r}{}", "é ".repeat(random.below(9)))),
                        })
                        .collect()
                })
                .collect();
            File { path: format!("data/{f}.x"), groups }
        })
        .collect();
    if files[0].groups.is_empty() {
        files[0].groups.push(Vec::new());
    }
    files[0].groups[0].push(Some("one at least".into()));
    Dataset { files, row_groups }
}

/// The most that may be held out of a dataset.
fn hold_out(dataset: &Dataset) -> Option<HeldOutEnd> {
    let all = dataset.in_file_order();
    let documents = all.len() / 20;
    let ((file, group, row), _) = *all.get(documents.checked_sub(1)?)?;
    Some(HeldOutEnd { file, group, row, documents: documents as u64 })
}
