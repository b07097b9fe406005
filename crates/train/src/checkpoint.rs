//! The engine's part of a checkpoint: the parameters as `transformers` loads them, and the optimizer's moments under the
//! parameters' names, `m.<name>` and `v.<name>`, with the number of completed updates in the metadata.

use crate::{
    Engine, TrainError,
    backend::{Backend, State},
};
use candlewick_model::{
    FileDigest, FlatLayout, ModelConfig, NamedTensor, ParameterSpec, StoredTensor, WeightFile, open_weights,
    write_synced, write_weights,
};
use std::{collections::BTreeMap, io, ops::Range, path::Path};

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
    places: Vec<Place>,
    /// In the order of [`STATES`], each flat.
    states: [Vec<f32>; 3],
}

const STATES: [State; 3] = [State::Weights, State::First, State::Second];

/// A parameter and where it lies in the flat states.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) spec: ParameterSpec,
    pub(crate) range: Range<usize>,
}

/// A model's parameters in their order.
pub(crate) fn places(model: &ModelConfig) -> Vec<Place> {
    let layout = FlatLayout::new(model);
    let ranges = layout.ranges().iter().cloned();
    model.parameters().into_iter().zip(ranges).map(|(spec, range)| Place { spec, range }).collect()
}

impl Snapshot {
    /// Bytes that a snapshot of this engine takes.
    pub(crate) fn bytes(engine: &Engine) -> u64 {
        3 * 4 * engine.plan().parameters as u64
    }

    /// Copies the engine's state; `None` where there is no memory for it.
    pub(crate) fn take(engine: &Engine) -> Result<Option<Self>, TrainError> {
        let len = engine.plan().parameters;
        let mut states = [const { Vec::new() }; 3];
        for (state, copy) in STATES.into_iter().zip(&mut states) {
            if Vec::<f32>::new().try_reserve_exact(len).is_err() {
                return Ok(None);
            }
            // Zeros of the allocator are not written before the copy is.
            *copy = vec![0.0; len];
            engine.backend.read(state, 0, copy)?;
        }
        let model = &engine.options().model;
        Ok(Some(Self { config: model.to_hf_json(), steps: engine.steps(), places: places(model), states }))
    }

    /// Writes the files into `directory`, each synced.
    ///
    /// # Errors
    /// `DISK_FULL`, `NOT_WRITABLE`.
    pub fn write(&self, directory: &Path) -> Result<Files, TrainError> {
        let tensor = |name: String, state: usize, Place { spec, range }: &Place| {
            NamedTensor::new(name, spec.shape.clone(), &self.states[state][range.clone()])
        };
        write(directory, &self.config, self.steps, &self.places, tensor)
    }
}

/// Writes the engine's state into `directory`, each file synced; nothing of it is held twice.
pub(crate) fn save(engine: &Engine, directory: &Path) -> Result<Files, TrainError> {
    let model = &engine.options().model;
    let (config, places) = (model.to_hf_json(), places(model));
    let backend: &dyn Backend = &*engine.backend;
    let tensor = |name: String, state: usize, Place { spec, range }: &Place| {
        let begin = range.start;
        NamedTensor::reading(name, spec.shape.clone(), move |first, into| {
            backend.read(STATES[state], begin + first, into).map_err(io::Error::other)
        })
    };
    write(directory, &config, engine.steps(), &places, tensor)
}

fn write<'a>(
    directory: &Path,
    config: &str,
    steps: u64,
    places: &[Place],
    tensor: impl Fn(String, usize, &Place) -> NamedTensor<'a>,
) -> Result<Files, TrainError> {
    let (mut weights, mut moments) = (Vec::new(), Vec::new());
    for place in places {
        let name = &place.spec.name;
        weights.push(tensor(name.clone(), 0, place));
        moments.push(tensor(format!("m.{name}"), 1, place));
        moments.push(tensor(format!("v.{name}"), 2, place));
    }
    Ok(BTreeMap::from([
        (MODEL, write_weights(&directory.join(MODEL), weights, ("format", "pt"))?),
        (CONFIG, write_synced(&directory.join(CONFIG), config.as_bytes())?),
        (OPTIMIZER, write_weights(&directory.join(OPTIMIZER), moments, (STEPS, &steps.to_string()))?),
    ]))
}

pub(crate) fn load(engine: &mut Engine, directory: &Path) -> Result<(), TrainError> {
    let mut weights = open_weights(&directory.join(MODEL))?;
    let mut moments = open_weights(&directory.join(OPTIMIZER))?;
    let steps = moments.metadata(STEPS)?;
    let steps = steps.parse().map_err(|_| moments.corrupt(format!("the number of steps is {steps:?}")))?;
    let places = places(&engine.options().model);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for Place { spec, .. } in &places {
        first.push(moments.take(&format!("m.{}", spec.name), &spec.shape)?);
        second.push(moments.take(&format!("v.{}", spec.name), &spec.shape)?);
    }
    moments.expect_empty()?;
    let stored = weights.take_parameters(places.iter().map(|place| &place.spec))?;
    // From here on nothing can be missing.
    overwrite(engine, &places, State::Weights, &mut weights, &stored)?;
    overwrite(engine, &places, State::First, &mut moments, &first)?;
    overwrite(engine, &places, State::Second, &mut moments, &second)?;
    engine.steps = steps;
    Ok(())
}

pub(crate) fn load_parameters(engine: &mut Engine, directory: &Path) -> Result<(), TrainError> {
    let mut weights = open_weights(&directory.join(MODEL))?;
    let places = places(&engine.options().model);
    let stored = weights.take_parameters(places.iter().map(|place| &place.spec))?;
    overwrite(engine, &places, State::Weights, &mut weights, &stored)
}

/// Replaces a state by tensors of a file, which are in the parameters' order.
fn overwrite(
    engine: &mut Engine,
    places: &[Place],
    state: State,
    file: &mut WeightFile,
    stored: &[StoredTensor],
) -> Result<(), TrainError> {
    let backend = &mut engine.backend;
    file.read(stored, |index, first, values| backend.write(state, places[index].range.start + first, values))
}
