//! Training: the step engine and what surrounds it.

mod adamw;
pub mod backend;
mod checkpoint;
mod engine;
mod error;
mod footprint;
mod gradients;
mod memory;
mod options;
mod pass;
pub mod plan;
mod schedule;
mod timing;
mod trainer;

pub use adamw::AdamW;
pub use checkpoint::{Files, Snapshot};
pub use engine::{Engine, StepOutcome, StepStats};
pub use error::TrainError;
pub use footprint::{EngineShape, Phase, RunMemory, Surroundings, run_memory};
pub use options::{Device, Moments, OptimizerOptions, TrainOptions};
pub use schedule::{Schedule, ScheduleKind};
pub use timing::StepTimer;
pub use trainer::{Event, Events, Limits, Pause, SampleRequest, Saved, Share, Trainer};
