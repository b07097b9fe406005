use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use candlewick_tokenizer::{BpeTrainer, Pattern, TrainOptions};
use napi::{
    Env,
    bindgen_prelude::{ClassInstance, Object},
};
use napi_derive::napi;
use serde::Deserialize;
use serde_json::json;

use crate::{
    failure::Failure,
    feed::NativeFeed,
    promise::Promise,
    tokenizer::{NativeTokenizer, Text, in_background, owned},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainerJson {
    vocab_size: usize,
    pattern: String,
    special_tokens: Vec<String>,
    #[serde(default)]
    min_frequency: u64,
}

#[derive(Default)]
struct Progress {
    documents: AtomicU64,
    bytes: AtomicU64,
    merges: AtomicU64,
    aborted: AtomicBool,
}

/// Learns a byte-level BPE from documents.
#[napi]
pub struct NativeTokenizerTrainer {
    trainer: Arc<Mutex<Option<BpeTrainer>>>,
    progress: Arc<Progress>,
    fixed_tokens: u64,
}

#[napi]
impl NativeTokenizerTrainer {
    /// A trainer that has counted nothing yet; options are JSON.
    #[napi(constructor)]
    pub fn new(options: String) -> napi::Result<Self> {
        let options: TrainerJson = serde_json::from_str(&options).map_err(Failure::from)?;
        let pattern: Pattern = options.pattern.parse().map_err(Failure::from)?;
        let fixed_tokens = 256 + options.special_tokens.len() as u64;
        let trainer = BpeTrainer::new(TrainOptions {
            vocab_size: options.vocab_size,
            pattern,
            special_tokens: options.special_tokens,
            min_frequency: options.min_frequency,
        })
        .map_err(Failure::from)?;
        Ok(Self { trainer: Arc::new(Mutex::new(Some(trainer))), progress: Arc::default(), fixed_tokens })
    }

    /// Counts the words of documents.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn count<'e>(&self, env: &'e Env, documents: Vec<Text>) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        let (texts, trainer, progress) = (owned(documents), self.trainer.clone(), self.progress.clone());
        in_background("count", move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            promise.settle(count(&trainer, &progress, &texts));
        });
        Ok(object)
    }

    /// Counts the words of every document of a feed, on the feed's thread and rayon's.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn consume<'e>(&self, env: &'e Env, feed: ClassInstance<NativeFeed>) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        let (trainer, progress) = (self.trainer.clone(), self.progress.clone());
        feed.run(promise, move |running, promise| {
            promise.settle(running.documents().and_then(|documents| {
                loop {
                    let some = documents.take(4096)?;
                    if some.is_empty() {
                        return Ok(());
                    }
                    let texts: Vec<_> = some.iter().map(|d| String::from_utf8_lossy(d.bytes())).collect();
                    count(&trainer, &progress, &texts.iter().map(|t| &**t).collect::<Vec<_>>())?;
                }
            }));
        });
        Ok(object)
    }

    /// JSON: documents and bytes counted, merges found.
    #[napi]
    pub fn progress(&self) -> String {
        let Progress { documents, bytes, merges, .. } = &*self.progress;
        let at = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({"documents": at(documents), "bytes": at(bytes), "merges": at(merges)}).to_string()
    }

    /// Ends counting or merging with the error `ABORTED`.
    #[napi]
    pub fn abort(&self) {
        self.progress.aborted.store(true, Ordering::Relaxed);
    }

    /// Finds the merges. The trainer is used up.
    #[napi(ts_return_type = "Promise<NativeTokenizer>")]
    pub fn finish<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<NativeTokenizer>::new(env)?;
        let (trainer, progress, fixed) = (self.trainer.clone(), self.progress.clone(), self.fixed_tokens);
        in_background("merge", move || {
            let taken = trainer.lock().expect("a panic in counting ends the process").take();
            let finished =
                taken.ok_or_else(|| Failure::internal("this trainer has finished already")).and_then(|t| {
                    let tell = |at: candlewick_tokenizer::MergeProgress| {
                        progress.merges.store((at.tokens as u64).saturating_sub(fixed), Ordering::Relaxed);
                        !progress.aborted.load(Ordering::Relaxed)
                    };
                    Ok(t.finish(&tell)?)
                });
            promise.settle_with(finished, NativeTokenizer::new);
        });
        Ok(object)
    }
}

fn count(trainer: &Mutex<Option<BpeTrainer>>, progress: &Progress, texts: &[&str]) -> Result<(), Failure> {
    if progress.aborted.load(Ordering::Relaxed) {
        return Err(Failure::closed("the tokenizer's training"));
    }
    let mut trainer = trainer.lock().expect("a panic in counting ends the process");
    let trainer = trainer.as_mut().ok_or_else(|| Failure::internal("this trainer has finished already"))?;
    trainer.count(texts);
    progress.documents.store(trainer.documents(), Ordering::Relaxed);
    progress.bytes.store(trainer.bytes(), Ordering::Relaxed);
    Ok(())
}
