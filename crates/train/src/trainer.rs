use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use candlewick_feed::{Batch, BatchReader, HeldOut, Interrupt, LeftOut, Next, SourceState, StreamState};
use candlewick_model::SamplerOptions;
use serde::{Deserialize, Serialize};

use crate::{Engine, Files, StepOutcome, TrainError, TrainOptions};

/// Events that may wait to be pulled; beyond that the trainer waits, so that none is lost and memory stays bounded.
const QUEUE: usize = 1024;

/// A wait for data is told after this long, and then at intervals that double up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Where a run ends; the first one reached counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Completed updates.
    pub max_steps: Option<u64>,
    /// Targets.
    pub max_tokens: Option<u64>,
    /// Documents, that is end-of-text targets.
    pub max_samples: Option<u64>,
}

impl Limits {
    /// The largest share of a limit that is reached, 0 to 1; 0 without limits.
    fn progress(&self, steps: u64, state: &StreamState) -> f64 {
        let share =
            |done: u64, limit: Option<u64>| limit.map_or(0.0, |limit| done as f64 / limit.max(1) as f64);
        share(steps, self.max_steps)
            .max(share(state.tokens, self.max_tokens))
            .max(share(state.documents, self.max_samples))
            .min(1.0)
    }

    fn reached(&self, steps: u64, state: &StreamState) -> bool {
        let over = |done: u64, limit: Option<u64>| limit.is_some_and(|limit| done >= limit);
        over(steps, self.max_steps)
            || over(state.tokens, self.max_tokens)
            || over(state.documents, self.max_samples)
    }
}

/// Why the trainer stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pause {
    /// The step that it was to run to is complete.
    Target,
    /// It was told to stop; the step in progress is abandoned and will be done again.
    Stopped,
    /// The stream is over.
    Ended,
    /// A limit is reached.
    Limit,
}

/// What a trainer tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// An update is complete.
    Step {
        /// Completed updates.
        step: u64,
        /// Mean nats a counted target.
        loss: f64,
        /// Before clipping.
        grad_norm: f64,
        /// Learning rate of this update.
        lr: f64,
        /// Targets so far.
        tokens: u64,
        /// Documents so far.
        documents: u64,
        /// The pass that the stream is in, from 1.
        epoch: u64,
        /// The sources in their order, where there are several.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        mix: Vec<Share>,
        /// Seconds of this step, waiting included.
        seconds: f64,
        /// Seconds of it spent waiting for data.
        data_wait_seconds: f64,
        /// Rolling hash over all targets.
        stream_hash: String,
    },
    /// No update was made from a batch, because loss or gradient was not finite. The batch counts with the next update.
    Skipped {
        /// Completed updates.
        step: u64,
        /// Mean nats a counted target; null in JSON where it is not finite.
        loss: f64,
        /// Norm of the gradient; null in JSON where it is not finite.
        grad_norm: f64,
        /// How many in a row, this one included.
        in_a_row: u64,
        /// With so many in a row the run has diverged.
        limit: u64,
        /// Targets so far, these included.
        tokens: u64,
        /// Seconds that it took, waiting included.
        seconds: f64,
        /// Seconds of it spent waiting for data.
        data_wait_seconds: f64,
    },
    /// The trainer stands still.
    Paused {
        /// Completed updates.
        step: u64,
        /// Why.
        reason: Pause,
    },
    /// An evaluation is complete.
    Eval {
        /// Completed updates.
        step: u64,
        /// Summed over the targets.
        nats: f64,
        /// Targets counted.
        targets: u64,
    },
    /// A text is continued.
    Sample {
        /// Completed updates.
        step: u64,
        /// What follows the prompt, without end-of-text.
        ids: Vec<u32>,
    },
    /// Batches were left out (`--skip-steps`) since the last step.
    #[serde(rename = "left_out")]
    LeftOut {
        /// The last of them, counted from 1.
        last: u64,
        /// How many.
        batches: u64,
        /// Targets in them.
        tokens: u64,
        /// Documents in them.
        documents: u64,
    },
    /// The trainer waits for data.
    Waiting {
        /// How long already.
        seconds: f64,
    },
    /// What it was doing failed; it stands still and can still save.
    Error {
        /// Stable code.
        code: String,
        /// What happened.
        message: String,
        /// What to do next.
        hint: String,
    },
}

/// A text that the model is to continue.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Tokens at most.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub options: SamplerOptions,
}

/// A checkpoint whose files are written and synced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Saved {
    /// Completed updates.
    pub step: u64,
    /// The stream's state after that step.
    pub state: StreamState,
    /// What was written.
    pub files: Files,
    /// Whether it was written from a copy, while training went on.
    pub copied: bool,
    /// Seconds for which the trainer stood still.
    pub held_seconds: f64,
}

enum Command {
    RunUntil(u64),
    Evaluate(Arc<HeldOut>, Option<usize>),
    Sample(SampleRequest),
    Save(PathBuf, Done),
}

type Tell = Box<dyn FnOnce(Result<Saved, TrainError>) + Send>;

/// Whoever waits for a save. It is told in every case, that the trainer is gone included.
struct Done(Option<Tell>);

impl Done {
    fn tell(mut self, outcome: Result<Saved, TrainError>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(TrainError::new(
                "ABORTED",
                "the trainer ended before the checkpoint was written",
                "the same command goes on from the checkpoint before",
            )));
        }
    }
}

/// A thread that owns the engine and the reading end of the stream, and does what it is told, one thing at a time.
pub struct Trainer {
    commands: Option<mpsc::Sender<Command>>,
    events: Arc<Events>,
    interrupt: Interrupt,
    thread: Option<JoinHandle<()>>,
}

/// Events waiting to be pulled.
pub struct Events {
    queue: Mutex<Queue>,
    changed: Condvar,
    on_event: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    closed: bool,
}

impl Trainer {
    /// Builds the engine on the trainer's own thread and hands the outcome to `built` there.
    ///
    /// `checkpoint` is a directory to go on from. `on_event` is called, from the trainer's thread, when there are
    /// events to pull; it must not block.
    pub fn start(
        options: TrainOptions,
        limits: Limits,
        checkpoint: Option<PathBuf>,
        reader: BatchReader,
        on_event: impl Fn() + Send + Sync + 'static,
        built: impl FnOnce(Result<(), TrainError>) + Send + 'static,
    ) -> Self {
        let events = Arc::new(Events {
            queue: Mutex::default(),
            changed: Condvar::new(),
            on_event: Box::new(on_event),
        });
        let (commands, inbox) = mpsc::channel();
        let interrupt = reader.interrupt();
        let told = events.clone();
        let body = move || match build(&options, checkpoint.as_deref()) {
            Err(error) => built(Err(error)),
            Ok(engine) => {
                built(Ok(()));
                let runner = Runner::new(engine, limits, reader, told.clone());
                // A panic is a bug, but whoever waits for the next event must hear of it.
                if std::panic::catch_unwind(AssertUnwindSafe(|| runner.serve(inbox))).is_err() {
                    told.put(Event::Error {
                        code: "INTERNAL".into(),
                        message: "the trainer's thread panicked; what it said stands above".into(),
                        hint: "this is a bug of candlewick; please report it. The same command goes on from the \
                               last checkpoint"
                            .into(),
                    });
                }
            }
        };
        let thread = std::thread::Builder::new().name("trainer".into()).spawn(body);
        let thread = Some(thread.expect("the operating system starts a thread"));
        Self { commands: Some(commands), events, interrupt, thread }
    }

    /// Trains until `step` updates are complete; ends with [`Event::Paused`] or [`Event::Error`].
    pub fn run_until(&self, step: u64) {
        self.begin(Command::RunUntil(step));
    }

    /// Evaluates, in sequences of `context` tokens where that is given, which has to divide the sequence length; ends with
    /// [`Event::Eval`], or [`Event::Paused`] if stopped, or [`Event::Error`].
    pub fn evaluate(&self, held_out: Arc<HeldOut>, context: Option<usize>) {
        self.begin(Command::Evaluate(held_out, context));
    }

    /// Continues a text; ends with [`Event::Sample`], or [`Event::Paused`] if stopped, or [`Event::Error`].
    pub fn sample(&self, request: SampleRequest) {
        self.begin(Command::Sample(request));
    }

    /// Writes a checkpoint's files into an existing directory and tells `done`, from another thread.
    ///
    /// What is written is the state when the trainer comes to this command. What it is told next goes on meanwhile,
    /// where there is memory for a copy; a save that comes before the last one is written waits for it.
    pub fn save(&self, directory: PathBuf, done: impl FnOnce(Result<Saved, TrainError>) + Send + 'static) {
        self.send(Command::Save(directory, Done(Some(Box::new(done)))));
    }

    /// Abandons the step or evaluation in progress.
    pub fn stop(&self) {
        self.interrupt.raise();
    }

    /// Events to pull.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Abandons what is in progress, ends the thread without waiting for it and returns it.
    pub fn close(&mut self) -> Option<JoinHandle<()>> {
        self.commands = None;
        self.interrupt.raise();
        self.events.close();
        self.thread.take()
    }

    fn begin(&self, command: Command) {
        // Here and not on the trainer's thread: a stop that comes after this call must not be taken back.
        self.interrupt.lower();
        self.send(command);
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // A trainer whose thread is gone has said why.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Events {
    /// Up to `max` events, oldest first; none when none is there.
    pub fn take(&self, max: usize) -> Vec<Event> {
        let mut queue = self.lock();
        let count = queue.events.len().min(max);
        let taken = queue.events.drain(..count).collect();
        self.changed.notify_all();
        taken
    }

    /// Whether the trainer was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn put(&self, event: Event) {
        let mut queue = self.lock();
        while queue.events.len() >= QUEUE && !queue.closed {
            queue = self.changed.wait(queue).expect("no thread panics while it holds this");
        }
        queue.events.push_back(event);
        drop(queue);
        (self.on_event)();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        (self.on_event)();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().expect("no thread panics while it holds this")
    }
}

fn build(options: &TrainOptions, checkpoint: Option<&Path>) -> Result<Engine, TrainError> {
    let mut engine = Engine::new(options)?;
    if let Some(directory) = checkpoint {
        engine.load(directory)?;
    }
    Ok(engine)
}

/// What one source of several has given so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// Its part of all targets, 0 to 1.
    pub share: f64,
    /// The pass over it, from 1.
    pub epoch: u64,
}

fn shares(state: &StreamState) -> Vec<Share> {
    let sources = Some(&state.sources).filter(|sources| sources.len() > 1);
    let total: u64 = state.sources.iter().map(|source| source.tokens).sum();
    let part = |tokens: u64| tokens as f64 / total.max(1) as f64;
    let share = |source: &SourceState| Share { share: part(source.tokens), epoch: source.epoch() };
    sources.into_iter().flatten().map(share).collect()
}

/// A batch, and the stream's state after it.
struct Read {
    batch: Batch,
    state: StreamState,
}

struct Runner {
    engine: Engine,
    limits: Limits,
    reader: BatchReader,
    events: Arc<Events>,
    interrupt: Interrupt,
    /// The stream's state after the last completed step.
    done: StreamState,
    /// Batches that were read but whose steps were abandoned, oldest first.
    pending: VecDeque<Read>,
    /// The step whose outcome the device has not told yet.
    under_way: Option<Read>,
    /// Since when the next step to be told has been on, and how long had been waited for data then.
    since: (Instant, Duration),
    /// What was left out and told.
    told: LeftOut,
    /// Writes the last snapshot.
    writer: Option<JoinHandle<()>>,
}

impl Runner {
    fn new(engine: Engine, limits: Limits, reader: BatchReader, events: Arc<Events>) -> Self {
        let (interrupt, done) = (reader.interrupt(), reader.state().clone());
        Self {
            engine,
            limits,
            reader,
            events,
            interrupt,
            done,
            pending: VecDeque::new(),
            under_way: None,
            since: (Instant::now(), Duration::ZERO),
            told: LeftOut::default(),
            writer: None,
        }
    }

    fn serve(mut self, commands: mpsc::Receiver<Command>) {
        for command in commands {
            let event = match command {
                Command::RunUntil(step) => {
                    self.run_until(step).map(|reason| Event::Paused { step: self.engine.steps(), reason })
                }
                Command::Evaluate(held_out, context) => self.evaluate(&held_out, context),
                Command::Sample(request) => self.sample(request),
                Command::Save(directory, done) => {
                    self.save(directory, done);
                    continue;
                }
            };
            self.events.put(event.unwrap_or_else(|TrainError { code, message, hint }| Event::Error {
                code: code.into(),
                message,
                hint,
            }));
        }
    }

    fn run_until(&mut self, target: u64) -> Result<Pause, TrainError> {
        let pause = self.step_until(target);
        // Whatever comes next (a checkpoint, an evaluation) is of the steps that were told.
        self.settle()?;
        pause
    }

    fn step_until(&mut self, target: u64) -> Result<Pause, TrainError> {
        loop {
            let steps = self.engine.steps();
            // What will stand when the step under way is done.
            let pause = match &self.under_way {
                Some(read) => self.pause_at(target, steps + 1, &read.state),
                None => self.pause_at(target, steps, &self.done),
            };
            if let Some(pause) = pause {
                if self.under_way.is_none() {
                    return Ok(pause);
                }
                // Its update may have been left out, and then it is not yet time.
                self.settle()?;
                continue;
            }
            if let Some(pause) = self.step()? {
                return Ok(pause);
            }
        }
    }

    fn pause_at(&self, target: u64, steps: u64, state: &StreamState) -> Option<Pause> {
        if self.limits.reached(steps, state) {
            return Some(Pause::Limit);
        }
        (steps >= target).then_some(Pause::Target)
    }

    /// One batch, and the update from it unless it is left out; or why there was none. Where the device goes on by itself, what
    /// came of it is told when the gradients of the next step are under way, so that the device need not wait for the host between them.
    fn step(&mut self) -> Result<Option<Pause>, TrainError> {
        if self.pending.is_empty() && !self.reader.is_ready() {
            // What is done is told before a wait for data.
            self.settle()?;
        }
        if self.under_way.is_none() {
            self.since = (Instant::now(), self.reader.waited());
        }
        let read = match self.pending.pop_front() {
            Some(read) => read,
            None => {
                let mut batch = Batch::default();
                let events = &self.events;
                let mut due = FIRST_WAIT;
                let mut tell = |since: Duration| {
                    if since >= due {
                        due = since + since.min(LONGEST_WAIT);
                        events.put(Event::Waiting { seconds: since.as_secs_f64() });
                    }
                };
                let next = self.reader.next(&mut batch, &mut tell)?;
                if next == Next::Interrupted {
                    return Ok(Some(Pause::Stopped));
                }
                let state = self.reader.state().clone();
                let read = (next == Next::Filled).then_some(Read { batch, state });
                if let Err(error) = self.tell_left_out(read.is_some()) {
                    self.pending.extend(read);
                    return Err(error);
                }
                match read {
                    Some(read) => read,
                    None => return Ok(Some(Pause::Ended)),
                }
            }
        };
        let interrupt = &self.interrupt;
        let gradients = match self.engine.gradients(&read.batch, &|| interrupt.is_raised()) {
            Ok(Some(gradients)) => gradients,
            Ok(None) => {
                self.pending.push_front(read);
                return Ok(Some(Pause::Stopped));
            }
            Err(error) => {
                self.pending.push_front(read);
                return Err(error);
            }
        };
        if let Err(error) = self.settle() {
            // Behind the batch of the step that failed.
            self.pending.push_back(read);
            return Err(error);
        }
        let progress = self.limits.progress(self.engine.steps(), &self.done);
        if let Err(error) = self.engine.update(gradients, progress) {
            self.pending.push_front(read);
            return Err(error);
        }
        self.under_way = Some(read);
        if !self.engine.goes_on() {
            self.settle()?;
        }
        Ok(None)
    }

    /// Waits for the step under way, if there is one, and tells what came of it.
    fn settle(&mut self) -> Result<(), TrainError> {
        let Some(read) = self.under_way.take() else { return Ok(()) };
        let outcome = match self.engine.settle() {
            Ok(outcome) => outcome,
            Err(error) => {
                self.pending.push_front(read);
                return Err(error);
            }
        };
        let (since, waited) = std::mem::replace(&mut self.since, (Instant::now(), self.reader.waited()));
        let seconds = (self.since.0 - since).as_secs_f64();
        let data_wait_seconds = (self.since.1 - waited).as_secs_f64();
        let step = self.engine.steps();
        self.events.put(match outcome {
            StepOutcome::Done(stats) => {
                self.done = read.state;
                Event::Step {
                    step,
                    loss: stats.loss,
                    grad_norm: stats.grad_norm,
                    lr: stats.lr,
                    tokens: self.done.tokens,
                    documents: self.done.documents,
                    epoch: self.done.epoch(),
                    mix: shares(&self.done),
                    seconds,
                    data_wait_seconds,
                    stream_hash: self.done.hash.clone(),
                }
            }
            // A checkpoint of before the next update goes on before this batch, and leaves it out again.
            StepOutcome::Skipped { stats, in_a_row } => Event::Skipped {
                step,
                loss: stats.loss,
                grad_norm: stats.grad_norm,
                in_a_row,
                limit: self.engine.options().max_skipped_steps,
                tokens: read.state.tokens,
                seconds,
                data_wait_seconds,
            },
        });
        Ok(())
    }

    fn tell_left_out(&mut self, before_a_batch: bool) -> Result<(), TrainError> {
        let (told, now) = (self.told, self.reader.left_out());
        if told != now {
            self.settle()?;
            self.events.put(Event::LeftOut {
                last: self.reader.state().batches - u64::from(before_a_batch),
                batches: now.batches - told.batches,
                tokens: now.tokens - told.tokens,
                documents: now.documents - told.documents,
            });
            self.told = now;
        }
        Ok(())
    }

    fn evaluate(&mut self, held_out: &HeldOut, context: Option<usize>) -> Result<Event, TrainError> {
        let TrainOptions { micro_batch_size, sequence_length, .. } = *self.engine.options();
        let (interrupt, context) = (&self.interrupt, context.unwrap_or(sequence_length));
        let mut nats = 0.0;
        for batch in held_out.batches(micro_batch_size, sequence_length) {
            match self.engine.evaluate_in(&batch, context, &|| interrupt.is_raised())? {
                Some(sum) => nats += sum,
                None => return Ok(Event::Paused { step: self.engine.steps(), reason: Pause::Stopped }),
            }
        }
        Ok(Event::Eval { step: self.engine.steps(), nats, targets: held_out.targets().len() as u64 })
    }

    fn sample(&mut self, request: SampleRequest) -> Result<Event, TrainError> {
        let SampleRequest { prompt, max_tokens, options } = request;
        let step = self.engine.steps();
        let Self { engine, interrupt, .. } = self;
        let ids = engine.generate(&prompt, max_tokens, options, &|| interrupt.is_raised())?;
        Ok(ids.map_or(Event::Paused { step, reason: Pause::Stopped }, |ids| Event::Sample { step, ids }))
    }

    /// From a copy that a thread of its own writes; where there is no memory for one, here and now.
    fn save(&mut self, directory: PathBuf, done: Done) {
        let began = Instant::now();
        self.wait_for_writer();
        let (step, state) = (self.engine.steps(), self.done.clone());
        let saved = move |files, copied, held: Duration| Saved {
            step,
            state,
            files,
            copied,
            held_seconds: held.as_secs_f64(),
        };
        match self.engine.snapshot() {
            Err(error) => done.tell(Err(error)),
            Ok(None) => {
                let files = self.engine.save(&directory);
                done.tell(files.map(|files| saved(files, false, began.elapsed())));
            }
            Ok(Some(snapshot)) => {
                let held = began.elapsed();
                let body = move || {
                    let files = snapshot.write(&directory);
                    // Its memory is free before anybody hears of it.
                    drop(snapshot);
                    done.tell(files.map(|files| saved(files, true, held)));
                };
                let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(body);
                // Without a thread `done` was dropped, and so told.
                self.writer = thread.ok();
            }
        }
    }

    fn wait_for_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            // If it panicked, `done` was told when it was dropped.
            let _ = writer.join();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.wait_for_writer();
    }
}
