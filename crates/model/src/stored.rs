use crate::{ModelConfig, ModelError};
use half::{bf16, f16};
use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The format's own bound on a header (100 MB); a length beyond it is damage.
const LONGEST_HEADER: u64 = 100_000_000;

/// The weights of a model directory as others save them: one `model.safetensors`, or shards under
/// `model.safetensors.index.json`; f32, f16 or bf16. Tensors are read one at a time, as f32.
#[derive(Debug)]
pub struct StoredWeights {
    directory: PathBuf,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Place {
    file: PathBuf,
    /// Of its first byte in the file.
    start: u64,
    bytes: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl StoredWeights {
    /// Reads the headers of all files.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when a file is missing, truncated or not safetensors.
    pub fn open(directory: &Path) -> Result<Self, ModelError> {
        let index = directory.join(INDEX);
        let mut tensors = BTreeMap::new();
        let single = directory.join(SINGLE);
        if single.is_file() || !index.is_file() {
            read_header(&single, &mut tensors)?;
        } else {
            let text = std::fs::read(&index).map_err(|error| ModelError::from_io(&error, "read", &index))?;
            let Index { weight_map } =
                serde_json::from_slice(&text).map_err(|error| ModelError::corrupt(&index, error))?;
            let mut shards: Vec<&String> = weight_map.values().collect();
            shards.sort();
            shards.dedup();
            for shard in shards {
                // A name, never a path: an index must not lead out of its directory.
                if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
                    return Err(ModelError::corrupt(&index, format!("{shard:?} is no file name")));
                }
                read_header(&directory.join(shard), &mut tensors)?;
            }
            if let Some(missing) = weight_map.keys().find(|name| !tensors.contains_key(*name)) {
                return Err(ModelError::corrupt(&index, format!("no shard holds {missing}")));
            }
        }
        Ok(Self { directory: directory.to_path_buf(), tensors })
    }

    /// The shape of a tensor, or `None` where there is none of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Reads a tensor, row-major.
    ///
    /// # Errors
    /// `CHECKPOINT_CORRUPT` when it is not there, cannot be read, or is neither f32, f16 nor bf16;
    /// `OUT_OF_MEMORY_HOST`.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let place = self.tensors.get(name).ok_or_else(|| self.corrupt(format_args!("{name} is missing")))?;
        let Place { file, start, bytes, dtype, .. } = place;
        let mut raw = Vec::new();
        let count = place.shape.iter().product();
        let mut values = Vec::new();
        raw.try_reserve_exact(*bytes).and_then(|()| values.try_reserve_exact(count)).map_err(|_| {
            ModelError::new(
                "OUT_OF_MEMORY_HOST",
                format!("no memory for {name} ({count} values)"),
                "use a machine with more memory",
            )
        })?;
        raw.resize(*bytes, 0);
        File::open(file)
            .and_then(|mut opened| {
                opened.seek(SeekFrom::Start(*start))?;
                opened.read_exact(&mut raw)
            })
            .map_err(|error| ModelError::from_io(&error, "read", file))?;
        match dtype {
            Dtype::F32 => values.extend(raw.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word))),
            Dtype::F16 => {
                values.extend(raw.as_chunks::<2>().0.iter().map(|word| f16::from_le_bytes(*word).to_f32()));
            }
            Dtype::BF16 => {
                values.extend(raw.as_chunks::<2>().0.iter().map(|word| bf16::from_le_bytes(*word).to_f32()));
            }
            other => {
                return Err(ModelError::corrupt(
                    file,
                    format_args!("{name} is {other:?}; F32, F16 and BF16 can be read"),
                ));
            }
        }
        Ok(values)
    }

    /// Holds the tensors against a configuration's: all of them, and nothing else.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the first tensor that is missing, has another shape (with both), or is too many.
    pub fn expect(&self, config: &ModelConfig) -> Result<(), ModelError> {
        let specs = config.parameters();
        let place = self.directory.display();
        for spec in &specs {
            match self.shape(&spec.name) {
                None => {
                    return Err(ModelError::config(
                        format!(
                            "{place} has no tensor {}, which the model of the configuration has",
                            spec.name
                        ),
                        "set the keys of model as its config.json has them",
                    ));
                }
                Some(found) if found != spec.shape => {
                    return Err(ModelError::config(
                        format!(
                            "{} has shape {found:?} in {place} and {:?} in the model of the configuration",
                            spec.name, spec.shape
                        ),
                        "set the keys of model as its config.json has them",
                    ));
                }
                Some(_) => {}
            }
        }
        let known: std::collections::HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        match self.names().find(|name| !known.contains(name) && !is_redundant(name, config)) {
            None => Ok(()),
            Some(name) => Err(ModelError::config(
                format!("{place} has a tensor {name}, which the model of the configuration does not have"),
                "set the keys of model as its config.json has them",
            )),
        }
    }

    /// An error of this directory.
    pub(crate) fn corrupt(&self, what: impl std::fmt::Display) -> ModelError {
        ModelError::corrupt(&self.directory, what)
    }
}

/// Tensors that others save and no model needs: the head of a tied model a second time, and the rotary frequencies
/// that old versions of transformers stored.
pub(crate) fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    (config.tie_word_embeddings && name == "lm_head.weight") || name.ends_with(".rotary_emb.inv_freq")
}

fn read_header(path: &Path, into: &mut BTreeMap<String, Place>) -> Result<(), ModelError> {
    let read = || -> std::io::Result<(u64, Vec<u8>)> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length).min(LONGEST_HEADER).min(size - 8);
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)?;
        Ok((size, header))
    };
    let (size, header) = read().map_err(|error| ModelError::from_io(&error, "read", path))?;
    let begin = header.len() as u64 + 8;
    // A length that was cut off above leaves JSON that does not end.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| ModelError::corrupt(path, error))?;
    check_size(path, &metadata, size - begin)?;
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let place = Place {
            file: path.to_path_buf(),
            start: begin + start as u64,
            bytes: end - start,
            dtype: info.dtype,
            shape: info.shape.clone(),
        };
        if into.insert(name.clone(), place).is_some() {
            return Err(ModelError::corrupt(path, format_args!("{name} is in two files")));
        }
    }
    Ok(())
}

/// A file that was cut short says so before the first tensor is read.
fn check_size(path: &Path, metadata: &Metadata, held: u64) -> Result<(), ModelError> {
    let wanted = metadata.tensors().values().map(|info| info.data_offsets.1).max().unwrap_or(0) as u64;
    if held == wanted {
        return Ok(());
    }
    Err(ModelError::corrupt(path, format_args!("it holds {held} bytes of values instead of {wanted}")))
}
