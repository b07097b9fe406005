use std::sync::Arc;

use candlewick_feed::HeldOut;
use napi::{
    Env,
    bindgen_prelude::{ClassInstance, Object, Uint8Array},
};
use napi_derive::napi;

use crate::{failure::Failure, feed::NativeFeed, promise::Promise, tokenizer::NativeTokenizer};

/// The last held-out row of a source.
#[napi(object)]
pub struct NativeHeldOutEnd {
    /// Index in the sorted list of files.
    pub file: u32,
    /// Row group, or turn.
    pub group: u32,
    /// Row within it.
    pub row: f64,
    /// How many documents are held out.
    pub documents: f64,
}

/// Held-out documents as tokens.
#[napi]
pub struct NativeHeldOut {
    held_out: Arc<HeldOut>,
}

/// Reads all of a feed of documents as held-out documents.
#[napi(ts_return_type = "Promise<NativeHeldOut>")]
pub fn collect_held_out<'e>(
    env: &'e Env,
    feed: ClassInstance<NativeFeed>,
    tokenizer: ClassInstance<NativeTokenizer>,
) -> napi::Result<Object<'e>> {
    let (promise, object) = Promise::<NativeHeldOut>::new(env)?;
    let tokenizer = tokenizer.tokenizer().clone();
    feed.run(promise, move |running, promise| {
        let collected =
            running.documents().and_then(|documents| Ok(HeldOut::collect(documents, &tokenizer)?));
        promise.settle_with(collected, |held_out| NativeHeldOut { held_out: Arc::new(held_out) });
    });
    Ok(object)
}

/// The held-out documents of several sources as one, in their order.
#[napi]
pub fn join_held_out(parts: Vec<ClassInstance<NativeHeldOut>>) -> napi::Result<NativeHeldOut> {
    if parts.is_empty() {
        return Err(Failure::internal("there is nothing to join").into());
    }
    let parts: Vec<&HeldOut> = parts.iter().map(|part| &*part.held_out).collect();
    Ok(NativeHeldOut { held_out: Arc::new(HeldOut::join(&parts)) })
}

#[napi]
impl NativeHeldOut {
    /// Where each source's held-out part ends.
    #[napi]
    pub fn ends(&self) -> Vec<NativeHeldOutEnd> {
        let ends = self.held_out.ends().iter().map(|end| NativeHeldOutEnd {
            file: end.file,
            group: end.group,
            row: end.row as f64,
            documents: end.documents as f64,
        });
        ends.collect()
    }

    /// How many documents there are.
    #[napi]
    pub fn documents(&self) -> f64 {
        self.held_out.documents() as f64
    }

    /// UTF-8 bytes of the documents.
    #[napi]
    pub fn bytes(&self) -> f64 {
        self.held_out.text().len() as f64
    }

    /// The documents one after the other.
    #[napi]
    pub fn text(&self) -> Uint8Array {
        self.held_out.text().to_vec().into()
    }

    /// Bits a byte by the tokens' own frequencies.
    #[napi]
    pub fn unigram_bits_per_byte(&self) -> f64 {
        self.held_out.unigram_bits_per_byte()
    }

    pub(crate) fn held_out(&self) -> Arc<HeldOut> {
        self.held_out.clone()
    }
}
