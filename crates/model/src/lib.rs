//! The transformer: its configuration, parameters, differentiable forward pass, files and generation.
//!
//! Qwen3- and Llama-shaped decoders under Hugging Face's names, so that what is written here loads in
//! `transformers` as it is.

mod config;
mod decoder;
mod error;
mod export;
mod generator;
mod hugging_face;
mod layout;
mod parameters;
mod random;
mod sampler;
mod stored;
mod transformer;
mod weights;

pub mod kernels;
pub mod memory;
pub mod ops;

pub use config::{Architecture, ModelConfig, ParameterCount};
pub use decoder::Decoder;
pub use error::ModelError;
pub use export::{ExportOptions, Exported, StoredType, export_model};
pub use generator::{Generator, GeneratorOptions, check_prompt};
pub use layout::FlatLayout;
pub use parameters::{FlatValues, Init, Parameter, ParameterSpec, Parameters};
pub use random::Random;
pub use sampler::{Sampler, SamplerOptions};
pub use stored::StoredWeights;
pub use transformer::{Loss, Transformer};
pub use weights::{
    FileDigest, NamedTensor, StoredTensor, WeightFile, open_weights, write_synced, write_weights,
};
