use std::path::Path;

use candlewick_tokenizer::{Encoded, EncodedBatch, Tokenizer};
use napi::{
    Env,
    bindgen_prelude::{Array, ArrayBuffer, Either, Object, Uint8Array, Uint32Array},
};
use napi_derive::napi;

use crate::{failure::Failure, lent, promise::Promise, texts::Texts};

/// Text from JavaScript: a string, or UTF-8 bytes. Bytes that are not UTF-8 become U+FFFD.
pub(crate) type Text = Either<String, Uint8Array>;

/// Turns text into ids and back.
#[napi]
pub struct NativeTokenizer {
    tokenizer: Tokenizer,
}

/// Id and spelling of end-of-text.
#[napi(object)]
pub struct NativeEndOfText {
    /// Its id.
    pub id: u32,
    /// Its spelling.
    pub token: String,
}

/// The ids of texts, one after the other.
#[napi(object)]
pub struct NativeEncoded {
    /// The ids of all of them.
    pub ids: Uint32Array,
    /// Of each text, where its ids end.
    pub ends: Uint32Array,
}

/// The ids of a batch.
#[napi(object)]
pub struct NativeEncodedBatch {
    /// Lists of ids, in no order.
    pub lists: Vec<NativeEncoded>,
    /// In the order of the texts, three numbers for those that follow each other in a list, too: which list, the number there of
    /// the first of them, and that after the last.
    pub parts: Uint32Array,
}

/// Loads a directory with a `tokenizer.json`, or such a file.
#[napi(ts_return_type = "Promise<NativeTokenizer>")]
pub fn tokenizer_from_path(env: &Env, path: String) -> napi::Result<Object<'_>> {
    let (promise, object) = Promise::<NativeTokenizer>::new(env)?;
    in_background("tokenizer", move || {
        let loaded = Tokenizer::from_path(Path::new(&path)).map_err(Failure::from);
        promise.settle_with(loaded, NativeTokenizer::new);
    });
    Ok(object)
}

#[napi]
impl NativeTokenizer {
    /// Ids of one text; special tokens in it are recognised.
    #[napi]
    pub fn encode(&self, text: Text) -> napi::Result<Uint32Array> {
        let mut ids = Vec::new();
        match &text {
            Either::A(text) => self.tokenizer.encode(text, &mut ids),
            Either::B(bytes) => self.tokenizer.encode(&String::from_utf8_lossy(bytes), &mut ids),
        }
        .map_err(Failure::from)?;
        Ok(ids.into())
    }

    /// Ids of many texts, on as many threads as asked for (0: all). `texts` is an array of its own, and of its bytes none is
    /// transferred or resized meanwhile. `reuse` are buffers of earlier ids, which are empty afterwards.
    #[napi(
        ts_args_type = "texts: (string | Uint8Array)[], threads: number, reuse: ArrayBuffer[]",
        ts_return_type = "Promise<NativeEncodedBatch>"
    )]
    pub fn encode_batch<'e>(
        &self,
        env: &'e Env,
        texts: Array,
        threads: u32,
        reuse: Vec<ArrayBuffer>,
    ) -> napi::Result<Object<'e>> {
        // Before the texts are looked at: one that lies in such a buffer is empty then, and not read while it is written.
        lent::give_back(reuse)?;
        let (promise, object) = Promise::<NativeEncodedBatch>::new(env)?;
        let (texts, tokenizer) = (Texts::of(env, texts)?, self.tokenizer.clone());
        in_background("encode", move || {
            let encoded = tokenizer.encode_batch(texts.entries(), threads as usize);
            promise.settle_there(move |env| {
                texts.release(env).map_err(|error| Failure::internal(&error.reason))?;
                encoded.map(NativeEncodedBatch::from).map_err(Failure::from)
            });
        });
        Ok(object)
    }

    /// Text of ids; invalid UTF-8 becomes U+FFFD.
    #[napi]
    pub fn decode(&self, ids: Uint32Array, skip_special: bool) -> String {
        self.tokenizer.decode(&ids, skip_special)
    }

    /// The largest id plus one.
    #[napi]
    pub fn vocab_size(&self) -> u32 {
        self.tokenizer.vocab_size() as u32
    }

    /// Id and spelling of end-of-text.
    #[napi]
    pub fn end_of_text(&self) -> napi::Result<NativeEndOfText> {
        let (id, token) = self.tokenizer.eos_token().map_err(Failure::from)?;
        Ok(NativeEndOfText { id, token: token.into() })
    }

    /// SHA-256 over what determines ids.
    #[napi]
    pub fn digest(&self) -> String {
        self.tokenizer.digest().into()
    }

    /// Writes the tokenizer's files into a directory.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn save<'e>(&self, env: &'e Env, dir: String) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        let tokenizer = self.tokenizer.clone();
        in_background("tokenizer", move || {
            promise.settle(tokenizer.save(Path::new(&dir)).map_err(Failure::from))
        });
        Ok(object)
    }

    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

impl From<EncodedBatch> for NativeEncodedBatch {
    fn from(EncodedBatch { lists, parts }: EncodedBatch) -> Self {
        let lent = |Encoded { ids, ends }| NativeEncoded { ids: lent::lend(ids), ends: ends.into() };
        let numbers = parts.into_iter().flat_map(|(list, texts)| [list, texts.start, texts.end]);
        Self {
            lists: lists.into_iter().map(lent).collect(),
            parts: numbers.map(|number| number as u32).collect::<Vec<_>>().into(),
        }
    }
}

pub(crate) fn owned(texts: Vec<Text>) -> Vec<String> {
    let own = |text: Text| match text {
        Either::A(text) => text,
        Either::B(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    texts.into_iter().map(own).collect()
}

pub(crate) fn in_background(name: &str, job: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.into()).spawn(job).expect("the operating system starts a thread");
}
