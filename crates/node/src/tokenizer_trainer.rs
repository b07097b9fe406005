use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use candlewick_feed::Documents;
use candlewick_tokenizer::{BpeTrainer, Pattern, TokenizerError, TrainOptions};
use napi::{
    Env,
    bindgen_prelude::{ClassInstance, Object, ToNapiValue},
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
    #[serde(default)]
    max_token_length: Option<usize>,
    /// Bytes.
    #[serde(default)]
    memory_limit: Option<u64>,
    #[serde(default)]
    spill_dir: Option<PathBuf>,
    /// Seconds between two commits of what is kept.
    #[serde(default)]
    commit_every: Option<f64>,
}

/// Between two commits where no other time is asked for.
const COMMIT_EVERY: Duration = Duration::from_secs(30);
/// Counting that took so long is worth a commit before the merges.
const WORTH_KEEPING: Duration = Duration::from_secs(5);

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
    /// Tokens there are before the first merge.
    fixed_tokens: AtomicU64,
    commit_every: Duration,
    kept: AtomicBool,
}

#[napi]
impl NativeTokenizerTrainer {
    /// A trainer that has counted nothing yet; options are JSON.
    #[napi(constructor)]
    pub fn new(options: String) -> napi::Result<Self> {
        let options: TrainerJson = serde_json::from_str(&options).map_err(Failure::from)?;
        let pattern: Pattern = options.pattern.parse().map_err(Failure::from)?;
        let fixed_tokens = AtomicU64::new(256 + options.special_tokens.len() as u64);
        let defaults = TrainOptions::default();
        let trainer = BpeTrainer::new(TrainOptions {
            vocab_size: options.vocab_size,
            pattern,
            special_tokens: options.special_tokens,
            min_frequency: options.min_frequency,
            max_token_length: options.max_token_length,
            memory_limit: options.memory_limit.unwrap_or(defaults.memory_limit),
            spill_dir: options.spill_dir,
        })
        .map_err(Failure::from)?;
        Ok(Self {
            trainer: Arc::new(Mutex::new(Some(trainer))),
            progress: Arc::default(),
            fixed_tokens,
            commit_every: options.commit_every.map_or(COMMIT_EVERY, Duration::from_secs_f64),
            kept: AtomicBool::new(false),
        })
    }

    /// Keeps counts in a directory, for another process to go on from, and takes over what is kept there. Gives where
    /// the training stood that kept it: JSON of its last document's place; null at the start.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn keep_in<'e>(&self, env: &'e Env, dir: String) -> napi::Result<Object<'e>> {
        self.kept.store(true, Ordering::Relaxed);
        let progress = self.progress.clone();
        self.with_trainer(env, move |trainer| {
            let position = trainer.keep_in(Path::new(&dir))?;
            progress.tell(trainer);
            Ok(position)
        })
    }

    /// Goes on from the vocabulary of a tokenizer.
    #[napi]
    pub fn start_from(&self, tokenizer: ClassInstance<NativeTokenizer>) -> napi::Result<()> {
        let mut trainer = self.trainer.lock().expect("a panic in counting ends the process");
        let trainer = trainer.as_mut().ok_or_else(finished_already)?;
        trainer.start_from(tokenizer.tokenizer()).map_err(Failure::from)?;
        self.fixed_tokens.store(tokenizer.tokenizer().vocab_size() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Counts the words of documents.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn count<'e>(&self, env: &'e Env, documents: Vec<Text>) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        let (texts, trainer, progress) = (owned(documents), self.trainer.clone(), self.progress.clone());
        in_background("count", move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            promise.settle(if progress.aborted.load(Ordering::Relaxed) {
                Err(Failure::closed("the tokenizer's training"))
            } else {
                count(&trainer, &progress, &texts)
            });
        });
        Ok(object)
    }

    /// Adds the counts of a file.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn load_counts<'e>(&self, env: &'e Env, path: String) -> napi::Result<Object<'e>> {
        let progress = self.progress.clone();
        self.with_trainer(env, move |trainer| {
            trainer.load_counts(Path::new(&path))?;
            progress.tell(trainer);
            Ok(())
        })
    }

    /// Writes the counts into a file.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn save_counts<'e>(&self, env: &'e Env, path: String) -> napi::Result<Object<'e>> {
        self.with_trainer(env, move |trainer| Ok(trainer.save_counts(Path::new(&path))?))
    }

    /// Counts the words of every document of a feed, on the feed's thread and rayon's. What is kept is committed now and
    /// then, and when the feed fails or is closed before its end; `before` are the documents of the stream that were
    /// counted before it.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn consume<'e>(
        &self,
        env: &'e Env,
        feed: ClassInstance<NativeFeed>,
        before: f64,
    ) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        let (trainer, progress) = (self.trainer.clone(), self.progress.clone());
        let mut commits = Commits {
            every: self.commit_every,
            kept: self.kept.load(Ordering::Relaxed),
            last: Instant::now(),
            documents: before as u64,
            place: None,
        };
        feed.run(promise, move |running, promise| {
            let consumed = running
                .documents()
                .and_then(|documents| consume(documents, &trainer, &progress, &mut commits));
            if consumed.is_err()
                && let Err(failure) = commits.commit(&trainer, BpeTrainer::commit)
            {
                // It is the later failure, and the one that makes the kept counts older than they should be.
                promise.settle(Err(failure));
            } else {
                promise.settle(consumed);
            }
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
        let (trainer, progress) = (self.trainer.clone(), self.progress.clone());
        let fixed = self.fixed_tokens.load(Ordering::Relaxed);
        in_background("merge", move || {
            let taken = trainer.lock().expect("a panic in counting ends the process").take();
            let finished = taken.ok_or_else(finished_already).and_then(|t| {
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

    fn with_trainer<'e, T: ToNapiValue + Send + 'static>(
        &self,
        env: &'e Env,
        job: impl FnOnce(&mut BpeTrainer) -> Result<T, Failure> + Send + 'static,
    ) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<T>::new(env)?;
        let trainer = self.trainer.clone();
        in_background("counts", move || {
            let mut trainer = trainer.lock().expect("a panic in counting ends the process");
            promise.settle(trainer.as_mut().ok_or_else(finished_already).and_then(job));
        });
        Ok(object)
    }
}

impl Progress {
    fn tell(&self, trainer: &BpeTrainer) {
        self.documents.store(trainer.documents(), Ordering::Relaxed);
        self.bytes.store(trainer.bytes(), Ordering::Relaxed);
    }
}

/// When what is kept is committed, and up to which document.
struct Commits {
    every: Duration,
    kept: bool,
    last: Instant,
    /// Of the stream.
    documents: u64,
    place: Option<(u32, u32, u64)>,
}

impl Commits {
    /// Commits what was counted since the last commit, if anything.
    fn commit(
        &mut self,
        trainer: &Mutex<Option<BpeTrainer>>,
        commit: impl Fn(&mut BpeTrainer, &str) -> Result<(), TokenizerError>,
    ) -> Result<(), Failure> {
        let Some((file, group, row)) = self.place.take().filter(|_| self.kept) else { return Ok(()) };
        let position = json!({"file": file, "group": group, "row": row, "documents": self.documents});
        let mut trainer = trainer.lock().expect("a panic in counting ends the process");
        commit(trainer.as_mut().ok_or_else(finished_already)?, &position.to_string())?;
        self.last = Instant::now();
        Ok(())
    }
}

fn consume(
    documents: &mut Documents,
    trainer: &Mutex<Option<BpeTrainer>>,
    progress: &Progress,
    commits: &mut Commits,
) -> Result<(), Failure> {
    loop {
        let some = documents.take(4096)?;
        let Some(last) = some.last() else { break };
        if progress.aborted.load(Ordering::Relaxed) {
            return Err(Failure::closed("the tokenizer's training"));
        }
        let texts: Vec<_> = some.iter().map(|document| String::from_utf8_lossy(document.bytes())).collect();
        // Where counting fails half way, nothing may be committed any more.
        commits.place = None;
        count(trainer, progress, &texts.iter().map(|text| &**text).collect::<Vec<_>>())?;
        commits.documents += some.len() as u64;
        commits.place = Some(last.place());
        if commits.last.elapsed() >= commits.every {
            commits.commit(trainer, BpeTrainer::commit)?;
        }
    }
    if commits.last.elapsed() >= WORTH_KEEPING {
        commits.commit(trainer, BpeTrainer::commit_last)?;
    }
    Ok(())
}

fn count(trainer: &Mutex<Option<BpeTrainer>>, progress: &Progress, texts: &[&str]) -> Result<(), Failure> {
    let mut trainer = trainer.lock().expect("a panic in counting ends the process");
    let trainer = trainer.as_mut().ok_or_else(finished_already)?;
    trainer.count(texts)?;
    progress.tell(trainer);
    Ok(())
}

fn finished_already() -> Failure {
    Failure::internal("this trainer has finished already")
}
