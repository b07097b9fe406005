//! Our side of `npm run bench:step`: `cargo run --release -p candlewick-train --example step_side -- THREADS SPEC`.

#[path = "step/protocol.rs"]
mod protocol;

use candlewick_train::{Device, EngineShape, Moments, Recompute, StepTimer};
use protocol::Spec;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let (threads, Spec { model, rows, length }) = protocol::arguments()?;
    let parameters = model.parameter_count().total;
    let mut timer = StepTimer::new(&EngineShape {
        model,
        sequence_length: length,
        micro_batch_size: rows,
        global_batch_size: rows,
        threads,
        recompute: Recompute::default(),
        moments: Moments::default(),
        device: Device::Cpu,
    })?;
    protocol::answer("candlewick", parameters, || Ok(timer.step()?.as_secs_f64()))
}
