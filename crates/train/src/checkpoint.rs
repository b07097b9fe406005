//! The engine's part of a checkpoint: the parameters as `transformers` loads them, and the optimizer's moments under the
//! parameters' names, `m.<name>` and `v.<name>`, with the number of completed updates in the metadata.

use crate::{Engine, TrainError, adamw::Moments};
use candlewick_model::{FileDigest, NamedTensor, ParameterSpec, read_weights, write_synced, write_weights};
use rayon::prelude::*;
use std::{collections::BTreeMap, path::Path};

const MODEL: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const STEPS: &str = "steps";

/// The files that were written, by name.
pub type Files = BTreeMap<&'static str, FileDigest>;

/// A copy of parameters and moments, to be written while the engine goes on.
#[derive(Debug)]
pub struct Snapshot {
    config: String,
    steps: u64,
    copies: Vec<Copied>,
}

#[derive(Debug)]
struct Copied {
    spec: ParameterSpec,
    values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

/// One parameter and its moments on their way into the files.
struct State<'a> {
    spec: &'a ParameterSpec,
    values: &'a [f32],
    first: &'a [f32],
    second: &'a [f32],
}

impl Snapshot {
    /// Bytes that a snapshot of this engine takes.
    pub(crate) fn bytes(engine: &Engine) -> u64 {
        engine.parameters().iter().map(|parameter| 3 * 4 * parameter.spec.len() as u64).sum()
    }

    /// Copies the engine's state; `None` where there is no memory for it.
    pub(crate) fn take(engine: &Engine) -> Result<Option<Self>, TrainError> {
        let copies =
            with_states(engine, |states| states.par_iter().map(State::copy).collect::<Option<Vec<_>>>())?;
        let config = engine.transformer().config().to_hf_json();
        Ok(copies.map(|copies| Self { config, steps: engine.steps(), copies }))
    }

    /// Writes the files into `directory`, each synced.
    ///
    /// # Errors
    /// `DISK_FULL`, `NOT_WRITABLE`.
    pub fn write(&self, directory: &Path) -> Result<Files, TrainError> {
        let states: Vec<_> = self
            .copies
            .iter()
            .map(|Copied { spec, values, first, second }| State { spec, values, first, second })
            .collect();
        write(directory, &self.config, self.steps, &states)
    }
}

impl State<'_> {
    fn copy(&self) -> Option<Copied> {
        let copy = |values: &[f32]| {
            let mut copy = Vec::new();
            copy.try_reserve_exact(values.len()).ok()?;
            copy.extend_from_slice(values);
            Some(copy)
        };
        let (values, first, second) = (copy(self.values)?, copy(self.first)?, copy(self.second)?);
        Some(Copied { spec: self.spec.clone(), values, first, second })
    }
}

/// Writes the engine's state into `directory`, each file synced.
pub(crate) fn save(engine: &Engine, directory: &Path) -> Result<Files, TrainError> {
    let config = engine.transformer().config().to_hf_json();
    with_states(engine, |states| write(directory, &config, engine.steps(), states))?
}

fn with_states<R>(engine: &Engine, body: impl FnOnce(&[State<'_>]) -> R) -> Result<R, TrainError> {
    let parameters = engine.parameters();
    Ok(parameters.with_values(|values| {
        let states: Vec<_> = parameters
            .iter()
            .zip(values)
            .zip(engine.optimizer.moments())
            .map(|((parameter, values), Moments { first, second })| State {
                spec: &parameter.spec,
                values,
                first,
                second,
            })
            .collect();
        body(&states)
    })?)
}

fn write(directory: &Path, config: &str, steps: u64, states: &[State<'_>]) -> Result<Files, TrainError> {
    let (mut weights, mut moments) = (Vec::new(), Vec::new());
    for State { spec, values, first, second } in states {
        let named = |name: String, values| NamedTensor::new(name, spec.shape.clone(), values);
        weights.push(named(spec.name.clone(), *values));
        moments.push(named(format!("m.{}", spec.name), *first));
        moments.push(named(format!("v.{}", spec.name), *second));
    }
    Ok(BTreeMap::from([
        (MODEL, write_weights(&directory.join(MODEL), weights, ("format", "pt"))?),
        (CONFIG, write_synced(&directory.join(CONFIG), config.as_bytes())?),
        (OPTIMIZER, write_weights(&directory.join(OPTIMIZER), moments, (STEPS, &steps.to_string()))?),
    ]))
}

pub(crate) fn load(engine: &mut Engine, directory: &Path) -> Result<(), TrainError> {
    let weights = read_weights(&directory.join(MODEL))?;
    let mut file = read_weights(&directory.join(OPTIMIZER))?;
    let steps = file.metadata(STEPS)?;
    let steps = steps.parse().map_err(|_| file.corrupt(format!("the number of steps is {steps:?}")))?;
    let mut moments = Vec::new();
    for parameter in engine.parameters().iter() {
        let (name, shape) = (&parameter.spec.name, &parameter.spec.shape);
        let first = file.take(&format!("m.{name}"), shape)?;
        let second = file.take(&format!("v.{name}"), shape)?;
        moments.push(Moments { first, second });
    }
    file.expect_empty()?;
    engine.parameters().replace(weights)?;
    engine.optimizer.replace(moments);
    engine.steps = steps;
    Ok(())
}
