use std::{
    borrow::Cow,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
};

use candlewick_tokenizer::{Pattern, QualitySample, StreamDecoder, Tokenizer, TokenizerError};
use napi::{
    Env,
    bindgen_prelude::{ClassInstance, Either, Object, Uint32Array},
};
use napi_derive::napi;
use serde::Serialize;

use crate::{
    failure::Failure,
    feed::NativeFeed,
    promise::Promise,
    tokenizer::{NativeTokenizer, Text, in_background, owned},
};

/// Documents of a feed that are counted at a time.
const DOCUMENTS: usize = 4096;

/// Ids, and where each comes from.
#[napi(object)]
pub struct NativeOffsets {
    /// Ids.
    pub ids: Uint32Array,
    /// Start and end of each: UTF-16 units of a string, bytes of bytes.
    pub offsets: Uint32Array,
}

/// Loads a rank file of tiktoken, with the pattern that belongs to it.
#[napi(ts_return_type = "Promise<NativeTokenizer>")]
pub fn tokenizer_from_rank_file(env: &Env, path: String, pattern: String) -> napi::Result<Object<'_>> {
    let (promise, object) = Promise::<NativeTokenizer>::new(env)?;
    in_background("tokenizer", move || {
        let load = || {
            let pattern: Pattern = pattern.parse()?;
            Tokenizer::from_rank_file_at(Path::new(&path), pattern)
        };
        promise.settle_with(load().map_err(Failure::from), NativeTokenizer::new);
    });
    Ok(object)
}

#[napi]
impl NativeTokenizer {
    /// Ids of one text in which special tokens are plain text.
    #[napi]
    pub fn encode_document(&self, text: Text) -> napi::Result<Uint32Array> {
        let mut ids = Vec::new();
        let text = match &text {
            Either::A(text) => Cow::Borrowed(text.as_str()),
            Either::B(bytes) => String::from_utf8_lossy(bytes),
        };
        self.tokenizer().encode_document(&text, &mut ids).map_err(Failure::from)?;
        Ok(ids.into())
    }

    /// Ids of one text, and the part of the text that each stands for; with `special`, special tokens are recognised.
    #[napi]
    pub fn encode_with_offsets(&self, text: Text, special: bool) -> napi::Result<NativeOffsets> {
        let encode = |text: &str| {
            let tokenizer = self.tokenizer();
            if special {
                tokenizer.encode_with_offsets(text)
            } else {
                tokenizer.encode_document_with_offsets(text)
            }
        };
        let (ids, ranges) = match &text {
            Either::A(text) => {
                let (ids, ranges) = encode(text).map_err(Failure::from)?;
                (ids, in_utf16(text, ranges))
            }
            Either::B(bytes) => {
                let (ids, ranges) = encode(&String::from_utf8_lossy(bytes)).map_err(Failure::from)?;
                (ids, in_bytes(bytes, ranges))
            }
        };
        let offsets: Vec<u32> =
            ranges.iter().flat_map(|range| [range.start as u32, range.end as u32]).collect();
        Ok(NativeOffsets { ids: ids.into(), offsets: offsets.into() })
    }

    /// A decoder that takes ids as they come.
    #[napi]
    pub fn decode_stream(&self, skip_special: bool) -> NativeDecodeStream {
        NativeDecodeStream { decoder: self.tokenizer().stream_decoder(skip_special) }
    }

    /// JSON: what this tokenizer is, and who serves it.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn facts<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<String>::new(env)?;
        let tokenizer = self.tokenizer().clone();
        in_background("tokenizer", move || promise.settle(as_json(tokenizer.facts())));
        Ok(object)
    }

    /// Measures this tokenizer on texts.
    #[napi]
    pub fn quality_sample(&self) -> NativeQualitySample {
        NativeQualitySample { sample: Arc::new(Mutex::new(QualitySample::new(self.tokenizer()))) }
    }
}

/// Turns ids into text as they come.
#[napi]
pub struct NativeDecodeStream {
    decoder: StreamDecoder,
}

#[napi]
impl NativeDecodeStream {
    /// The characters that ids complete.
    #[napi]
    pub fn push(&mut self, ids: Uint32Array) -> String {
        ids.iter().map(|&id| self.decoder.push(id)).collect()
    }

    /// What is still held back.
    #[napi]
    pub fn finish(&mut self) -> String {
        self.decoder.finish()
    }
}

/// What a tokenizer makes of a sample of text.
#[napi]
pub struct NativeQualitySample {
    sample: Arc<Mutex<QualitySample>>,
}

#[napi]
impl NativeQualitySample {
    /// Counts documents.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn count<'e>(&self, env: &'e Env, documents: Vec<Text>) -> napi::Result<Object<'e>> {
        let texts = owned(documents);
        self.work(env, move |sample| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            sample.count(&texts).map_err(Failure::from)
        })
    }

    /// Counts every document of a feed.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn consume<'e>(&self, env: &'e Env, feed: ClassInstance<NativeFeed>) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        let sample = self.sample.clone();
        feed.run(promise, move |running, promise| {
            promise.settle(running.documents().and_then(|documents| {
                let mut sample = sample.lock().expect("a panic in counting ends the process");
                loop {
                    let some = documents.take(DOCUMENTS)?;
                    if some.is_empty() {
                        return Ok(());
                    }
                    let texts: Vec<_> = some.iter().map(|d| String::from_utf8_lossy(d.bytes())).collect();
                    sample.count(&texts.iter().map(|text| &**text).collect::<Vec<_>>())?;
                }
            }));
        });
        Ok(object)
    }

    /// JSON: what was counted.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn report<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        self.work(env, |sample| as_json(Ok(sample.report())))
    }

    /// JSON: compression by size of the vocabulary.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn by_vocab_size<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        self.work(env, |sample| as_json(sample.by_vocab_size()))
    }

    /// JSON: compression of another tokenizer on the same text.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn compare<'e>(
        &self,
        env: &'e Env,
        peer: ClassInstance<NativeTokenizer>,
    ) -> napi::Result<Object<'e>> {
        let peer = peer.tokenizer().clone();
        self.work(env, move |sample| as_json(sample.compare(&peer)))
    }

    /// Runs `job` on a thread of its own.
    fn work<'e, T: napi::bindgen_prelude::ToNapiValue + Send + 'static>(
        &self,
        env: &'e Env,
        job: impl FnOnce(&mut QualitySample) -> Result<T, Failure> + Send + 'static,
    ) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<T>::new(env)?;
        let sample = self.sample.clone();
        in_background("quality", move || {
            promise.settle(job(&mut sample.lock().expect("a panic in counting ends the process")));
        });
        Ok(object)
    }
}

fn as_json(value: Result<impl Serialize, TokenizerError>) -> Result<String, Failure> {
    Ok(serde_json::to_string(&value?)?)
}

/// Ranges of bytes as ranges of UTF-16 units, which JavaScript's strings are counted in.
fn in_utf16(text: &str, ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    if text.is_ascii() {
        return ranges;
    }
    // Ranges of neighbours may share a character, so the walk takes a step back now and then.
    let (mut byte, mut unit) = (0, 0);
    let mut at = |target: usize| {
        while byte < target
            && let Some(next) = text[byte..].chars().next()
        {
            byte += next.len_utf8();
            unit += next.len_utf16();
        }
        while byte > target
            && let Some(last) = text[..byte].chars().next_back()
        {
            byte -= last.len_utf8();
            unit -= last.len_utf16();
        }
        unit
    };
    ranges.into_iter().map(|range| at(range.start)..at(range.end)).collect()
}

/// Ranges of the lossy text of `bytes` as ranges of `bytes`, where U+FFFD stands for one to three of them.
fn in_bytes(bytes: &[u8], ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    if std::str::from_utf8(bytes).is_ok() {
        return ranges;
    }
    // Where each run of valid or invalid bytes begins, in the text and in the bytes.
    let mut runs = vec![(0, 0)];
    let (mut text, mut byte) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid().len();
        byte += chunk.valid().len();
        runs.push((text, byte));
        if !chunk.invalid().is_empty() {
            text += char::REPLACEMENT_CHARACTER.len_utf8();
            byte += chunk.invalid().len();
            runs.push((text, byte));
        }
    }
    let at = |target: usize| {
        let (text, byte) = runs[runs.partition_point(|&(text, _)| text <= target) - 1];
        byte + (target - text)
    };
    ranges.into_iter().map(|range| at(range.start)..at(range.end)).collect()
}
