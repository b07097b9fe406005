//! How much memory a run takes: what the engine allocates is read off the plan that it allocates by, and what products
//! pack meanwhile comes from the function that sizes it.

use crate::{
    Device, Moments, Recompute, TrainError, TrainOptions,
    backend::{
        Cpu, CpuBytes,
        cuda::{self, CudaBytes},
    },
    plan::{Plan, PlanShape},
};
use candlewick_cuda::WORKSPACE_BYTES;
use candlewick_feed::FeedMemory;
use candlewick_model::{ModelConfig, kernels::packing_bytes};
use serde::{Deserialize, Serialize};
use std::thread::available_parallelism;

/// What of the options decides how much memory the engine takes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineShape {
    /// The model's shape.
    pub model: ModelConfig,
    /// Tokens a sequence.
    pub sequence_length: usize,
    /// Sequences in memory at a time.
    pub micro_batch_size: usize,
    /// Sequences a step.
    pub global_batch_size: usize,
    /// Threads of the step.
    pub threads: usize,
    /// What is made again on the way back.
    #[serde(default)]
    pub recompute: Recompute,
    /// Type of the optimizer's moments.
    #[serde(default)]
    pub moments: Moments,
    /// Where the step runs.
    #[serde(default)]
    pub device: Device,
}

impl EngineShape {
    /// Checks that the sizes can be counted at all.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the key.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.model.validate()?;
        if self.device != Device::Cpu {
            cuda::check(&self.model)?;
        }
        let ModelConfig { hidden_size, intermediate_size, num_hidden_layers, .. } = self.model;
        let widths = hidden_size + intermediate_size + self.model.query_size() + self.model.key_value_size();
        let values = [self.global_batch_size, self.sequence_length, widths, num_hidden_layers]
            .into_iter()
            .map(|size| size as u128)
            .try_fold(1, u128::checked_mul);
        if num_hidden_layers > MOST_LAYERS {
            return Err(TrainError::config(
                format!("model.num_hidden_layers is {num_hidden_layers}"),
                format!("set model.num_hidden_layers to {MOST_LAYERS} or less"),
            ));
        }
        if values.is_none_or(|values| values > MOST_VALUES) {
            return Err(TrainError::config(
                format!(
                    "a batch of {} sequences of {} tokens is more than any machine holds",
                    self.global_batch_size, self.sequence_length
                ),
                "set training.global_batch_size or data.sequence_length to less",
            ));
        }
        Ok(())
    }
}

/// Blocks whose plan is worth making.
const MOST_LAYERS: usize = 1 << 16;

/// Values beyond any machine's memory; sums of a few times as many bytes fit into 64 bits.
const MOST_VALUES: u128 = 1 << 52;

impl EngineShape {
    /// The plan of a micro-batch.
    pub fn plan(&self) -> Plan {
        self.plan_with_logits_of(usize::MAX)
    }

    /// The plan with the logits of at most so many tokens at a time.
    fn plan_with_logits_of(&self, rows: usize) -> Plan {
        let shape = PlanShape {
            rows: self.micro_batch_size.min(self.global_batch_size),
            length: self.sequence_length,
            recompute: self.recompute,
            moments: self.moments,
        };
        let mut needs = match self.device {
            Device::Cpu => Cpu::needs(&self.model, shape.rows, shape.length, self.threads),
            Device::Cuda(_) => cuda::needs(&self.model, &shape),
        };
        needs.logit_rows = needs.logit_rows.min(rows);
        Plan::new(&self.model, shape, needs)
    }
}

impl From<&TrainOptions> for EngineShape {
    fn from(options: &TrainOptions) -> Self {
        Self {
            model: options.model.clone(),
            sequence_length: options.sequence_length,
            micro_batch_size: options.micro_batch_size,
            global_batch_size: options.global_batch_size,
            threads: options.threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
            recompute: options.recompute,
            moments: options.optimizer.moments,
            device: options.device,
        }
    }
}

/// What a run takes of the host's memory besides its engine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surroundings {
    /// The stream, up to the token ring.
    pub feed: FeedMemory,
    /// Tokens of the tokenizer.
    pub tokenizer: usize,
    /// Held-out documents; 0 where nothing is evaluated.
    pub held_out_documents: usize,
    /// Bytes that the process has without all this.
    pub process: u64,
    /// Bytes that a new process could take of the machine; `None` where nobody says.
    pub available: Option<u64>,
}

/// What a run takes of the host's memory, by category, in bytes.
///
/// All of it but `snapshot` is there all the time, packed matrices excepted; an evaluation runs in the buffers of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RunMemory {
    /// Parameters, f32.
    pub weights: u64,
    /// Their gradients, f32.
    pub gradients: u64,
    /// Both moments of AdamW.
    pub moments: u64,
    /// What a micro-batch leaves for its way back, and the gradients on the way.
    pub activations: u64,
    /// What the logits of a chunk of tokens take beyond gradients that are not there yet, whose place they have.
    pub logits: u64,
    /// What kernels use while they run: scores of attention, partial sums, packed matrices.
    pub scratch: u64,
    /// Text of the shuffle windows and of what comes in, the token ring, batches, held-out documents.
    pub stream: u64,
    /// The tokenizer's tables, and the words that each encoding thread remembers.
    pub tokenizer: u64,
    /// Node, JavaScript and the loaded binary.
    pub process: u64,
    /// The most at a time without which the run cannot be.
    pub required: u64,
    /// While a checkpoint is written: a copy of parameters and moments, so that steps go on. 0 where the machine has
    /// less than twice that to spare; then steps wait instead.
    pub snapshot: u64,
    /// The most at a time, the copy included.
    pub peak: u64,
    /// What the GPU holds, where the step runs on one: all of what is above that is of the engine, but what copies to the GPU
    /// go through (`scratch`).
    pub device: Option<DeviceMemory>,
}

/// What a run takes of a GPU's memory, by category, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DeviceMemory {
    /// Master weights in f32, and bf16 that products read.
    pub weights: u64,
    /// Gradients, f32.
    pub gradients: u64,
    /// Both moments of AdamW.
    pub moments: u64,
    /// What a micro-batch leaves for its way back, and the gradients on the way, bf16.
    pub activations: u64,
    /// What the logits of a chunk of tokens take beyond gradients that are not there yet, whose place they have.
    pub logits: u64,
    /// What kernels and products use while they run.
    pub scratch: u64,
    /// What the driver and cuBLAS keep besides: assumed.
    pub driver: u64,
    /// All of it, from the first step to the last.
    pub required: u64,
}

/// Handles of cuBLAS, loaded kernels, page tables. Nobody has measured it yet; what a context takes is not in here, since
/// what is free is asked for in one.
const DRIVER_BYTES: u64 = 256 << 20;

fn device_memory(engine: &EngineShape, plan: &Plan) -> DeviceMemory {
    let CudaBytes { weights, gradients, moments, activations, scratch } = cuda::bytes(plan, &engine.model);
    let logits = 2 * (plan.activations - engine.plan_with_logits_of(0).activations) as u64;
    let mut memory = DeviceMemory {
        weights,
        gradients,
        moments,
        activations: activations - logits,
        logits,
        scratch: scratch + WORKSPACE_BYTES as u64,
        driver: DRIVER_BYTES,
        required: 0,
    };
    memory.required = weights + gradients + moments + activations + memory.scratch + memory.driver;
    memory
}

/// More held-out text than any run would read.
const HELD_OUT_BYTES: u64 = 1 << 50;

/// Bytes of a value.
const F32: u64 = 4;

/// Memory of a run.
pub fn run_memory(engine: &EngineShape, around: &Surroundings) -> RunMemory {
    let bytes = |values: usize| values as u64 * F32;
    let plan = engine.plan();
    let weights = bytes(plan.parameters);
    let batch = bytes(engine.global_batch_size * engine.sequence_length);
    let held_out =
        (around.held_out_documents as u64).saturating_mul(2 * around.feed.document_bytes).min(HELD_OUT_BYTES);
    let mut memory = RunMemory {
        // A batch's inputs and targets, and the targets of the next while it is filled.
        stream: around.feed.bytes() + 3 * batch + held_out,
        tokenizer: around.feed.cache_bytes() + around.tokenizer as u64 * TOKEN_BYTES,
        process: around.process,
        ..engine_memory(engine, &plan)
    };
    memory.required = memory.total();
    // The files hold f32, whatever the moments are.
    let copy = 3 * weights;
    let left = around.available.map(|available| available.saturating_sub(memory.required));
    memory.snapshot = if left.is_none_or(|left| copy <= left / 2) { copy } else { 0 };
    memory.peak = memory.required + memory.snapshot;
    memory
}

/// The engine's part; the rest is 0.
fn engine_memory(engine: &EngineShape, plan: &Plan) -> RunMemory {
    let bytes = |values: usize| values as u64 * F32;
    let nothing = RunMemory {
        weights: 0,
        gradients: 0,
        moments: 0,
        activations: 0,
        logits: 0,
        scratch: 0,
        stream: 0,
        tokenizer: 0,
        process: 0,
        required: 0,
        snapshot: 0,
        peak: 0,
        device: None,
    };
    if engine.device != Device::Cpu {
        let device = Some(device_memory(engine, plan));
        return RunMemory { scratch: cuda::staging_bytes(plan), device, ..nothing };
    }
    let EngineShape { model, threads, .. } = engine;
    let CpuBytes { gradients, moments, activations, scratch } = Cpu::bytes(plan);
    let logits = bytes(plan.activations - engine.plan_with_logits_of(0).activations);
    let rotary = bytes(model.max_position_embeddings * model.head_dim);
    RunMemory {
        weights: bytes(plan.parameters),
        gradients,
        moments,
        activations: activations - logits + rotary,
        logits,
        scratch: scratch + packing_bytes(*threads) as u64,
        ..nothing
    }
}

impl RunMemory {
    /// The sum of the categories.
    fn total(&self) -> u64 {
        self.weights
            + self.gradients
            + self.moments
            + self.activations
            + self.logits
            + self.scratch
            + self.stream
            + self.tokenizer
            + self.process
    }
}

/// Bytes that a token of the vocabulary takes in the encoder's tables, the decoder's list and `tokenizer.json`.
const TOKEN_BYTES: u64 = 300;
