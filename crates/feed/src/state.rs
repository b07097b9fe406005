use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{FeedError, reader::Begin};

/// What the rolling hash starts from (FNV-1a's offset basis).
pub const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_FACTOR: u64 = 0x100_0000_01b3;
const VERSION: u32 = 2;

/// Names the next input token of a stream. A few KB of JSON: no text, no tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamState {
    /// Version of this format.
    pub version: u32,
    /// Targets consumed so far.
    pub tokens: u64,
    /// End-of-text targets consumed so far.
    pub documents: u64,
    /// Documents begun so far, the current one included, since the stream began or was started over.
    pub started: u64,
    /// Documents of the streams before it was started over: limits count them too.
    #[serde(default)]
    pub earlier: u64,
    /// Rolling hash over the targets, 16 hexadecimal digits.
    pub hash: String,
    /// Global batches consumed so far, those left out included.
    #[serde(default)]
    pub batches: u64,
    /// Which of them were left out: first and last of each range, in order.
    #[serde(default)]
    pub skipped: Vec<[u64; 2]>,
    /// The source of the current document.
    pub current: usize,
    /// Where each source stands.
    pub sources: Vec<SourceState>,
    /// What the stream is made from; has to be the same when it goes on.
    pub identity: Map<String, Value>,
}

/// Where one source stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceState {
    /// The window of its current (or, when another source's turn it is, next) document.
    #[serde(flatten)]
    pub(crate) begin: Begin,
    /// Number of the document in that window's order.
    pub document: u64,
    /// Token of the document that comes next; its length means end-of-text.
    pub offset: u64,
    /// Tokens this source had given, before the current document, since the mixture last changed.
    pub consumed: u64,
    /// Targets of this source consumed so far, in all.
    #[serde(default)]
    pub tokens: u64,
    /// It has dropped out.
    pub dropped: bool,
    /// What the source is; has to be the same when the stream goes on.
    pub identity: Map<String, Value>,
}

impl SourceState {
    /// The pass over the source, from 1.
    pub fn epoch(&self) -> u64 {
        self.begin.position.epoch
    }
}

impl StreamState {
    /// The pass that the stream as a whole is in, from 1: the earliest of the sources that have not dropped out, or of
    /// all when all have.
    pub fn epoch(&self) -> u64 {
        let earliest = |dropped: bool| {
            self.sources.iter().filter(|s| dropped || !s.dropped).map(SourceState::epoch).min()
        };
        earliest(false).or_else(|| earliest(true)).unwrap_or(1)
    }

    /// Reads a state.
    ///
    /// Version 1 did not count batches: there each had `batch_tokens` targets, but for the last of a stream.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` for what is no state of this version.
    pub fn read(json: &str, batch_tokens: u64) -> Result<Self, FeedError> {
        let mut state: Self = serde_json::from_str(json).map_err(|e| corrupt(e.to_string()))?;
        match state.version {
            VERSION => {}
            1 => {
                state.version = VERSION;
                state.batches = state.tokens.div_ceil(batch_tokens);
            }
            other => {
                return Err(corrupt(format!("it has version {other}, this candlewick reads 1 to {VERSION}")));
            }
        }
        if state.hash.len() != 16 || u64::from_str_radix(&state.hash, 16).is_err() {
            return Err(corrupt(format!("{:?} is no hash", state.hash)));
        }
        Ok(state)
    }

    /// This state, of a stream that has not begun, with the counters and the hash of another that ends here.
    pub(crate) fn after(self, other: &Self) -> Self {
        Self {
            tokens: other.tokens,
            documents: other.documents,
            earlier: other.documents,
            hash: other.hash.clone(),
            batches: other.batches,
            skipped: other.skipped.clone(),
            ..self
        }
    }

    /// Reads a state and checks that it belongs to the stream that `identity` and `sources` describe.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` for what is no state of this version; `RESUME_MISMATCH` naming the key, its old and its
    /// new value for a state of another stream.
    pub fn parse(
        json: &str,
        identity: &Map<String, Value>,
        sources: &[(Map<String, Value>, usize, usize)],
        batch_tokens: u64,
    ) -> Result<Self, FeedError> {
        let state = Self::read(json, batch_tokens)?;
        compare("", &state.identity, identity)?;
        if state.sources.len() != sources.len() {
            return Err(mismatch(
                "the number of data.sources",
                &state.sources.len().into(),
                &sources.len().into(),
            ));
        }
        for (i, (source, (identity, files, places))) in state.sources.iter().zip(sources).enumerate() {
            let prefix = if sources.len() == 1 { String::new() } else { format!("data.sources[{i}].") };
            compare(&prefix, &source.identity, identity)?;
            let p = &source.begin.position;
            let open = p.slots.iter().flatten().all(|slot| (slot.file as usize) < *files);
            if p.slots.len() != *places
                || p.turn >= *places
                || p.opened as usize > *files
                || !open
                || p.epoch == 0
            {
                return Err(corrupt(format!("source {i} stands outside its files")));
            }
        }
        if state.current >= sources.len() {
            return Err(corrupt("it names a source that does not exist".into()));
        }
        Ok(state)
    }

    pub(crate) fn version() -> u32 {
        VERSION
    }

    pub(crate) fn hash_value(&self) -> u64 {
        u64::from_str_radix(&self.hash, 16).expect("checked when the state was read or made here")
    }
}

pub(crate) fn roll(hash: u64, token: u32) -> u64 {
    (hash ^ u64::from(token)).wrapping_mul(HASH_FACTOR)
}

fn corrupt(what: String) -> FeedError {
    FeedError::new(
        "CHECKPOINT_CORRUPT",
        format!("the stream's state cannot be read: {what}"),
        "resume from an older checkpoint (--resume DIR)",
    )
}

fn compare(prefix: &str, old: &Map<String, Value>, new: &Map<String, Value>) -> Result<(), FeedError> {
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    for key in keys {
        let (was, is) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
        if was != is {
            return Err(mismatch(&format!("{prefix}{key}"), was, is));
        }
    }
    Ok(())
}

fn mismatch(key: &str, old: &Value, new: &Value) -> FeedError {
    FeedError::new(
        "RESUME_MISMATCH",
        format!("{key} was {old} and is now {new}: this would be another stream"),
        "use the earlier value, start the data over on purpose with --reset-stream, or start a new run in another \
         output directory",
    )
}
