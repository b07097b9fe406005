use crate::{FlatLayout, ModelConfig, ModelError, Random, StoredWeights, memory::zeroed, ops::Borrowed};
use candle_core::{Device, Storage, Tensor, Var, backprop::GradStore};
use std::{collections::HashMap, ops::Deref, path::Path, sync::Arc};

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Ones: the scale of a norm.
    One,
}

/// What a parameter is called and what it looks like, before it exists.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// Hugging Face's name, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Dimensions; `[out, in]` for matrices.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
    /// Whether weight decay applies.
    pub decay: bool,
}

impl ParameterSpec {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no value at all; never so in a valid configuration.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values that it starts with, [`ParameterSpec::len`] of them. Each parameter has a random stream of its own, named
    /// after it, so a value depends on the seed, the parameter's name and the position in it, and on nothing else: not on
    /// platform, threads or order.
    pub fn initialize(&self, seed: u64, values: &mut [f32]) {
        match self.init {
            Init::One => values.fill(1.0),
            Init::Normal { std } => {
                let mut random = Random::stream(seed, &self.name);
                values.iter_mut().for_each(|value| *value = (std * random.normal()) as f32);
            }
        }
    }
}

/// A parameter: what it is and where its values are.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name, shape, initialisation, decay.
    pub spec: ParameterSpec,
    /// The values: a view of the flat buffer, from which no gradient comes back.
    pub tensor: Tensor,
}

/// All parameters of a model: views of one flat buffer, which a training step updates in place.
///
/// Listed in the order of [`ModelConfig::parameters`]; they lie in that of [`FlatLayout`].
#[derive(Debug, Clone)]
pub struct Parameters {
    flat: Var,
    layout: Arc<FlatLayout>,
    list: Vec<Parameter>,
    by_name: HashMap<String, usize>,
}

/// The flat values, locked for reading for as long as this lives.
pub struct FlatValues<'a, G>(Borrowed<'a, G>);

impl<G: Deref<Target = Storage>> FlatValues<'_, G> {
    /// The values.
    ///
    /// # Errors
    /// `INTERNAL` when they are not f32 on the CPU.
    pub fn get(&self) -> Result<&[f32], ModelError> {
        Ok(self.0.values()?)
    }
}

impl Parameters {
    /// Fresh parameters, each as [`ParameterSpec::initialize`] makes it.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY_HOST` when they do not fit.
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::build(config, device, |spec, values| {
            spec.initialize(seed, values);
            Ok(())
        })
    }

    /// The parameters stored in a model directory.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when one is missing, has another shape, or is more than the configuration knows.
    pub fn load(config: &ModelConfig, stored: &StoredWeights, device: &Device) -> Result<Self, ModelError> {
        stored.expect(config).map_err(|error| stored.corrupt(error.message))?;
        Self::build(config, device, |spec, values| {
            values.copy_from_slice(&stored.read(&spec.name)?);
            Ok(())
        })
    }

    fn build(
        config: &ModelConfig,
        device: &Device,
        mut fill: impl FnMut(&ParameterSpec, &mut [f32]) -> Result<(), ModelError>,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        let layout = FlatLayout::new(config);
        let mut values = zeroed(layout.len(), 0.0).map_err(|_| out_of_memory(layout.len()))?;
        let specs = config.parameters();
        for (spec, range) in specs.iter().zip(layout.ranges()) {
            fill(spec, &mut values[range.clone()])?;
        }
        let flat = Var::from_vec(values, layout.len(), device)?;
        let mut list = Vec::new();
        for (spec, range) in specs.into_iter().zip(layout.ranges()) {
            let whole = flat.as_detached_tensor();
            let tensor = whole.narrow(0, range.start, range.len())?.reshape(spec.shape.as_slice())?;
            list.push(Parameter { spec, tensor });
        }
        let by_name = list.iter().enumerate().map(|(at, p)| (p.spec.name.clone(), at)).collect();
        Ok(Self { flat, layout: Arc::new(layout), list, by_name })
    }

    /// The values of the parameter called `name`.
    ///
    /// # Errors
    /// `INTERNAL` when the configuration has no such parameter.
    pub fn get(&self, name: &str) -> Result<&Tensor, ModelError> {
        Ok(&self.list[self.position(name)?].tensor)
    }

    /// The matrix `[…, columns]` of the parameters from `first` to `last`, which lie behind each other; gradients come
    /// back from it when `tracked`.
    pub(crate) fn matrix(
        &self,
        (first, last): (&str, &str),
        columns: usize,
        tracked: bool,
    ) -> Result<Tensor, ModelError> {
        let (first, last) = (self.position(first)?, self.position(last)?);
        let range = self.layout.ranges()[first].start..self.layout.ranges()[last].end;
        let flat = if tracked { self.flat.as_tensor().clone() } else { self.flat.as_detached_tensor() };
        Ok(flat.narrow(0, range.start, range.len())?.reshape((range.len() / columns, columns))?)
    }

    /// The parameter called `name`, from which gradients come back when `tracked`.
    pub(crate) fn parameter(&self, name: &str, tracked: bool) -> Result<Tensor, ModelError> {
        let at = self.position(name)?;
        if !tracked {
            return Ok(self.list[at].tensor.clone());
        }
        let range = &self.layout.ranges()[at];
        let part = self.flat.as_tensor().narrow(0, range.start, range.len())?;
        Ok(part.reshape(self.list[at].spec.shape.as_slice())?)
    }

    /// The gradient of the parameter called `name`, if candle computed one for the parameters.
    ///
    /// # Errors
    /// `INTERNAL` when the configuration has no such parameter.
    pub fn gradient(&self, store: &GradStore, name: &str) -> Result<Option<Tensor>, ModelError> {
        let at = self.position(name)?;
        let range = &self.layout.ranges()[at];
        let Some(flat) = store.get(self.flat.as_tensor()) else { return Ok(None) };
        let shape = self.list[at].spec.shape.as_slice();
        Ok(Some(flat.narrow(0, range.start, range.len())?.reshape(shape)?))
    }

    /// Overwrites the parameter called `name`.
    ///
    /// # Errors
    /// `INTERNAL` when the configuration has no such parameter, or it has another shape or type.
    pub fn set(&self, name: &str, values: &Tensor) -> Result<(), ModelError> {
        let at = self.position(name)?;
        if values.dims() != self.list[at].spec.shape {
            return Err(ModelError::new(
                "INTERNAL",
                format!("{name} has shape {:?}, not {:?}", self.list[at].spec.shape, values.shape()),
                "please report this bug",
            ));
        }
        // A copy: the values may be a view of the buffer that is written.
        let values = values.flatten_all()?.copy()?;
        Ok(self.flat.slice_set(&values, 0, self.layout.ranges()[at].start)?)
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.list.iter()
    }

    /// The buffer that all parameters are views of.
    pub fn flat(&self) -> &Var {
        &self.flat
    }

    /// Where each parameter lies in it.
    pub fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    /// The flat values, locked for reading.
    pub fn values(&self) -> FlatValues<'_, impl Deref<Target = Storage>> {
        FlatValues(crate::ops::borrow(&self.flat))
    }

    /// Position of the parameter called `name` in the order.
    ///
    /// # Errors
    /// `INTERNAL` when the configuration has no such parameter.
    pub fn position(&self, name: &str) -> Result<usize, ModelError> {
        self.by_name.get(name).copied().ok_or_else(|| {
            ModelError::new("INTERNAL", format!("no parameter is called {name}"), "please report this bug")
        })
    }

    /// Number of parameters (tensors, not values).
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Writes `model.safetensors` in the form that `transformers` loads, and syncs it.
    ///
    /// # Errors
    /// `DISK_FULL`, `NOT_WRITABLE`.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut tensors = Vec::with_capacity(self.list.len());
        for Parameter { spec, tensor } in &self.list {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            tensors.push(crate::NamedTensor::new(spec.name.clone(), spec.shape.clone(), values));
        }
        crate::write_weights(path, tensors, ("format", "pt")).map(drop)
    }
}

fn out_of_memory(values: usize) -> ModelError {
    ModelError::new(
        "OUT_OF_MEMORY_HOST",
        format!("no memory for the model's {values} values"),
        "use a smaller model, or a machine with more memory",
    )
}
