use crate::{
    Device, TrainError, TrainOptions,
    backend::{Backend, Cpu, LossOptions, Outcome, State, Update, cpu_plan, cuda},
    checkpoint::{Files, Place, Snapshot, places},
    continuation::Continuation,
    plan::{Plan, PlanShape},
    step::{MicroBatch, Step},
};
use candlewick_feed::{Batch, IGNORED};
use candlewick_model::{Generator, ModelError, Parameters, SamplerOptions, Transformer};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::path::Path;

/// Model, optimizer and the number of completed updates: what a step changes.
///
/// Bitwise repeatable for a seed, across a save and load as well.
#[derive(Debug)]
pub struct Engine {
    options: TrainOptions,
    /// The model whose values the CPU's step changes; a GPU's weights are there alone.
    transformer: Option<Transformer>,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) steps: u64,
    /// Updates left out since the last one that was made.
    skipped: u64,
    /// The update whose outcome is not known yet.
    under_way: Option<UnderWay>,
    step: Step,
    pool: ThreadPool,
}

/// Gradients of the mean loss over a batch, which the device has or is about to have: what [`Engine::update`] takes.
#[derive(Debug)]
#[must_use = "without an update they are lost"]
pub struct Gradients {
    /// One over the counted targets.
    scale: f64,
}

#[derive(Debug)]
struct UnderWay {
    scale: f64,
    lr: f64,
}

/// What a completed step reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Mean over the counted targets of the global batch, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate that was used.
    pub lr: f64,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepOutcome {
    /// The parameters were updated.
    Done(StepStats),
    /// Loss or gradient is not finite: no update was made, parameters and moments are as they were.
    Skipped {
        /// What would have been reported.
        stats: StepStats,
        /// How many in a row, this one included.
        in_a_row: u64,
    },
}

impl Engine {
    /// A model, fresh or with the weights of another (`init_from`), and a fresh optimizer.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, `OUT_OF_MEMORY_HOST`; `CHECKPOINT_CORRUPT` for weights that cannot be read; on a GPU
    /// `CUDA_UNAVAILABLE` and `CUDA_DRIVER_TOO_OLD` with what is missing, `OUT_OF_MEMORY_DEVICE`.
    pub fn new(options: &TrainOptions) -> Result<Self, TrainError> {
        options.validate()?;
        match options.device {
            Device::Cpu => Self::on_cpu(options),
            Device::Cuda(ordinal) => {
                let plan = cuda::plan(&options.model, plan_shape(options))?;
                let backend = cuda::on_gpu(ordinal, &options.model, plan.clone())?;
                Self::on_device(options, backend, plan)
            }
        }
    }

    /// As [`Engine::new`] on GPU 0, and the time of each of its kernels is added to `times`: for measurements, since the
    /// host waits after each.
    ///
    /// # Errors
    /// As [`Engine::new`].
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    pub fn timed(options: &TrainOptions, times: candlewick_cuda::Times) -> Result<Self, TrainError> {
        options.validate()?;
        let plan = cuda::plan(&options.model, plan_shape(options))?;
        let backend = cuda::on_timed_gpu(&options.model, plan.clone(), times)?;
        Self::on_device(options, backend, plan)
    }

    /// The weights, or a moment, as they stand, in the flat order of the parameters.
    ///
    /// # Errors
    /// What the device says.
    pub fn state(&self, state: State) -> Result<Vec<f32>, TrainError> {
        let mut values = vec![0.0; self.plan().parameters];
        self.backend.read(state, 0, &mut values)?;
        Ok(values)
    }

    fn on_cpu(options: &TrainOptions) -> Result<Self, TrainError> {
        let pool = threads(options.threads.unwrap_or(0))?;
        let (model, host) = (options.model.clone(), candle_core::Device::Cpu);
        let transformer = match &options.init_from {
            None => Transformer::new(model, options.seed, &host)?,
            Some(directory) => Transformer::with_weights_of(model, directory, &host)?,
        };
        let plan = cpu_plan(&options.model, plan_shape(options), pool.current_num_threads());
        let backend = Box::new(Cpu::new(&transformer, &plan)?);
        Ok(Self::of(options, Some(transformer), backend, plan, pool))
    }

    /// On a backend that has nothing yet: the weights are brought there a parameter at a time.
    pub(crate) fn on_device(
        options: &TrainOptions,
        mut backend: Box<dyn Backend>,
        plan: Plan,
    ) -> Result<Self, TrainError> {
        let TrainOptions { model, seed, init_from, .. } = options;
        let stored = init_from
            .as_ref()
            .map(|directory| Transformer::check_weights_of(model, directory))
            .transpose()?;
        let mut values = Vec::new();
        for Place { spec, range } in places(model) {
            match &stored {
                Some(stored) => values = stored.read(&spec.name)?,
                None => {
                    values.resize(range.len(), 0.0);
                    spec.initialize(*seed, &mut values);
                }
            }
            backend.write(State::Weights, range.start, &values)?;
        }
        // The device has threads of its own; one gives it what to do.
        Ok(Self::of(options, None, backend, plan, threads(1)?))
    }

    fn of(
        options: &TrainOptions,
        transformer: Option<Transformer>,
        backend: Box<dyn Backend>,
        plan: Plan,
        pool: ThreadPool,
    ) -> Self {
        let step = Step::new(&options.model, plan);
        Self {
            options: options.clone(),
            transformer,
            backend,
            steps: 0,
            skipped: 0,
            under_way: None,
            step,
            pool,
        }
    }

    /// Completed updates.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What the engine was made with.
    pub fn options(&self) -> &TrainOptions {
        &self.options
    }

    /// The model as it stands.
    ///
    /// # Panics
    /// Where the step does not run on the CPU: the host has no copy of the weights then.
    pub fn transformer(&self) -> &Transformer {
        self.transformer.as_ref().expect("the step runs on the CPU")
    }

    /// The parameters as they stand.
    ///
    /// # Panics
    /// As [`Engine::transformer`].
    pub fn parameters(&self) -> &Parameters {
        self.transformer().parameters()
    }

    /// Where everything lies.
    pub fn plan(&self) -> &Plan {
        self.step.plan()
    }

    /// The gradient of the last step, in the flat order of the parameters, before clipping.
    ///
    /// # Errors
    /// What the device says.
    pub fn gradient(&self) -> Result<Vec<f32>, TrainError> {
        let mut values = vec![0.0; self.plan().parameters];
        let len = values.len();
        self.backend.gradient(crate::plan::Weight { offset: 0, len }, &mut values)?;
        Ok(values)
    }

    /// Threads of the step.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// One update from a global batch: gradients of the mean loss over its counted targets, summed over
    /// micro-batches, clipped, and applied at the schedule's rate for `progress` (0 to 1).
    ///
    /// `interrupted` is asked before each micro-batch and before the update; `None` after it said so, and nothing has changed.
    ///
    /// # Errors
    /// `DIVERGED` when loss or gradient was not finite [`TrainOptions::max_skipped_steps`] times in a row, `INTERNAL`
    /// for a batch of another shape or without a counted target, `TOKENIZER_MISMATCH` for an id beyond the vocabulary.
    /// Nothing has changed then.
    pub fn step(
        &mut self,
        batch: &Batch,
        progress: f64,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<StepOutcome>, TrainError> {
        let Some(gradients) = self.gradients(batch, interrupted)? else {
            return Ok(None);
        };
        self.update(gradients, progress)?;
        self.settle().map(Some)
    }

    /// Whether the device works on when a method has returned: a step is then best settled when the gradients of the next
    /// one are under way.
    pub fn goes_on(&self) -> bool {
        self.backend.goes_on()
    }

    /// The first part of [`Engine::step`], which changes no weight: the update before it need not be settled. `None` after
    /// `interrupted` said so.
    ///
    /// # Errors
    /// As [`Engine::step`], but for `DIVERGED`.
    pub fn gradients(
        &mut self,
        batch: &Batch,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Gradients>, TrainError> {
        self.check(batch)?;
        let counted = count(&batch.targets);
        if counted == 0 {
            return Err(TrainError::new(
                "INTERNAL",
                "a batch without a target to count",
                "this is a bug of candlewick; please report it",
            ));
        }
        let scale = 1.0 / counted as f64;
        let Self { options, backend, step, pool, .. } = &mut *self;
        step.begin(&mut **backend)?;
        let loss = LossOptions { scale, z_loss: options.z_loss, gradient: true };
        for micro_batch in micro_batches(batch, step.plan().shape.rows) {
            if interrupted() {
                return Ok(None);
            }
            // A micro-batch of filling only has no gradient to give.
            if count(micro_batch.targets) > 0 {
                pool.install(|| step.forward_backward(&mut **backend, micro_batch, loss))?;
            }
        }
        Ok(if interrupted() { None } else { Some(Gradients { scale }) })
    }

    /// The second part of [`Engine::step`]; the third is [`Engine::settle`].
    ///
    /// # Errors
    /// What the device says.
    ///
    /// # Panics
    /// When the update before is not settled, as every method that counts on it: its number is not known.
    pub fn update(&mut self, gradients: Gradients, progress: f64) -> Result<(), TrainError> {
        self.assert_settled();
        let Gradients { scale } = gradients;
        let Self { options, backend, pool, steps, .. } = &mut *self;
        let optimizer = &options.optimizer;
        let lr = optimizer.lr * options.schedule.factor(*steps, progress);
        let update = Update {
            step: *steps + 1,
            scale,
            lr,
            betas: optimizer.betas,
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
            clip_grad_norm: optimizer.clip_grad_norm,
            seed: options.seed,
        };
        pool.install(|| backend.update(&update))?;
        self.under_way = Some(UnderWay { scale, lr });
        Ok(())
    }

    /// What came of the update under way, once it is done; counts it.
    ///
    /// # Errors
    /// `DIVERGED` as [`Engine::step`]; what the device says.
    ///
    /// # Panics
    /// When none is under way.
    pub fn settle(&mut self) -> Result<StepOutcome, TrainError> {
        let UnderWay { scale, lr } = self.under_way.take().expect("an update is under way");
        let Outcome { nats, grad_norm, skipped } = self.backend.outcome()?;
        let stats = StepStats { loss: nats * scale, grad_norm, lr };
        if !skipped {
            self.steps += 1;
            self.skipped = 0;
            return Ok(StepOutcome::Done(stats));
        }
        self.skipped += 1;
        if self.skipped >= self.options.max_skipped_steps {
            let what = if stats.loss.is_finite() { "gradient" } else { "loss" };
            let times = std::mem::take(&mut self.skipped);
            return Err(TrainError::diverged(what, self.steps + 1, times));
        }
        Ok(StepOutcome::Skipped { stats, in_a_row: self.skipped })
    }

    /// Σ nats over the batch's counted targets; `None` after `interrupted` said so, which is asked before each
    /// micro-batch.
    ///
    /// # Errors
    /// `INTERNAL` for a batch of another sequence length, `TOKENIZER_MISMATCH` for an id beyond the vocabulary.
    pub fn evaluate(
        &mut self,
        batch: &Batch,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<f64>, TrainError> {
        self.evaluate_in(batch, self.options.sequence_length, interrupted)
    }

    /// [`Engine::evaluate`] with every sequence cut into some of `context` tokens, which know nothing of each other.
    ///
    /// # Errors
    /// As [`Engine::evaluate`]; `INTERNAL` too where `context` does not divide the sequence length.
    pub fn evaluate_in(
        &mut self,
        batch: &Batch,
        context: usize,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<f64>, TrainError> {
        self.assert_settled();
        self.check(batch)?;
        if context == 0 || !batch.sequence_length.is_multiple_of(context) {
            return Err(TrainError::new(
                "INTERNAL",
                format!("sequences of {} cannot be cut into some of {context}", batch.sequence_length),
                "this is a bug of candlewick; please report it",
            ));
        }
        let Self { backend, step, pool, .. } = &mut *self;
        step.begin(&mut **backend)?;
        for micro_batch in micro_batches(batch, step.plan().shape.rows) {
            if interrupted() {
                return Ok(None);
            }
            let micro_batch = MicroBatch { length: context, ..micro_batch };
            pool.install(|| step.evaluate(&mut **backend, micro_batch))?;
        }
        Ok(Some(backend.outcome()?.nats))
    }

    /// Writes `model.safetensors`, `config.json` and `optimizer.safetensors` into `directory`, each synced.
    ///
    /// # Errors
    /// `DISK_FULL`, `NOT_WRITABLE`.
    pub fn save(&self, directory: &Path) -> Result<Files, TrainError> {
        self.assert_settled();
        crate::checkpoint::save(self, directory)
    }

    /// A copy of what [`Engine::save`] writes, so that it can be written while steps go on; `None` where the machine
    /// has no memory to spare for it.
    ///
    /// # Errors
    /// `INTERNAL` for a bug of ours.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, TrainError> {
        self.assert_settled();
        // As much again must stay free: the copy must never be what brings the run down.
        let spare = crate::memory::available().is_none_or(|free| Snapshot::bytes(self) <= free / 2);
        if spare { Snapshot::take(self) } else { Ok(None) }
    }

    /// What the model writes after `prompt`: at most `max_tokens`, ended before an end-of-text. `None` after
    /// `interrupted` said so, which is asked before each token.
    ///
    /// # Errors
    /// `USAGE` for an empty prompt or bad options, `TOKENIZER_MISMATCH` for an id beyond the vocabulary, `DIVERGED`; what
    /// the device says.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        max_tokens: usize,
        options: SamplerOptions,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<u32>>, TrainError> {
        let Self { transformer, backend, step, pool, .. } = self;
        let mut next: Box<dyn FnMut() -> Result<u32, TrainError> + Send> = match transformer {
            Some(transformer) => {
                let mut generator = Generator::new(transformer, prompt, options)?;
                Box::new(move || Ok(generator.next_id()?))
            }
            None => {
                let mut continuation = Continuation::new(&self.options.model, step, prompt, options)?;
                Box::new(move || continuation.next_id(step, &mut **backend))
            }
        };
        let end = self.options.model.eos_token_id;
        let mut text = Vec::new();
        while text.len() < max_tokens {
            if interrupted() {
                return Ok(None);
            }
            let id = pool.install(&mut next)?;
            if Some(id) == end {
                break;
            }
            text.push(id);
        }
        Ok(Some(text))
    }

    /// The logits behind `ids`, at most a sequence of them, by the step's own forward pass.
    #[cfg(test)]
    pub(crate) fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>, TrainError> {
        let Self { backend, step, options, .. } = self;
        let mut logits = vec![0.0; options.model.vocab_size];
        crate::continuation::read(step, &mut **backend, &mut ids.to_vec(), &mut logits)?;
        Ok(logits)
    }

    /// Goes on from what [`Engine::save`] wrote: parameters, moments and steps. Nothing has changed when the files are of
    /// another model; when one cannot be read to its end, the engine is of no use any more.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when a file is missing, damaged, or of another model.
    pub fn load(&mut self, directory: &Path) -> Result<(), TrainError> {
        crate::checkpoint::load(self, directory)
    }

    /// Takes the parameters of a model directory (`--init-from`); moments and steps stay as they are.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when the file is missing, damaged, or of another model.
    pub fn load_parameters(&mut self, directory: &Path) -> Result<(), TrainError> {
        crate::checkpoint::load_parameters(self, directory)
    }

    fn assert_settled(&self) {
        assert!(self.under_way.is_none(), "an update is under way: Engine::settle comes first");
    }

    fn check(&self, batch: &Batch) -> Result<(), TrainError> {
        let values = batch.rows * batch.sequence_length;
        let fits = batch.sequence_length == self.options.sequence_length;
        if batch.inputs.len() != values || batch.targets.len() != values || values == 0 || !fits {
            return Err(TrainError::new(
                "INTERNAL",
                format!(
                    "a batch of {}×{} with {} inputs",
                    batch.rows,
                    batch.sequence_length,
                    batch.inputs.len()
                ),
                "this is a bug of candlewick; please report it",
            ));
        }
        let vocabulary = self.options.model.vocab_size;
        let beyond = |id: &&u32| **id as usize >= vocabulary && **id != IGNORED;
        let input = batch.inputs.iter().find(|&&id| id as usize >= vocabulary);
        if let Some(id) = input.or_else(|| batch.targets.iter().find(beyond)) {
            return Err(ModelError::new(
                "TOKENIZER_MISMATCH",
                format!("token id {id} is beyond the model's vocab_size ({vocabulary})"),
                "set model.vocab_size to the tokenizer's size or more, or leave it out",
            )
            .into());
        }
        Ok(())
    }
}

/// So many threads; 0 for one a core.
fn threads(count: usize) -> Result<ThreadPool, TrainError> {
    ThreadPoolBuilder::new().num_threads(count).thread_name(|index| format!("train-{index}")).build().map_err(
        |error| {
            TrainError::new(
                "OUT_OF_MEMORY_HOST",
                format!("cannot start {count} threads: {error}"),
                "set a smaller number of threads, or raise the limit of processes (ulimit -u)",
            )
        },
    )
}

fn plan_shape(options: &TrainOptions) -> PlanShape {
    PlanShape {
        rows: options.micro_batch_size.min(options.global_batch_size),
        length: options.sequence_length,
        recompute: options.recompute,
        moments: options.optimizer.moments,
    }
}

fn count(targets: &[u32]) -> usize {
    targets.iter().filter(|&&target| target != IGNORED).count()
}

/// The batch, at most `rows` sequences at a time.
fn micro_batches(batch: &Batch, rows: usize) -> impl Iterator<Item = MicroBatch<'_>> {
    let (size, length) = (rows * batch.sequence_length, batch.sequence_length);
    let parts = batch.inputs.chunks(size).zip(batch.targets.chunks(size));
    parts.map(move |(inputs, targets)| MicroBatch { inputs, targets, length })
}
