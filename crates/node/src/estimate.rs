use candlewick_train::{EngineShape, StepTimer, Surroundings, run_memory};
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;

use crate::{failure::Failure, promise::Promise, worker::Worker};

/// JSON: the memory of a run by category, in bytes, its peak, and that of its GPU; throws CONFIG_INVALID.
#[napi]
pub fn estimate_memory(engine: String, surroundings: String) -> napi::Result<String> {
    let engine = shape(&engine)?;
    let surroundings: Surroundings = serde_json::from_str(&surroundings).map_err(Failure::from)?;
    Ok(serde_json::to_string(&run_memory(&engine, &surroundings)).map_err(Failure::from)?)
}

fn shape(json: &str) -> Result<EngineShape, Failure> {
    let engine: EngineShape = serde_json::from_str(json)?;
    engine.validate()?;
    Ok(engine)
}

/// An engine on a thread of its own that trains on random tokens; it is made with the first step.
#[napi]
pub struct NativeStepTimer {
    worker: Worker<(EngineShape, Option<StepTimer>)>,
}

#[napi]
impl NativeStepTimer {
    /// For an engine of this shape.
    #[napi(constructor)]
    pub fn new(engine: String) -> napi::Result<Self> {
        Ok(Self { worker: Worker::start("step timer", (shape(&engine)?, None)) })
    }

    /// Seconds of a whole step.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn step<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<f64>::new(env)?;
        // The worker lives as long as this object: nothing closes it before.
        self.worker.run(move |(shape, timer)| {
            let seconds = match timer {
                Some(timer) => timer.step(),
                None => StepTimer::new(shape).and_then(|made| timer.insert(made).step()),
            };
            promise.settle(seconds.map(|time| time.as_secs_f64()).map_err(Failure::from));
        });
        Ok(object)
    }
}
