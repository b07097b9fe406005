use std::{path::PathBuf, sync::Arc};

use candlewick_model::{ModelConfig, SamplerOptions};
use candlewick_train::{
    Device, Events, Limits, OptimizerOptions, Recompute, SampleRequest, Schedule, TrainOptions, Trainer,
};
use napi::{
    Env,
    bindgen_prelude::{ClassInstance, Object},
};
use napi_derive::napi;
use serde::Deserialize;

use crate::{
    failure::Failure,
    feed::NativeFeed,
    held_out::NativeHeldOut,
    memory::give_back_freed,
    promise::{Promise, Waiting},
    tokenizer::NativeTokenizer,
};

/// Pulled at a time at most, when an offer comes before anybody said how many they want.
const PULL: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainerJson {
    model: ModelConfig,
    sequence_length: usize,
    micro_batch_size: usize,
    global_batch_size: usize,
    optimizer: OptimizerOptions,
    schedule: Schedule,
    limits: Limits,
    threads: Option<usize>,
    device: Device,
    seed: u64,
    z_loss: f64,
    recompute: Recompute,
    max_skipped_steps: u64,
    checkpoint: Option<PathBuf>,
    init_from: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleJson {
    max_tokens: usize,
    temperature: f64,
    seed: u64,
    /// Tokens that may be drawn are those below.
    vocabulary: usize,
}

/// A trainer on its own thread.
#[napi]
pub struct NativeTrainer {
    trainer: Trainer,
    events: Waiting<Vec<String>>,
}

/// Builds a trainer that reads a feed; the feed gives its batches away.
#[napi(ts_return_type = "Promise<NativeTrainer>")]
pub fn create_trainer<'e>(
    env: &'e Env,
    options: String,
    feed: ClassInstance<NativeFeed>,
    tokenizer: ClassInstance<NativeTokenizer>,
) -> napi::Result<Object<'e>> {
    let options: TrainerJson = serde_json::from_str(&options).map_err(Failure::from)?;
    let mut model = options.model;
    model.eos_token_id = Some(tokenizer.tokenizer().eos_token().map_err(Failure::from)?.0);
    let train = TrainOptions {
        model,
        sequence_length: options.sequence_length,
        micro_batch_size: options.micro_batch_size,
        global_batch_size: options.global_batch_size,
        optimizer: options.optimizer,
        schedule: options.schedule,
        seed: options.seed,
        device: options.device,
        // A checkpoint has weights of its own.
        init_from: options.init_from.filter(|_| options.checkpoint.is_none()),
        threads: options.threads,
        z_loss: options.z_loss,
        recompute: options.recompute,
        max_skipped_steps: options.max_skipped_steps,
    };
    let (promise, object) = Promise::<NativeTrainer>::new(env)?;
    feed.run(promise, move |running, promise| {
        let reader = match running.take_batches() {
            Ok(reader) => reader,
            Err(failure) => return promise.reject(failure),
        };
        let events: Waiting<Vec<String>> = Waiting::new();
        let (pull, pulled) = std::sync::mpsc::channel::<Arc<Events>>();
        let offered = events.clone();
        // The hook needs the queue that `start` makes: it comes over a channel right after.
        let queue = std::sync::OnceLock::new();
        let hook = move || {
            let queue: &Arc<Events> =
                queue.get_or_init(|| pulled.recv().expect("sent right after the start"));
            offered.offer(|| take(queue, PULL));
        };
        let (built, outcome) = std::sync::mpsc::channel();
        let hook = std::sync::Mutex::new(hook);
        let on_event = move || (hook.lock().expect("nobody panics here"))();
        let trainer =
            Trainer::start(train, options.limits, options.checkpoint, reader, on_event, move |result| {
                // Whoever built this trainer waits below.
                let _ = built.send(result);
            });
        let _ = pull.send(trainer.events().clone());
        let outcome = outcome.recv().unwrap_or_else(|_| {
            Err(candlewick_train::TrainError::new(
                "INTERNAL",
                "the trainer's thread ended while it built the model",
                "this is a bug of candlewick; please report it with config.yaml",
            ))
        });
        promise
            .settle_with(outcome.map_err(Failure::from).map(|()| (trainer, events)), |(trainer, events)| {
                NativeTrainer { trainer, events }
            });
    });
    Ok(object)
}

#[napi]
impl NativeTrainer {
    /// Trains until so many updates are complete; a `paused` event follows.
    #[napi]
    pub fn run_until(&self, step: f64) {
        self.trainer.run_until(step as u64);
    }

    /// Evaluates, in sequences of `context` tokens where that is given; an `eval` event follows.
    #[napi]
    pub fn evaluate(&self, held_out: &NativeHeldOut, context: Option<u32>) {
        self.trainer.evaluate(held_out.held_out(), context.map(|context| context as usize));
    }

    /// Continues the text of `prompt`; a `sample` event follows.
    #[napi]
    pub fn sample(&self, prompt: Vec<u32>, options: String) -> napi::Result<()> {
        let SampleJson { max_tokens, temperature, seed, vocabulary } =
            serde_json::from_str(&options).map_err(Failure::from)?;
        let options = SamplerOptions { temperature, top_k: None, top_p: None, seed, vocabulary };
        self.trainer.sample(SampleRequest { prompt, max_tokens, options });
        Ok(())
    }

    /// Writes a checkpoint's files into an existing directory, while what is told next goes on. JSON: `step`, `state`
    /// (of the stream), `files` (bytes and SHA-256 by name), `copied`, `held_seconds`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn save<'e>(&self, env: &'e Env, dir: String) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<String>::new(env)?;
        self.trainer.save(dir.into(), move |saved| {
            let json =
                saved.map(|saved| serde_json::to_string(&saved).expect("what was saved is plain data"));
            promise.settle(json.map_err(Failure::from));
        });
        Ok(object)
    }

    /// Abandons what is in progress; a `paused` event follows.
    #[napi]
    pub fn stop(&self) {
        self.trainer.stop();
    }

    /// Events as JSON, oldest first; empty once closed.
    #[napi(ts_return_type = "Promise<string[]>")]
    pub fn next_events<'e>(&self, env: &'e Env, max: u32) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::new(env)?;
        self.events.wait(promise, || take(self.trainer.events(), max.max(1) as usize));
        Ok(object)
    }

    /// Ends the trainer; settles when its thread is gone.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'e>(&mut self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        let thread = self.trainer.close();
        let joined = move || {
            // A panic of the trainer was reported where it happened.
            thread.map(std::thread::JoinHandle::join);
            give_back_freed();
            promise.settle(Ok(()));
        };
        std::thread::Builder::new()
            .name("close".into())
            .spawn(joined)
            .expect("the operating system starts a thread");
        Ok(object)
    }
}

/// Events to give, an empty list once the trainer is closed, or nothing yet.
fn take(events: &Events, max: usize) -> Option<Vec<String>> {
    let taken = events.take(max);
    if taken.is_empty() && !events.is_closed() {
        return None;
    }
    Some(taken.iter().map(|event| serde_json::to_string(event).expect("events are plain data")).collect())
}

/// JSON: parameters of a model configuration by group; throws CONFIG_INVALID.
#[napi]
pub fn parameter_count(model: String) -> napi::Result<String> {
    let mut model: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&model).map_err(Failure::from)?;
    // Only the context's length may be missing: it has no parameters.
    if model.get("max_position_embeddings").is_none_or(serde_json::Value::is_null) {
        model.insert("max_position_embeddings".into(), 1.into());
    }
    let model: ModelConfig = serde_json::from_value(model.into()).map_err(Failure::from)?;
    model.validate().map_err(Failure::from)?;
    Ok(serde_json::to_string(&model.parameter_count()).map_err(Failure::from)?)
}
