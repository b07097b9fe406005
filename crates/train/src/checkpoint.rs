//! The optimizer's part of a checkpoint: the moments under the parameters' names, `m.<name>` and `v.<name>`, and
//! the number of completed updates in the metadata.

use crate::{Engine, TrainError, adamw::Moments};
use candlewick_model::{NamedTensor, read_weights, write_weights};
use std::path::Path;

const FILE: &str = "optimizer.safetensors";
const STEPS: &str = "steps";

pub(crate) fn save_optimizer(engine: &Engine, directory: &Path) -> Result<(), TrainError> {
    let mut tensors = Vec::new();
    for (parameter, moments) in engine.parameters().iter().zip(engine.optimizer.moments()) {
        let (name, shape) = (&parameter.spec.name, &parameter.spec.shape);
        tensors.push(NamedTensor::new(format!("m.{name}"), shape.clone(), moments.first.as_slice()));
        tensors.push(NamedTensor::new(format!("v.{name}"), shape.clone(), moments.second.as_slice()));
    }
    Ok(write_weights(&directory.join(FILE), tensors, (STEPS, &engine.steps.to_string()))?)
}

pub(crate) fn load(engine: &mut Engine, directory: &Path) -> Result<(), TrainError> {
    let weights = read_weights(&directory.join("model.safetensors"))?;
    let mut file = read_weights(&directory.join(FILE))?;
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
