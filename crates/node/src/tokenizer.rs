use std::path::Path;

use candlewick_tokenizer::Tokenizer;
use napi::{
    Env,
    bindgen_prelude::{Either, Object, Uint8Array, Uint32Array},
};
use napi_derive::napi;

use crate::{failure::Failure, promise::Promise};

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

    /// Ids of many texts, on as many threads as asked for (0: all).
    #[napi(ts_return_type = "Promise<Uint32Array[]>")]
    pub fn encode_batch<'e>(&self, env: &'e Env, texts: Vec<Text>, threads: u32) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<Vec<Uint32Array>>::new(env)?;
        let (texts, tokenizer) = (owned(texts), self.tokenizer.clone());
        in_background("encode", move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let ids = tokenizer.encode_batch(&texts, threads as usize);
            promise.settle_with(ids.map_err(Failure::from), |ids| {
                ids.into_iter().map(Uint32Array::from).collect()
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
