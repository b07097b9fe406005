use crate::{ModelConfig, ModelError, Random, StoredWeights, WeightFile};
use candle_core::{Device, Tensor, Var};
use std::{collections::HashMap, path::Path};

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
}

/// A parameter: what it is and the variable that holds it.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name, shape, initialisation, decay.
    pub spec: ParameterSpec,
    /// The values, f32.
    pub var: Var,
}

/// All parameters of a model, in the order of [`ModelConfig::parameters`].
#[derive(Debug, Clone)]
pub struct Parameters {
    list: Vec<Parameter>,
    by_name: HashMap<String, usize>,
}

impl Parameters {
    /// Fresh parameters. Each has a random stream of its own, named after it, so a value depends on the seed,
    /// the parameter's name and the position in it, and on nothing else: not on platform, threads or order.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY_HOST` when a parameter does not fit.
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::build(config, device, |spec| {
            let mut values = Vec::new();
            values.try_reserve_exact(spec.len()).map_err(|_| out_of_memory(spec))?;
            match spec.init {
                Init::One => values.resize(spec.len(), 1.0),
                Init::Normal { std } => {
                    let mut random = Random::stream(seed, &spec.name);
                    values.extend((0..spec.len()).map(|_| (std * random.normal()) as f32));
                }
            }
            Ok(values)
        })
    }

    /// The parameters stored in a model directory.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when one is missing, has another shape, or is more than the configuration knows.
    pub fn load(config: &ModelConfig, stored: &StoredWeights, device: &Device) -> Result<Self, ModelError> {
        stored.expect(config).map_err(|error| stored.corrupt(error.message))?;
        Self::build(config, device, |spec| stored.read(&spec.name))
    }

    fn build(
        config: &ModelConfig,
        device: &Device,
        mut values: impl FnMut(&ParameterSpec) -> Result<Vec<f32>, ModelError>,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        let mut list = Vec::new();
        for spec in config.parameters() {
            let var = Var::from_vec(values(&spec)?, spec.shape.as_slice(), device)?;
            list.push(Parameter { spec, var });
        }
        let by_name = list.iter().enumerate().map(|(at, p)| (p.spec.name.clone(), at)).collect();
        Ok(Self { list, by_name })
    }

    /// The variable called `name`.
    ///
    /// # Errors
    /// `INTERNAL` when the configuration has no such parameter.
    pub fn get(&self, name: &str) -> Result<&Var, ModelError> {
        Ok(&self.list[self.position(name)?].var)
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.list.iter()
    }

    /// Calls `body` with all values in order, while they are locked for reading.
    ///
    /// # Errors
    /// `INTERNAL` when a parameter is not contiguous f32 on the CPU.
    pub fn with_values<R>(&self, body: impl FnOnce(&[&[f32]]) -> R) -> Result<R, ModelError> {
        let locked: Vec<_> = self.list.iter().map(|parameter| crate::ops::borrow(&parameter.var)).collect();
        let values = locked.iter().map(|one| one.values()).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(body(&values))
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

    /// Overwrites all values with those of a file, or none of them on an error.
    ///
    /// # Errors
    /// As [`Parameters::load`].
    pub fn replace(&self, mut file: WeightFile) -> Result<(), ModelError> {
        let mut values = Vec::with_capacity(self.list.len());
        for Parameter { spec, .. } in &self.list {
            values.push(file.take(&spec.name, &spec.shape)?);
        }
        if !self.by_name.contains_key("lm_head.weight") {
            file.forget("lm_head.weight");
        }
        file.expect_empty()?;
        for (Parameter { spec, var }, values) in self.list.iter().zip(values) {
            var.set(&Tensor::from_vec(values, spec.shape.as_slice(), var.device())?)?;
        }
        Ok(())
    }

    /// Writes `model.safetensors` in the form that `transformers` loads, and syncs it.
    ///
    /// # Errors
    /// `DISK_FULL`, `NOT_WRITABLE`.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut tensors = Vec::with_capacity(self.list.len());
        for Parameter { spec, var } in &self.list {
            let values = var.as_detached_tensor().flatten_all()?.to_vec1::<f32>()?;
            tensors.push(crate::NamedTensor::new(spec.name.clone(), spec.shape.clone(), values));
        }
        crate::write_weights(path, tensors, ("format", "pt")).map(drop)
    }
}

fn out_of_memory(spec: &ParameterSpec) -> ModelError {
    ModelError::new(
        "OUT_OF_MEMORY_HOST",
        format!("no memory for {} ({} values)", spec.name, spec.len()),
        "use a smaller model, or a machine with more memory",
    )
}
