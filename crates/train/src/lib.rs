//! Training: the step engine and what surrounds it.

mod adamw;
mod checkpoint;
mod engine;
mod error;
mod gradients;
mod memory;
mod options;
mod pass;
mod schedule;
mod trainer;

pub use adamw::AdamW;
pub use checkpoint::{Files, Snapshot};
pub use engine::{Engine, StepOutcome, StepStats};
pub use error::TrainError;
pub use options::{Device, OptimizerOptions, TrainOptions};
pub use schedule::{Schedule, ScheduleKind};
pub use trainer::{Event, Events, Limits, Pause, SampleRequest, Saved, Share, Trainer};
