//! How fast a step is on this machine, without data.

use crate::{
    DEFAULT_MAX_SKIPPED_STEPS, Engine, EngineShape, OptimizerOptions, Schedule, ScheduleKind, StepOutcome,
    TrainError, TrainOptions,
};
use candlewick_feed::Batch;
use candlewick_model::Random;
use std::time::{Duration, Instant};

/// An engine that trains on random tokens.
#[derive(Debug)]
pub struct StepTimer {
    engine: Engine,
    batch: Batch,
}

impl StepTimer {
    /// An engine of this shape and a batch for it.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn new(shape: &EngineShape) -> Result<Self, TrainError> {
        let EngineShape {
            model,
            sequence_length,
            micro_batch_size,
            global_batch_size,
            threads,
            recompute,
            moments,
            device,
        } = shape.clone();
        let mut random = Random::stream(1, "step timer");
        let vocabulary = model.vocab_size as u64;
        let tokens = global_batch_size * sequence_length;
        let ids: Vec<u32> = (0..=tokens).map(|_| (random.bits() % vocabulary.max(1)) as u32).collect();
        let engine = Engine::new(&TrainOptions {
            model,
            sequence_length,
            micro_batch_size,
            global_batch_size,
            optimizer: OptimizerOptions {
                lr: 1e-6,
                betas: [0.9, 0.95],
                eps: 1e-8,
                weight_decay: 0.1,
                clip_grad_norm: Some(1.0),
                moments,
            },
            schedule: Schedule {
                kind: ScheduleKind::Constant,
                warmup_steps: 0,
                final_lr_ratio: 0.1,
                decay_ratio: 0.2,
            },
            seed: 1,
            device,
            threads: Some(threads),
            init_from: None,
            z_loss: 0.0,
            recompute,
            max_skipped_steps: DEFAULT_MAX_SKIPPED_STEPS,
        })?;
        let batch = Batch {
            inputs: ids[..tokens].to_vec(),
            targets: ids[1..].to_vec(),
            rows: global_batch_size,
            sequence_length,
            counted: tokens as u64,
        };
        Ok(Self { engine, batch })
    }

    /// One whole step: forward, backward, clipping, update.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn step(&mut self) -> Result<Duration, TrainError> {
        let began = Instant::now();
        let outcome = self.engine.step(&self.batch, 0.0, &|| false)?;
        debug_assert!(matches!(outcome, Some(StepOutcome::Done(_))), "nobody interrupts");
        Ok(began.elapsed())
    }
}
