//! A streamer in memory, and the order rule written a second time, slowly.
#![allow(dead_code, unreachable_pub)] // every test file uses its own part

use std::{
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
};

use candlewick_feed::{
    Batch, BatchReader, BatchShape, Feed, FeedOptions, HeldOutEnd, Link, Next, OnExhausted, OrderKind,
    SourceOptions,
    frame::{Kind, write_frame},
    order::{Key, permutation},
};
use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use serde_json::{Value, json};

/// Rows of each row group of a file; `None` is a null.
pub type Rows = Vec<Option<String>>;

#[derive(Debug, Clone)]
pub struct File {
    pub path: String,
    /// One entry a row group; a file without row groups has one.
    pub groups: Vec<Rows>,
}

#[derive(Debug, Clone)]
pub struct Dataset {
    pub files: Vec<File>,
    pub row_groups: bool,
}

/// Small, fast, seeded; the tests print the seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % bound.max(1)
    }
}

impl Dataset {
    /// Files of many shapes: empty ones, empty row groups, nulls, empty texts, texts of every length.
    pub fn random(random: &mut Random, row_groups: bool) -> Self {
        let mut files = Vec::new();
        for f in 0..1 + random.below(9) {
            let groups = if row_groups { random.below(if f == 0 { 120 } else { 6 }) } else { 1 };
            let rows = if row_groups { 9 } else { 2600 };
            let groups = (0..groups)
                .map(|g| {
                    (0..random.below(rows))
                        .map(|r| match random.below(12) {
                            0 => None,
                            1 => Some(String::new()),
                            n => Some(format!("{f}.{g}.{r} ") + &"é x".repeat(random.below(n * 3))),
                        })
                        .collect()
                })
                .collect();
            files.push(File { path: format!("data/{f:02}.x"), groups });
        }
        files[0].groups.push(vec![Some("there is at least one document".into())]);
        if !row_groups {
            let last = files[0].groups.pop().unwrap();
            files[0].groups[0].extend(last);
        }
        Self { files, row_groups }
    }

    pub fn paths(&self) -> Vec<String> {
        self.files.iter().map(|f| f.path.clone()).collect()
    }

    /// Non-empty documents in file order, with their places.
    pub fn in_file_order(&self) -> Vec<((u32, u32, u64), String)> {
        let mut documents = Vec::new();
        for (f, file) in self.files.iter().enumerate() {
            for (g, group) in self.turns(file).iter().enumerate() {
                for (r, row) in group.iter().enumerate() {
                    if let Some(text) = row.as_deref().filter(|t| !t.is_empty()) {
                        documents.push(((f as u32, g as u32, r as u64), text.to_string()));
                    }
                }
            }
        }
        documents
    }

    fn turns(&self, file: &File) -> Vec<Rows> {
        if self.row_groups {
            return file.groups.clone();
        }
        let rows = file.groups.concat();
        // That a file without row groups is empty shows only when it is read: it takes a turn, with nothing in it.
        if rows.is_empty() { vec![rows] } else { rows.chunks(1000).map(<[_]>::to_vec).collect() }
    }

    /// The documents of an epoch in the order of training, by the words of the promise and nothing else.
    pub fn in_training_order(
        &self,
        seed: u64,
        epoch: u64,
        window: usize,
        held_out: Option<HeldOutEnd>,
    ) -> Vec<String> {
        let order = permutation(seed, epoch, Key::Files, self.files.len());
        let mut waiting: Vec<Vec<((u32, u32), Rows)>> = order
            .iter()
            .map(|&f| {
                let file = &self.files[f as usize];
                let turns = self.turns(file);
                if !self.row_groups {
                    return turns.into_iter().enumerate().map(|(g, rows)| ((f, g as u32), rows)).collect();
                }
                let segments: Vec<Vec<_>> = turns
                    .into_iter()
                    .enumerate()
                    .map(|(g, rows)| ((f, g as u32), rows))
                    .collect::<Vec<_>>()
                    .chunks(50)
                    .map(<[_]>::to_vec)
                    .collect();
                let order = permutation(seed, epoch, Key::Segments { path: &file.path }, segments.len());
                order.iter().flat_map(|&s| segments[s as usize].clone()).collect()
            })
            .filter(|turns: &Vec<_>| !turns.is_empty())
            .collect();
        waiting.reverse();
        let mut open: Vec<Option<std::vec::IntoIter<_>>> =
            (0..4).map(|_| waiting.pop().map(Vec::into_iter)).collect();
        let mut rows = Vec::new();
        while open.iter().any(Option::is_some) {
            for place in &mut open {
                let Some(file) = place else { continue };
                if let Some(((f, g), turn)) = file.next() {
                    rows.extend(turn.into_iter().enumerate().map(|(r, row)| ((f, g, r as u64), row)));
                }
                if file.len() == 0 {
                    *place = waiting.pop().map(Vec::into_iter);
                }
            }
        }
        let documents: Vec<String> = rows
            .into_iter()
            .filter(|(place, _)| held_out.is_none_or(|end| *place > (end.file, end.group, end.row)))
            .filter_map(|(_, row)| row.filter(|text| !text.is_empty()))
            .collect();
        documents
            .chunks(window)
            .enumerate()
            .flat_map(|(i, chunk)| {
                permutation(seed, epoch, Key::Window { index: i as u64 }, chunk.len())
                    .into_iter()
                    .map(|d| chunk[d as usize].clone())
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Answers a link's requests on a thread of its own, a frame a few rows.
pub struct Streamer {
    pub link: Link,
    wake: Arc<(Mutex<(bool, bool)>, Condvar)>,
    thread: Option<JoinHandle<usize>>,
}

impl Streamer {
    pub fn start(dataset: &Dataset, batch_size: usize) -> Self {
        Self::start_mortal(dataset, batch_size, None)
    }

    /// With `deaths`, it dies now and then in the middle of a frame and is started anew.
    pub fn start_mortal(dataset: &Dataset, batch_size: usize, mut deaths: Option<Random>) -> Self {
        let link = Link::new();
        let wake = Arc::new((Mutex::new((false, false)), Condvar::new()));
        let notify = wake.clone();
        link.on_request(move || {
            notify.0.lock().unwrap().0 = true;
            notify.1.notify_one();
        });
        let (thread_link, thread_wake, dataset) = (link.clone(), wake.clone(), dataset.clone());
        let thread = std::thread::spawn(move || {
            let (mut sequence, mut rows_sent) = (0, 0);
            // False when the process died before it had sent everything.
            let mut send = |kind, json: Value, binary: &[u8]| {
                let bytes = write_frame(kind, sequence, json.to_string().as_bytes(), binary);
                sequence += 1;
                let dies = deaths.as_mut().and_then(|random| (random.below(6) == 0).then_some(random));
                let sent = dies.map_or(bytes.len(), |random| random.below(bytes.len()));
                // In pieces, as a pipe gives them.
                for piece in bytes[..sent].chunks(1000) {
                    if let Err(error) = thread_link.push(piece) {
                        thread_link.fail(error);
                        return false;
                    }
                }
                if sent < bytes.len() {
                    sequence = 0;
                    thread_link.restart();
                }
                sent == bytes.len()
            };
            'requests: loop {
                let requests = thread_link.take_requests();
                if requests.is_empty() {
                    let mut state = thread_wake.0.lock().unwrap();
                    while !state.0 && !state.1 {
                        state = thread_wake.1.wait(state).unwrap();
                    }
                    state.0 = false;
                    if state.1 {
                        return rows_sent;
                    }
                    continue;
                }
                for line in requests.lines() {
                    let request: Value = serde_json::from_str(line).unwrap();
                    let number = |key: &str| request[key].as_u64().unwrap();
                    let file = &dataset.files[number("file") as usize];
                    if request["op"] == "file" {
                        let groups: Vec<_> = file.groups.iter().map(Vec::len).collect();
                        let json = json!({"id": number("id"), "file": number("file"), "row_groups": groups});
                        if !send(Kind::File, json, &[]) {
                            continue 'requests;
                        }
                        continue;
                    }
                    let turns = dataset.turns(file);
                    let group = number("group") as usize;
                    let empty = Vec::new();
                    let turn = turns.get(group).unwrap_or(&empty);
                    let (mut row, last) = (number("row") as usize, (number("row") + number("rows")) as usize);
                    loop {
                        let to = (row + batch_size).min(last).min(turn.len());
                        let end = to == turn.len();
                        let (mut offsets, mut text) = (0_u32.to_le_bytes().to_vec(), Vec::new());
                        for document in &turn[row..to] {
                            text.extend_from_slice(document.as_deref().unwrap_or("").as_bytes());
                            offsets.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        }
                        rows_sent += to - row;
                        let eof = end && group + 1 >= turns.len();
                        let json = json!({"id": number("id"), "file": number("file"), "group": group, "row": row,
                            "rows": to - row, "end": end, "eof": eof});
                        if !send(Kind::Batch, json, &[offsets, text].concat()) {
                            continue 'requests;
                        }
                        row = to;
                        if end || row == last {
                            break;
                        }
                    }
                }
            }
        });
        Self { link, wake, thread: Some(thread) }
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        self.wake.0.lock().unwrap().1 = true;
        self.wake.1.notify_one();
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}

/// Bytes as tokens: id 0 is end-of-text, then the 256 bytes.
pub fn bytes_tokenizer() -> Tokenizer {
    let options = TrainOptions { vocab_size: 257, pattern: Pattern::Gpt2, ..TrainOptions::default() };
    let mut trainer = BpeTrainer::new(options).unwrap();
    trainer.count(&["a few words of text"]).unwrap();
    trainer.finish(&|_| true).unwrap()
}

pub fn source(dataset: &Dataset) -> SourceOptions {
    SourceOptions {
        files: dataset.paths(),
        row_groups: dataset.row_groups,
        weight: 1.0,
        on_exhausted: OnExhausted::Stop,
        held_out: None,
        after: None,
        identity: serde_json::Map::new(),
    }
}

pub fn options(
    sources: Vec<SourceOptions>,
    window: usize,
    rows: usize,
    sequence_length: usize,
) -> FeedOptions {
    FeedOptions {
        sources,
        order: OrderKind::Shuffled,
        seed: 7,
        shuffle_buffer_size: window,
        batch_size: 1000,
        epochs: Some(1),
        max_samples: None,
        threads: 2,
        batches: Some(BatchShape { rows, sequence_length, rank: 0, world_size: 1 }),
        state: None,
        reset: false,
        skip: Vec::new(),
    }
}

/// Every batch with the state after it, up to `limit` of them.
pub fn batches(reader: &mut BatchReader, limit: usize) -> Vec<(Batch, String)> {
    let mut all = Vec::new();
    let mut batch = Batch::default();
    while all.len() < limit && reader.next(&mut batch, &mut |_| ()).unwrap() == Next::Filled {
        all.push((batch.clone(), serde_json::to_string(reader.state()).unwrap()));
    }
    all
}

/// Runs a feed over datasets in memory.
pub fn run(
    datasets: &[&Dataset],
    options: &FeedOptions,
    tokenizer: &Tokenizer,
    limit: usize,
) -> Vec<(Batch, String)> {
    let streamers: Vec<_> = datasets.iter().map(|d| Streamer::start(d, options.batch_size)).collect();
    let links: Vec<_> = streamers.iter().map(|s| s.link.clone()).collect();
    let (feed, mut reader) = Feed::batches(options, &links, tokenizer).unwrap();
    let all = batches(&mut reader, limit);
    drop(reader);
    drop(feed);
    all
}

/// The stream of tokens that batches were cut from: the first input, then every counted target.
pub fn stream(batches: &[(Batch, String)]) -> Vec<u32> {
    let first = batches.first().map(|(b, _)| b.inputs[0]);
    let targets = batches
        .iter()
        .flat_map(|(b, _)| b.targets.iter().copied().filter(|&t| t != candlewick_feed::IGNORED));
    first.into_iter().chain(targets).collect()
}

/// The documents of a stream of byte tokens.
pub fn documents(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let (end, _) = tokenizer.eos_token().unwrap();
    let mut parts: Vec<_> = tokens.split(|&t| t == end).map(|ids| tokenizer.decode(ids, false)).collect();
    assert_eq!(parts.pop().as_deref(), Some(""), "a stream ends with end-of-text");
    parts
}
