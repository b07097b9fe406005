use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::FeedError;

/// A line is held in memory until its end comes. Longer than any honest one: a program writes many batches.
const LARGEST_LINE: usize = 256 << 20;
/// A position travels in an environment variable, which Linux limits to 128 KiB, and lies in every checkpoint.
const LARGEST_POSITION: usize = 64 << 10;
const EXCERPT: usize = 120;
const HINT: &str = "stdout carries one JSON object a line: {\"status\":\"loading\"}, {\"status\":\"ready\"}, \
                    {\"batch\":[\"text\", …], \"position\": …} and at the end {\"done\":true,\"total\":N}; \
                    {\"progress\":N} and everything else goes to stderr";

/// One line of a program's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// It is getting ready.
    Loading,
    /// It is about to write batches.
    Ready,
    /// Documents.
    Batch(TextBatch),
    /// The end.
    Done {
        /// Texts that this run of the program wrote, null and empty ones not counted.
        total: u64,
    },
}

/// The documents of one line, null and empty ones left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextBatch {
    /// Where each document ends in `text`.
    ends: Vec<u32>,
    /// UTF-8.
    text: Vec<u8>,
    /// JSON text that names the place after this batch.
    pub position: Option<String>,
    /// Documents in which something was not Unicode and became U+FFFD.
    pub replaced: u64,
}

impl TextBatch {
    /// How many documents there are.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// The UTF-8 bytes of document `index`, never empty.
    pub fn document(&self, index: usize) -> &[u8] {
        &self.text[self.start(index)..self.ends[index] as usize]
    }

    /// Rows `from` to `to` as Arrow has them: offsets from 0, 32 bits each, then the text.
    pub(crate) fn arrow(&self, from: usize, to: usize) -> Vec<u8> {
        let (start, end) = (self.start(from), self.start(to));
        let mut bytes = Vec::with_capacity(4 * (to - from + 1) + end - start);
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        for &document in &self.ends[from..to] {
            bytes.extend_from_slice(&(document - start as u32).to_le_bytes());
        }
        bytes.extend_from_slice(&self.text[start..end]);
        bytes
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }
}

/// Cuts a program's output into lines and reads them, however its bytes are divided into chunks.
#[derive(Debug, Default)]
pub struct LineParser {
    partial: Vec<u8>,
    line: u64,
}

impl LineParser {
    /// Hands every line that `chunk` completes to `take`, blank ones left out.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` with the line's number and an excerpt for what is no line of the protocol; whatever
    /// `take` says is wrong with a line gets the same. Nothing can be pushed after it.
    pub fn push(
        &mut self,
        mut chunk: &[u8],
        mut take: impl FnMut(Line) -> Result<(), String>,
    ) -> Result<(), FeedError> {
        while let Some(end) = chunk.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
            chunk = rest;
            if self.partial.is_empty() {
                self.read(line, &mut take)?;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.read(&whole, &mut take)?;
                whole.clear();
                self.partial = whole;
            }
        }
        self.partial.extend_from_slice(chunk);
        if self.partial.len() > LARGEST_LINE {
            // Its end may never come.
            let long = std::mem::take(&mut self.partial);
            return self.read(&long, &mut take);
        }
        Ok(())
    }

    /// The output is over: what stands after the last newline is a line too.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn finish(&mut self, mut take: impl FnMut(Line) -> Result<(), String>) -> Result<(), FeedError> {
        let rest = std::mem::take(&mut self.partial);
        if rest.is_empty() { Ok(()) } else { self.read(&rest, &mut take) }
    }

    fn read(
        &mut self,
        line: &[u8],
        take: &mut impl FnMut(Line) -> Result<(), String>,
    ) -> Result<(), FeedError> {
        self.line += 1;
        let outcome = match line.trim_ascii() {
            _ if line.len() > LARGEST_LINE => {
                Err(format!("is longer than {} MiB; write smaller batches", LARGEST_LINE >> 20))
            }
            [] => Ok(()),
            json => parse(json).and_then(take),
        };
        outcome.map_err(|what| {
            let excerpt = excerpt(line);
            FeedError::new(
                "PROTOCOL_VIOLATION",
                format!("line {} of the program's output {what}: {excerpt}", self.line),
                HINT,
            )
        })
    }
}

fn excerpt(line: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&line[..line.len().min(4 * EXCERPT)]);
    let mut short: String =
        shown.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.chars().nth(EXCERPT).is_some() || line.len() > 4 * EXCERPT {
        short.push('…');
    }
    short
}

/// Keys beside the known ones are the program's own business.
#[derive(Deserialize)]
struct LineJson<'a> {
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(default)]
    batch: Option<Texts>,
    #[serde(borrow, default)]
    position: Option<&'a RawValue>,
    #[serde(default)]
    done: Option<bool>,
    #[serde(default)]
    total: Option<u64>,
}

fn parse(json: &[u8]) -> Result<Line, String> {
    let line: LineJson<'_> = serde_json::from_slice(json).map_err(|e| {
        let text = e.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        format!("cannot be read ({what}, column {})", e.column())
    })?;
    let line_of = |line: &LineJson<'_>| match (&line.status, &line.batch, line.done) {
        (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => Ok(()),
        (None, None, None) => Err("has none of status, batch and done"),
        _ => Err("has more than one of status, batch and done"),
    };
    line_of(&line)?;
    if line.position.is_some() && line.batch.is_none() {
        return Err("has a position and no batch".into());
    }
    if let Some(Texts { ends, text, replaced }) = line.batch {
        let position = line.position.map(|raw| raw.get().to_owned());
        if position.as_ref().is_some_and(|p| p.len() > LARGEST_POSITION) {
            return Err(format!("has a position of more than {} KiB", LARGEST_POSITION >> 10));
        }
        return Ok(Line::Batch(TextBatch { ends, text, position, replaced }));
    }
    match (line.status.as_deref(), line.done, line.total) {
        (Some("loading"), ..) => Ok(Line::Loading),
        (Some("ready"), ..) => Ok(Line::Ready),
        (Some(other), ..) => Err(format!("has the status {other:?}, which is neither loading nor ready")),
        (_, Some(true), Some(total)) => Ok(Line::Done { total }),
        (_, Some(true), None) => Err("says done without a total".into()),
        _ => Err("says that done is false".into()),
    }
}

/// Texts go from the line into one buffer, without a string each.
#[derive(Default)]
struct Texts {
    ends: Vec<u32>,
    text: Vec<u8>,
    replaced: u64,
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Texts, A::Error> {
                let mut texts = Texts::default();
                while array.next_element_seed(&mut texts)?.is_some() {}
                Ok(texts)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

impl<'de> DeserializeSeed<'de> for &mut Texts {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for &mut Texts {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or null")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // As bytes and not as a string: a lone surrogate or a bad byte must not cost the whole line.
        deserializer.deserialize_bytes(self)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.replaced += u64::from(push_utf8(bytes, &mut self.text));
        self.ends.push(self.text.len() as u32);
        Ok(())
    }
}

/// Appends text with each byte, or surrogate, that is not UTF-8 as one U+FFFD; true if there was any.
fn push_utf8(mut bytes: &[u8], text: &mut Vec<u8>) -> bool {
    let mut replaced = false;
    loop {
        let Err(error) = std::str::from_utf8(bytes) else {
            text.extend_from_slice(bytes);
            return replaced;
        };
        let (good, rest) = bytes.split_at(error.valid_up_to());
        text.extend_from_slice(good);
        text.extend_from_slice("\u{FFFD}".as_bytes());
        replaced = true;
        bytes = match rest {
            // JSON can spell half a pair; it comes as the three bytes that UTF-8 would have for it.
            [0xED, 0xA0..=0xBF, 0x80..=0xBF, after @ ..] => after,
            _ => &rest[error.error_len().unwrap_or(rest.len())..],
        };
    }
}
