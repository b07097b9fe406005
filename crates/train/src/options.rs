use crate::{Schedule, TrainError, plan::Recompute};
use candlewick_model::ModelConfig;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// Where the step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The processor, in f32.
    #[default]
    Cpu,
    /// A GPU by its number in the driver's order, in bf16.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = TrainError;

    fn try_from(name: String) -> Result<Self, TrainError> {
        let ordinal = match name.as_str() {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()),
        };
        ordinal.map(Self::Cuda).ok_or_else(|| {
            TrainError::config(
                format!("the device is {name:?}"),
                "set training.device to cpu, cuda or cuda:N",
            )
        })
    }
}

/// Type of AdamW's moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moments {
    /// Four bytes a value.
    #[default]
    Float32,
    /// Two bytes a value, rounded stochastically.
    Bfloat16,
}

/// AdamW (Loshchilov, Hutter 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerOptions {
    /// Base learning rate; the schedule multiplies it.
    pub lr: f64,
    /// Decay of the first and second moments.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled decay, applied to matrices and embeddings only.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; `None` for no limit.
    #[serde(default)]
    pub clip_grad_norm: Option<f64>,
    /// Type of the moments.
    #[serde(default)]
    pub moments: Moments,
}

/// Updates that may be left out in a row before a run has diverged, unless told otherwise.
pub const DEFAULT_MAX_SKIPPED_STEPS: u64 = 5;

fn default_max_skipped_steps() -> u64 {
    DEFAULT_MAX_SKIPPED_STEPS
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.95]
}

fn default_eps() -> f64 {
    1e-8
}

/// Everything that a step depends on besides the batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// The model's shape.
    pub model: ModelConfig,
    /// Tokens a sequence; at most the model's `max_position_embeddings`.
    pub sequence_length: usize,
    /// Sequences in memory at a time.
    pub micro_batch_size: usize,
    /// Sequences a step.
    pub global_batch_size: usize,
    /// The optimizer.
    pub optimizer: OptimizerOptions,
    /// The learning rate's course.
    pub schedule: Schedule,
    /// Decides the initial parameters.
    pub seed: u64,
    /// Where the step runs.
    #[serde(default)]
    pub device: Device,
    /// A model directory whose weights the model starts from, instead of fresh ones.
    #[serde(default)]
    pub init_from: Option<PathBuf>,
    /// Threads of the step; `None` for one a core. Part of what makes a run bitwise repeatable.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Weight of (ln Σ exp z)² a counted token, in the gradient only (the z-loss of Chowdhery et al. 2022).
    #[serde(default)]
    pub z_loss: f64,
    /// What is made again on the way back instead of being kept; results are bitwise the same.
    #[serde(default)]
    pub recompute: Recompute,
    /// Updates left out in a row, because loss or gradient was not finite, with which the run ends as `DIVERGED`.
    #[serde(default = "default_max_skipped_steps")]
    pub max_skipped_steps: u64,
}

impl TrainOptions {
    /// Checks everything that the engine relies on.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the key.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.model.validate()?;
        self.schedule.validate()?;
        let longest = self.model.max_position_embeddings;
        if self.sequence_length > longest {
            return Err(TrainError::config(
                format!(
                    "data.sequence_length ({}) is over the model's max_position_embeddings ({longest})",
                    self.sequence_length
                ),
                format!(
                    "set data.sequence_length to {longest} or less, or model.max_position_embeddings to more"
                ),
            ));
        }
        let sizes = [
            ("data.sequence_length", self.sequence_length),
            ("training.micro_batch_size", self.micro_batch_size),
            ("training.global_batch_size", self.global_batch_size),
            ("threads", self.threads.unwrap_or(1)),
            ("training.max_skipped_steps", usize::from(self.max_skipped_steps > 0)),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(TrainError::config(format!("{name} is 0"), format!("set {name} to 1 or more")));
        }
        if !(self.z_loss.is_finite() && self.z_loss >= 0.0) {
            return Err(TrainError::config(
                format!("training.z_loss is {}", self.z_loss),
                "set training.z_loss to 0 or more",
            ));
        }
        let OptimizerOptions { lr, betas, eps, weight_decay, clip_grad_norm, .. } = self.optimizer;
        let numbers = [
            ("lr", lr, lr >= 0.0, "0 or more"),
            ("betas", betas[0], (0.0..1.0).contains(&betas[0]), "two numbers from 0 to below 1"),
            ("betas", betas[1], (0.0..1.0).contains(&betas[1]), "two numbers from 0 to below 1"),
            ("eps", eps, eps > 0.0, "a positive number"),
            ("weight_decay", weight_decay, weight_decay >= 0.0, "0 or more"),
            (
                "clip_grad_norm",
                clip_grad_norm.unwrap_or(1.0),
                clip_grad_norm.unwrap_or(1.0) > 0.0,
                "a positive number, or null",
            ),
        ];
        for (name, value, good, wanted) in numbers {
            if !good || !value.is_finite() {
                return Err(TrainError::config(
                    format!("optimizer.{name} is {value}"),
                    format!("set optimizer.{name} to {wanted}"),
                ));
            }
        }
        Ok(())
    }
}
