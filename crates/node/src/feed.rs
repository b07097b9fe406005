use std::sync::{Arc, Mutex};

use candlewick_feed::{Batch, BatchReader, Documents, Feed, FeedOptions, Gauge, Input, Next, Stopper};
use napi::{
    Env,
    bindgen_prelude::{ClassInstance, Either, Object, Uint32Array},
};
use napi_derive::napi;
use serde_json::json;

use crate::{
    failure::Failure,
    link::{NativeLineLink, NativeLink},
    promise::Promise,
    tokenizer::NativeTokenizer,
    worker::Worker,
};

/// A batch as JavaScript sees it.
#[napi(object)]
pub struct NativeBatch {
    /// Token ids, row-major.
    pub inputs: Uint32Array,
    /// The tokens that follow them; `0xFFFFFFFF` past the end of a finite stream.
    pub targets: Uint32Array,
    /// Targets that count.
    pub counted: f64,
    /// Resumes after this batch.
    pub state: String,
    /// Rolling hash, 16 hexadecimal digits.
    pub hash: String,
}

/// What a feed's thread owns. `reading` is gone once a trainer has taken it.
pub(crate) struct Running {
    reading: Option<Reading>,
    feed: Feed,
}

enum Reading {
    Documents(Documents),
    Batches(Box<BatchReader>),
}

/// Order, window, tokenizing and packing over links.
#[napi]
pub struct NativeFeed {
    worker: Worker<Running>,
    stopper: Stopper,
    gauge: Arc<Gauge>,
    closing: Closing,
}

/// Promises of the calls to `close`; none once the feed is closed.
type Closing = Arc<Mutex<Option<Vec<Promise<()>>>>>;

#[napi]
impl NativeFeed {
    /// Starts a feed; with `batches` in the options it gives batches, else documents.
    #[napi(constructor)]
    pub fn new(
        options: String,
        links: Vec<Either<ClassInstance<NativeLink>, ClassInstance<NativeLineLink>>>,
        tokenizer: Option<ClassInstance<NativeTokenizer>>,
    ) -> napi::Result<Self> {
        let options: FeedOptions = serde_json::from_str(&options).map_err(Failure::from)?;
        let links: Vec<Input> = links
            .iter()
            .map(|link| match link {
                Either::A(link) => link.link().into(),
                Either::B(link) => link.link().into(),
            })
            .collect();
        let (feed, reading) = match (&options.batches, tokenizer) {
            (Some(_), Some(tokenizer)) => {
                let (feed, batches) =
                    Feed::batches(&options, &links, tokenizer.tokenizer()).map_err(Failure::from)?;
                (feed, Reading::Batches(Box::new(batches)))
            }
            (Some(_), None) => return Err(Failure::internal("a feed of batches needs a tokenizer").into()),
            (None, _) => {
                let (feed, documents) = Feed::documents(&options, &links).map_err(Failure::from)?;
                (feed, Reading::Documents(documents))
            }
        };
        let (stopper, gauge) = (feed.stopper(), feed.gauge().clone());
        let worker = Worker::start("feed", Running { reading: Some(reading), feed });
        Ok(Self { worker, stopper, gauge, closing: Arc::new(Mutex::new(Some(Vec::new()))) })
    }

    /// Up to `max` documents, at least one; null at the end.
    #[napi(ts_return_type = "Promise<string[] | null>")]
    pub fn next_documents<'e>(&self, env: &'e Env, max: u32) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<Option<Vec<String>>>::new(env)?;
        self.run(promise, move |running, promise| {
            promise.settle(running.documents().and_then(|documents| {
                let texts: Vec<String> = documents
                    .take(max.max(1) as usize)?
                    .iter()
                    .map(|document| String::from_utf8_lossy(document.bytes()).into_owned())
                    .collect();
                Ok(Some(texts).filter(|texts| !texts.is_empty()))
            }));
        });
        Ok(object)
    }

    /// The next batch; null at the end.
    #[napi(ts_return_type = "Promise<NativeBatch | null>")]
    pub fn next_batch<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<Option<NativeBatch>>::new(env)?;
        self.run(promise, move |running, promise| {
            promise.settle_with(running.next_batch(), |batch| {
                batch.map(|(batch, state, hash)| NativeBatch {
                    counted: batch.counted as f64,
                    inputs: batch.inputs.into(),
                    targets: batch.targets.into(),
                    state,
                    hash,
                })
            });
        });
        Ok(object)
    }

    /// Reads up to `count` batches (at least one) without handing them out: `{"batches", "state"}` as JSON, where
    /// `batches` is how many there were, left-out ones not counted, and `state` resumes after the last. Of a feed of
    /// documents it reads documents, and there is no state.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn advance<'e>(&self, env: &'e Env, count: u32) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<String>::new(env)?;
        self.run(promise, move |running, promise| promise.settle(running.advance(count.max(1))));
        Ok(object)
    }

    /// The documents of the last batch as JSON: their places, and where they are among its inputs.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn spans<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<String>::new(env)?;
        self.run(promise, move |running, promise| {
            promise.settle(running.batches().and_then(|reader| Ok(serde_json::to_string(&reader.spans())?)));
        });
        Ok(object)
    }

    /// JSON: what the feed holds and has read.
    #[napi]
    pub fn stats(&self) -> String {
        let gauge = &self.gauge;
        json!({
            "text_bytes": gauge.text_bytes(),
            "text_bytes_peak": gauge.text_bytes_peak(),
            "token_bytes": gauge.token_bytes(),
            "rows_read": gauge.rows_read(),
            "bytes_read": gauge.bytes_read(),
        })
        .to_string()
    }

    /// Ends the feed; settles when its threads are gone. May be called again.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'e>(&mut self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        match &mut *self.closing.lock().expect("nobody panics here") {
            Some(waiting) => waiting.push(promise),
            None => promise.settle(Ok(())),
        }
        self.stopper.stop();
        let closing = self.closing.clone();
        self.worker.run(move |running| {
            running.reading = None;
            running.feed.close();
            let waiting = closing.lock().expect("nobody panics here").take();
            waiting.into_iter().flatten().for_each(|promise| promise.settle(Ok(())));
        });
        self.worker.close();
        Ok(object)
    }

    /// Runs a job on the feed's thread; a closed feed settles the promise at once.
    pub(crate) fn run<T: napi::bindgen_prelude::ToNapiValue + 'static>(
        &self,
        promise: Promise<T>,
        job: impl FnOnce(&mut Running, Promise<T>) + Send + 'static,
    ) {
        // The promise travels in a slot, so that it can be settled here when the worker does not take the job.
        let slot = Arc::new(Mutex::new(Some(promise)));
        let travelling = slot.clone();
        let take = |slot: &Mutex<Option<Promise<T>>>| slot.lock().expect("nobody panics here").take();
        let accepted = self.worker.run(move |running| {
            if let Some(promise) = take(&travelling) {
                job(running, promise);
            }
        });
        if !accepted && let Some(promise) = take(&slot) {
            promise.reject(Failure::closed("the feed"));
        }
    }
}

impl Drop for NativeFeed {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

impl Running {
    /// The documents of a feed of documents.
    pub(crate) fn documents(&mut self) -> Result<&mut Documents, Failure> {
        match &mut self.reading {
            Some(Reading::Documents(documents)) => Ok(documents),
            Some(Reading::Batches(_)) => Err(Failure::internal("this feed gives batches, not documents")),
            None => Err(Failure::closed("the feed")),
        }
    }

    /// Hands the reading end to a trainer.
    pub(crate) fn take_batches(&mut self) -> Result<BatchReader, Failure> {
        match self.reading.take() {
            Some(Reading::Batches(reader)) => Ok(*reader),
            other => {
                self.reading = other;
                Err(Failure::internal("this feed gives no batches, or a trainer has them already"))
            }
        }
    }

    fn batches(&mut self) -> Result<&mut BatchReader, Failure> {
        match &mut self.reading {
            Some(Reading::Batches(reader)) => Ok(reader),
            _ => Err(Failure::internal("this feed gives no batches, or a trainer reads them")),
        }
    }

    fn advance(&mut self, count: u32) -> Result<String, Failure> {
        if let Some(Reading::Documents(documents)) = &mut self.reading {
            let mut passed = 0;
            while passed < count as usize {
                match documents.take(count as usize - passed)?.len() {
                    0 => break,
                    some => passed += some,
                }
            }
            return Ok(json!({"batches": passed, "state": null}).to_string());
        }
        let reader = self.batches()?;
        let (mut batch, mut batches) = (Batch::default(), 0);
        while batches < count {
            match reader.next(&mut batch, &mut |_| ())? {
                Next::Filled => batches += 1,
                Next::Ended => break,
                Next::Interrupted => return Err(Failure::closed("the feed")),
            }
        }
        Ok(json!({"batches": batches, "state": reader.state()}).to_string())
    }

    fn next_batch(&mut self) -> Result<Option<(Batch, String, String)>, Failure> {
        let reader = self.batches()?;
        let mut batch = Batch::default();
        match reader.next(&mut batch, &mut |_| ())? {
            Next::Filled => {
                let state = reader.state();
                Ok(Some((batch, serde_json::to_string(state)?, state.hash.clone())))
            }
            Next::Ended => Ok(None),
            Next::Interrupted => Err(Failure::closed("the feed")),
        }
    }
}
