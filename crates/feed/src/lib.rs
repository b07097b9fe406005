//! From the frames of a streamer to batches of tokens.
//!
//! One direction: [`Link`] parses frames and routes them, a reader thread a source puts rows into shuffle windows
//! ([`order`] says which), worker threads encode, the packer mixes sources document by document and writes token ids
//! into the [`ring`], and [`BatchReader`] cuts batches from it and knows, for each, the state that resumes after it.
//!
//! What the stream contains is a pure function of the file list, the seed and the state it starts from. Threads,
//! prefetch and frame sizes change speed, never content.

pub mod ring;

#[cfg(not(loom))]
mod batch;
#[cfg(not(loom))]
mod batches;
#[cfg(not(loom))]
mod document;
#[cfg(not(loom))]
mod documents;
#[cfg(not(loom))]
mod encode;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod feed;
#[cfg(not(loom))]
pub mod frame;
#[cfg(not(loom))]
mod gauge;
#[cfg(not(loom))]
mod held_out;
#[cfg(not(loom))]
mod input;
#[cfg(not(loom))]
pub mod lines;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod mix;
#[cfg(not(loom))]
pub mod order;
#[cfg(not(loom))]
mod pack;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod skip;
#[cfg(not(loom))]
mod state;

#[cfg(not(loom))]
pub use {
    batch::{Batch, IGNORED},
    batches::{BatchReader, Interrupt, LeftOut, Next, Span},
    document::Document,
    documents::Documents,
    error::FeedError,
    feed::{BatchShape, Feed, FeedOptions, OrderKind, SourceOptions, Stopper},
    gauge::Gauge,
    held_out::HeldOut,
    input::Input,
    lines::LineLink,
    link::{Link, Message},
    memory::FeedMemory,
    mix::OnExhausted,
    reader::{HeldOutEnd, Place},
    state::{HASH_START, SourceState, StreamState},
};
