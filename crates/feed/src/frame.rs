//! The frames of the streamer's pipe: a fixed header, a small JSON part, a binary part.
//!
//! Header, little endian, 28 bytes: magic `CWK1`, version u8, kind u8, two zero bytes, sequence u32, length of the
//! JSON u32, length of the binary part u64, CRC-32C u32 over the 24 bytes before it, the JSON and the binary part.

use crate::FeedError;

/// Bytes of a header.
pub const HEADER: usize = 28;
const MAGIC: &[u8; 4] = b"CWK1";
const VERSION: u8 = 1;
/// No honest frame is larger: 32 MiB of text unless one document is, and a Parquet string ends at 2 GiB.
const LARGEST: u64 = 3 << 30;
const LARGEST_JSON: u32 = 256 << 20;

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A phase of start-up.
    Loading = 1,
    /// The dataset is open; lists its files.
    Ready = 2,
    /// The shape of one file.
    File = 3,
    /// Documents.
    Batch = 4,
    /// Something worth telling.
    Progress = 5,
    /// The streamer lives.
    Heartbeat = 6,
    /// A failure.
    Error = 7,
    /// A clean end.
    Done = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [Loading, Ready, File, Batch, Progress, Heartbeat, Error, Done].into_iter().find(|&k| k as u8 == byte)
    }

    /// The kind's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Loading => "loading",
            Kind::Ready => "ready",
            Kind::File => "file",
            Kind::Batch => "batch",
            Kind::Progress => "progress",
            Kind::Heartbeat => "heartbeat",
            Kind::Error => "error",
            Kind::Done => "done",
        }
    }
}

/// One frame whose checksum held.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is about.
    pub kind: Kind,
    body: Vec<u8>,
    json: usize,
}

impl Frame {
    /// The JSON part.
    pub fn json(&self) -> &[u8] {
        &self.body[..self.json]
    }

    /// The binary part.
    pub fn binary(&self) -> &[u8] {
        &self.body[self.json..]
    }

    /// Both parts, and where the binary one begins.
    pub(crate) fn into_body(self) -> (Vec<u8>, usize) {
        (self.body, self.json)
    }
}

/// Cuts frames out of a sequence of chunks. A frame's bytes are copied once, into its own allocation.
#[derive(Default)]
pub struct Parser {
    header: Vec<u8>,
    body: Vec<u8>,
    expected: Option<Header>,
    sequence: u32,
}

#[derive(Clone, Copy)]
struct Header {
    kind: Kind,
    json: usize,
    length: usize,
    crc: u32,
}

impl Parser {
    /// Takes `chunk` in and hands every frame that it completes to `frame`.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` for a wrong magic, version, kind, sequence, length or checksum. The stream cannot be
    /// picked up again after it: the streamer has to be started anew, with a new parser.
    pub fn push(&mut self, mut chunk: &[u8], mut frame: impl FnMut(Frame)) -> Result<(), FeedError> {
        loop {
            let Some(header) = self.expected else {
                if !take(&mut self.header, &mut chunk, HEADER) {
                    return Ok(());
                }
                let header = self.read_header()?;
                // Grown as bytes arrive, so that a wrong length cannot ask for gigabytes at once.
                self.body = Vec::with_capacity(header.length.min(8 << 20));
                self.expected = Some(header);
                continue;
            };
            if !take(&mut self.body, &mut chunk, header.length) {
                return Ok(());
            }
            if crc32c::crc32c_append(crc32c::crc32c(&self.header[..24]), &self.body) != header.crc {
                return Err(FeedError::protocol(format!(
                    "the checksum of a {} frame is wrong",
                    header.kind.name()
                )));
            }
            self.header.clear();
            self.expected = None;
            self.sequence = self.sequence.wrapping_add(1);
            frame(Frame { kind: header.kind, body: std::mem::take(&mut self.body), json: header.json });
        }
    }

    fn read_header(&self) -> Result<Header, FeedError> {
        let h = &self.header;
        let word = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        if &h[..4] != MAGIC {
            let shown = String::from_utf8_lossy(&h[..8]).into_owned();
            return Err(FeedError::protocol(format!("no frame begins with {shown:?}")));
        }
        if h[4] != VERSION {
            return Err(FeedError::protocol(format!("frame version {} instead of {VERSION}", h[4])));
        }
        let kind = Kind::from_byte(h[5])
            .ok_or_else(|| FeedError::protocol(format!("unknown frame kind {}", h[5])))?;
        if word(8) != self.sequence {
            return Err(FeedError::protocol(format!("frame {} came instead of {}", word(8), self.sequence)));
        }
        let (json, binary) = (word(12), u64::from(word(16)) | u64::from(word(20)) << 32);
        if json > LARGEST_JSON || binary > LARGEST {
            return Err(FeedError::protocol(format!("a frame of {json} + {binary} bytes")));
        }
        Ok(Header { kind, json: json as usize, length: json as usize + binary as usize, crc: word(24) })
    }
}

/// Moves bytes from the front of `chunk` until `into` holds `length`; true when it does.
fn take(into: &mut Vec<u8>, chunk: &mut &[u8], length: usize) -> bool {
    let (now, rest) = chunk.split_at(chunk.len().min(length - into.len()));
    into.extend_from_slice(now);
    *chunk = rest;
    into.len() == length
}

/// The bytes of a frame, as a streamer writes them. For tests and for tools that speak the protocol.
pub fn write_frame(kind: Kind, sequence: u32, json: &[u8], binary: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + json.len() + binary.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[VERSION, kind as u8, 0, 0]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(binary.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&bytes), json), binary);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(json);
    bytes.extend_from_slice(binary);
    bytes
}
