//! Training: the step engine and what surrounds it.

pub mod backend;
mod checkpoint;
mod continuation;
mod engine;
mod error;
mod footprint;
mod memory;
mod options;
pub mod plan;
mod schedule;
mod step;
mod timing;
mod trainer;

pub use checkpoint::{Files, Snapshot};
pub use engine::{Engine, Gradients, StepOutcome, StepStats};
pub use error::TrainError;
pub use footprint::{DeviceMemory, EngineShape, RunMemory, Surroundings, run_memory};
pub use options::{DEFAULT_MAX_SKIPPED_STEPS, Device, Moments, OptimizerOptions, TrainOptions};
pub use plan::Recompute;
pub use schedule::{Schedule, ScheduleKind};
pub use timing::StepTimer;
pub use trainer::{Event, Events, Limits, Pause, SampleRequest, Saved, Share, Trainer};
