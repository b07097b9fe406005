use crate::{ModelConfig, ModelError, ParameterSpec, StoredWeights, write_synced};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

/// A shard's size at most, as transformers' and the Hub's own: 5 GB.
const SHARD_BYTES: u64 = 5_000_000_000;

/// How exported values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredType {
    /// As they are trained; nothing is lost.
    F32,
    /// Eight bits of mantissa, the range of f32.
    Bf16,
    /// Eleven bits of mantissa, up to 65,504.
    F16,
}

impl StoredType {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The name in a safetensors header.
    fn tag(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// The name in `config.json`.
    fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }
}

/// What an export is to look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportOptions {
    /// Type of the stored values.
    pub dtype: StoredType,
    /// Tokens of the tokenizer. Rows of embedding and head beyond them are padding of the training and are left out,
    /// so that no program can sample a token without a text.
    pub vocab_size: usize,
    /// The token that closes a text.
    pub eos_token_id: u32,
    /// A file's size at most; default: 5 GB.
    #[serde(default)]
    pub shard_bytes: Option<u64>,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exported {
    /// The model's shape, with the vocabulary as exported.
    pub config: ModelConfig,
    /// Learned values.
    pub parameters: u64,
    /// Bytes of all weights.
    pub bytes: u64,
    /// Weight files, in order.
    pub files: Vec<String>,
}

/// Writes what transformers loads into the directory `to`, which is there: the weights (more than one file above 5 GB),
/// `config.json` and `generation_config.json`, each synced. One tensor is in memory at a time.
///
/// # Errors
/// `CHECKPOINT_CORRUPT` and `CONFIG_INVALID` for `from`; `TOKENIZER_MISMATCH` for a vocabulary beyond the model's;
/// `CONFIG_INVALID` for a value that f16 cannot hold; `DISK_FULL`, `NOT_WRITABLE` for `to`.
pub fn export_model(from: &Path, to: &Path, options: &ExportOptions) -> Result<Exported, ModelError> {
    let stored = StoredWeights::open(from)?;
    let mut config = ModelConfig::read(from)?;
    stored.expect(&config)?;
    if options.vocab_size > config.vocab_size {
        return Err(ModelError::new(
            "TOKENIZER_MISMATCH",
            format!("the tokenizer has {} tokens, the model only {}", options.vocab_size, config.vocab_size),
            "use the tokenizer that the model was trained with",
        ));
    }
    config.vocab_size = options.vocab_size;
    config.eos_token_id = Some(options.eos_token_id);

    let specs = config.parameters();
    let bytes_of = |spec: &ParameterSpec| (spec.len() * options.dtype.bytes()) as u64;
    let shards = shards(&specs, bytes_of, options.shard_bytes.unwrap_or(SHARD_BYTES));
    let mut files = Vec::new();
    let mut weight_map = Map::new();
    for (at, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", at + 1),
        };
        write_shard(&stored, shard, options.dtype, &to.join(&name))?;
        weight_map.extend(shard.iter().map(|spec| (spec.name.clone(), json!(name))));
        files.push(name);
    }
    let bytes = specs.iter().map(bytes_of).sum();
    if files.len() > 1 {
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": weight_map});
        write_json(&to.join("model.safetensors.index.json"), &index)?;
    }
    let mut hf: Value = serde_json::from_str(&config.to_hf_json()).expect("written as JSON a moment ago");
    hf["torch_dtype"] = json!(options.dtype.torch_name());
    write_json(&to.join("config.json"), &hf)?;
    let generation = json!({
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        // Batches of texts are filled up with it, as transformers does unasked, with a warning.
        "pad_token_id": config.eos_token_id,
    });
    write_json(&to.join("generation_config.json"), &generation)?;
    let parameters = specs.iter().map(|spec| spec.len() as u64).sum();
    Ok(Exported { config, parameters, bytes, files })
}

/// Tensors in order, cut where the next would exceed `limit`; a tensor is never cut.
fn shards(
    specs: &[ParameterSpec],
    bytes_of: impl Fn(&ParameterSpec) -> u64,
    limit: u64,
) -> Vec<Vec<&ParameterSpec>> {
    let mut shards: Vec<Vec<&ParameterSpec>> = vec![Vec::new()];
    let mut held = 0;
    for spec in specs {
        let bytes = bytes_of(spec);
        if held > 0 && held + bytes > limit {
            shards.push(Vec::new());
            held = 0;
        }
        held += bytes;
        shards.last_mut().expect("there is one from the start").push(spec);
    }
    for shard in &mut shards {
        shard.sort_by(|a, b| a.name.cmp(&b.name));
    }
    shards
}

fn write_shard(
    stored: &StoredWeights,
    specs: &[&ParameterSpec],
    dtype: StoredType,
    path: &Path,
) -> Result<(), ModelError> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for spec in specs {
        let end = offset + spec.len() * dtype.bytes();
        let entry = json!({"dtype": dtype.tag(), "shape": spec.shape, "data_offsets": [offset, end]});
        header.insert(spec.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let failed = |error: std::io::Error| ModelError::from_io(&error, "write", path);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(&header))
        .map_err(failed)?;
    for spec in specs {
        let values = stored.read(&spec.name)?;
        // Rows beyond the tokenizer's are at the end.
        let kept = &values[..spec.len()];
        if let Some(bad) =
            kept.iter().find(|value| dtype == StoredType::F16 && value.abs() > f16::MAX.to_f32())
        {
            return Err(ModelError::config(
                format!("{} holds {bad}, which is beyond f16", spec.name),
                "export with --dtype bf16 or f32",
            ));
        }
        for chunk in kept.chunks(1 << 16) {
            file.write_all(&encoded(chunk, dtype)).map_err(failed)?;
        }
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
}

/// Little endian; rounded to nearest, ties to even.
fn encoded(values: &[f32], dtype: StoredType) -> Vec<u8> {
    match dtype {
        StoredType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        StoredType::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        StoredType::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    write_synced(path, format!("{value:#}\n").as_bytes()).map(|_| ())
}
