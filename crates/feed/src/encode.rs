use std::{sync::Arc, thread::JoinHandle};

use candlewick_tokenizer::Tokenizer;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{
    FeedError, Gauge,
    document::Document,
    reader::{Begin, Windows},
};

/// A chunk of documents goes to a worker when it has this many bytes of text: large enough that hand-over costs
/// nothing, small enough that the first tokens come soon.
const CHUNK_BYTES: usize = 128 << 10;

/// Documents encoded, in window order.
pub(crate) struct Encoded {
    pub(crate) begin: Arc<Begin>,
    /// Number of the first document in the window's order.
    pub(crate) first: u64,
    /// Ids of all documents, each closed by end-of-text.
    pub(crate) ids: Vec<u32>,
    /// Where each document ends in `ids`.
    pub(crate) ends: Vec<usize>,
    /// File, group and row of each document.
    pub(crate) places: Vec<(u32, u32, u64)>,
}

/// An encoded chunk that may still be in the making, or none at the end of the source.
pub(crate) type Coming = Result<Option<Receiver<Result<Encoded, FeedError>>>, FeedError>;

pub(crate) struct Job {
    begin: Arc<Begin>,
    first: u64,
    documents: Vec<Document>,
    reply: Sender<Result<Encoded, FeedError>>,
}

/// Starts threads that encode jobs until every sender of jobs is gone.
pub(crate) fn start_workers(
    threads: usize,
    tokenizer: &Tokenizer,
    end_of_text: u32,
    gauge: &Arc<Gauge>,
    jobs: &Receiver<Job>,
) -> Vec<JoinHandle<()>> {
    (0..threads)
        .map(|i| {
            let (tokenizer, gauge, jobs) = (tokenizer.clone(), gauge.clone(), jobs.clone());
            std::thread::Builder::new()
                .name(format!("encode-{i}"))
                .spawn(move || {
                    for job in jobs {
                        let reply = job.reply.clone();
                        let encoded = encode(&tokenizer, end_of_text, job);
                        if let Ok(encoded) = &encoded {
                            gauge.add_tokens(encoded.ids.len());
                        }
                        // Nobody waits for it when the feed closes.
                        let _ = reply.send(encoded);
                    }
                })
                .expect("the operating system starts a thread")
        })
        .collect()
}

fn encode(tokenizer: &Tokenizer, end_of_text: u32, job: Job) -> Result<Encoded, FeedError> {
    let bytes: usize = job.documents.iter().map(|d| d.bytes().len()).sum();
    let mut ids = Vec::with_capacity(bytes / 3 + job.documents.len());
    let mut ends = Vec::with_capacity(job.documents.len());
    for document in &job.documents {
        // The streamer sends UTF-8; a source that does not is read as well as it can be.
        tokenizer.encode_document(&String::from_utf8_lossy(document.bytes()), &mut ids)?;
        ids.push(end_of_text);
        ends.push(ids.len());
    }
    let places = job.documents.iter().map(Document::place).collect();
    Ok(Encoded { begin: job.begin, first: job.first, ids, ends, places })
}

/// Cuts windows into jobs, in order, leaving out the first `skip` documents of the first window.
pub(crate) fn dispatch(windows: Receiver<Windows>, jobs: Sender<Job>, coming: Sender<Coming>, mut skip: u64) {
    for window in windows {
        let window = match window {
            Ok(Some(window)) => window,
            // Nobody is left to tell when the feed closes.
            Ok(None) => return drop(coming.send(Ok(None))),
            Err(error) => return drop(coming.send(Err(error))),
        };
        let drained = |documents: usize, bytes: usize| {
            if let Some(undrained) = &window.undrained {
                undrained.remove(documents as u64, bytes as u64);
            }
        };
        let mut documents = window.documents.into_iter().enumerate().peekable();
        while documents.next_if(|&(index, _)| (index as u64) < skip).is_some_and(|(_, skipped)| {
            drained(1, skipped.bytes().len());
            true
        }) {}
        skip = 0;
        while let Some(&(first, _)) = documents.peek() {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            while bytes < CHUNK_BYTES
                && let Some((_, document)) = documents.next()
            {
                bytes += document.bytes().len();
                chunk.push(document);
            }
            drained(chunk.len(), bytes);
            let (reply, encoded) = bounded(1);
            let job = Job { begin: window.begin.clone(), first: first as u64, documents: chunk, reply };
            // The place in the order first, then the work: `coming` is bounded and so bounds what is in flight.
            if coming.send(Ok(Some(encoded))).is_err() || jobs.send(job).is_err() {
                return;
            }
        }
    }
}
