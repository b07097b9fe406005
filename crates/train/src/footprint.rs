//! How much memory a run takes, counted from what the engine allocates: buffers are summed from the lists that they
//! are made from, transient ones from the functions that size them.

use crate::{TrainError, TrainOptions, pass::Lengths};
use candlewick_feed::FeedMemory;
use candlewick_model::{
    Architecture, ModelConfig,
    kernels::{AttentionShape, logits_len, packing_bytes, rms_norm_backward_len, scores_len},
};
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
}

impl EngineShape {
    /// Checks that the sizes can be counted at all.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the key.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.model.validate()?;
        let ModelConfig { hidden_size, intermediate_size, num_hidden_layers, .. } = self.model;
        let widths = hidden_size + intermediate_size + self.model.query_size() + self.model.key_value_size();
        let values = [self.global_batch_size, self.sequence_length, widths, num_hidden_layers]
            .into_iter()
            .map(|size| size as u128)
            .try_fold(1, u128::checked_mul);
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

/// Values beyond any machine's memory; sums of a few times as many bytes fit into 64 bits.
const MOST_VALUES: u128 = 1 << 52;

impl From<&TrainOptions> for EngineShape {
    fn from(options: &TrainOptions) -> Self {
        Self {
            model: options.model.clone(),
            sequence_length: options.sequence_length,
            micro_batch_size: options.micro_batch_size,
            global_batch_size: options.global_batch_size,
            threads: options.threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
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
/// What lies between `weights` and `process` is there all the time; after that comes what only exists while something
/// happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RunMemory {
    /// Parameters, f32.
    pub weights: u64,
    /// Their gradients, f32.
    pub gradients: u64,
    /// Both moments of AdamW, f32.
    pub moments: u64,
    /// What a micro-batch leaves for its way back, and the gradients on the way.
    pub activations: u64,
    /// Text of the shuffle windows and of what comes in, the token ring, batches, held-out documents.
    pub stream: u64,
    /// The tokenizer's tables, and the words that each encoding thread remembers.
    pub tokenizer: u64,
    /// Node, JavaScript and the loaded binary.
    pub process: u64,
    /// While a step runs: the logits of a chunk of tokens.
    pub logits: u64,
    /// While a step runs: scores of attention, packed matrices, partial sums.
    pub scratch: u64,
    /// While it evaluates: buffers of one block, logits, scores. 0 where nothing is evaluated.
    pub evaluation: u64,
    /// The most at a time without which the run cannot be.
    pub required: u64,
    /// When that is.
    pub required_while: Phase,
    /// While a checkpoint is written: a copy of parameters and moments, so that steps go on. 0 where the machine has
    /// less than twice that to spare; then steps wait instead.
    pub snapshot: u64,
    /// The most at a time, the copy included.
    pub peak: u64,
}

/// What a run does when it needs the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A training step.
    Step,
    /// An evaluation.
    Evaluation,
}

/// More held-out text than any run would read.
const HELD_OUT_BYTES: u64 = 1 << 50;

/// Bytes of a value.
const F32: u64 = 4;

/// Memory of a run on the CPU.
pub fn run_memory(engine: &EngineShape, around: &Surroundings) -> RunMemory {
    let EngineShape { model, sequence_length, threads, .. } = engine;
    let (length, threads) = (*sequence_length, *threads);
    let micro_batch = engine.micro_batch_size.min(engine.global_batch_size);
    let shape = AttentionShape {
        batch: micro_batch,
        length,
        heads: model.num_attention_heads,
        key_value_heads: model.num_key_value_heads,
        head_dim: model.head_dim,
    };
    let tokens = micro_batch * length;
    let lengths = Lengths::new(model, shape, model.architecture == Architecture::Qwen3);
    let bytes = |values: usize| values as u64 * F32;

    let weights = model.parameter_count().total * F32;
    let rotary = bytes(model.max_position_embeddings * model.head_dim);
    let logits = bytes(logits_len(tokens, model.vocab_size));
    let widest = [tokens, model.vocab_size, model.intermediate_size, model.query_size()];
    let packing = packing_bytes(widest.into_iter().max().unwrap_or(0), threads) as u64;
    let tasks = threads.min(micro_batch * model.num_key_value_heads);
    let scores = bytes(tasks * scores_len(length));
    // These exist one after the other.
    let sums = bytes(rms_norm_backward_len(tokens, model.hidden_size));
    let scratch = packing + sums.max(2 * scores);

    let evaluates = around.held_out_documents > 0;
    let buffers = bytes(lengths.values(1, false));
    let evaluation = if evaluates { buffers + logits + packing.max(scores) } else { 0 };
    let batch = bytes(engine.global_batch_size * length);
    let held_out =
        (around.held_out_documents as u64).saturating_mul(2 * around.feed.document_bytes).min(HELD_OUT_BYTES);
    let mut memory = RunMemory {
        weights,
        gradients: weights,
        moments: 2 * weights,
        activations: bytes(lengths.values(model.num_hidden_layers, true)) + rotary,
        // A batch's inputs and targets, and the targets of the next while it is filled.
        stream: around.feed.bytes() + 3 * batch + held_out,
        tokenizer: around.feed.cache_bytes() + around.tokenizer as u64 * TOKEN_BYTES,
        process: around.process,
        logits,
        scratch,
        evaluation,
        required: 0,
        required_while: if evaluation > logits + scratch { Phase::Evaluation } else { Phase::Step },
        snapshot: 0,
        peak: 0,
    };
    memory.required = memory.resident() + evaluation.max(logits + scratch);
    let copy = memory.weights + memory.moments;
    let left = around.available.map(|available| available.saturating_sub(memory.required));
    memory.snapshot = if left.is_none_or(|left| copy <= left / 2) { copy } else { 0 };
    memory.peak = memory.required + memory.snapshot;
    memory
}

impl RunMemory {
    /// What is there all the time.
    pub fn resident(&self) -> u64 {
        self.weights
            + self.gradients
            + self.moments
            + self.activations
            + self.stream
            + self.tokenizer
            + self.process
    }
}

/// Bytes that a token of the vocabulary takes in the encoder's tables, the decoder's list and `tokenizer.json`.
const TOKEN_BYTES: u64 = 300;
