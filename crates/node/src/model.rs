use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use candlewick_model::{
    ExportOptions, Generator, GeneratorOptions, ModelConfig, StoredType, Transformer, export_model,
};
use candlewick_tokenizer::{StreamDecoder, Tokenizer};
use candlewick_train::Device;
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use serde::Deserialize;

use crate::{failure::Failure, promise::Promise, worker::Worker};

/// A model for generation.
#[napi]
pub struct NativeModel {
    loaded: Option<Arc<Loaded>>,
}

struct Loaded {
    transformer: Transformer,
    tokenizer: Tokenizer,
    end_of_text: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampling {
    max_tokens: u64,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    seed: u64,
}

/// Loads a directory with `config.json` and weights. The tokenizer lies beside them, or is the run's.
#[napi(ts_return_type = "Promise<NativeModel>")]
pub fn load_model(env: &Env, dir: String, device: String) -> napi::Result<Object<'_>> {
    let (promise, object) = Promise::<NativeModel>::new(env)?;
    let load = move || {
        let device = candlewick_train::backend::cuda::candle_device(Device::try_from(device)?)?;
        let dir = Path::new(&dir);
        let tokenizer = Tokenizer::from_path(&tokenizer_of(dir)?)?;
        let (end_of_text, _) = tokenizer.eos_token()?;
        let transformer = Transformer::load(dir, &device)?;
        let (ids, rows) = (tokenizer.vocab_size(), transformer.config().vocab_size);
        if ids > rows {
            return Err(Failure {
                code: "TOKENIZER_MISMATCH".into(),
                message: format!("the tokenizer has {ids} tokens, the model only {rows}"),
                hint: "use the tokenizer that the model was trained with".into(),
            });
        }
        Ok(Arc::new(Loaded { transformer, tokenizer, end_of_text }))
    };
    let body = move || promise.settle_with(load(), |loaded| NativeModel { loaded: Some(loaded) });
    std::thread::Builder::new()
        .name("load".into())
        .spawn(body)
        .expect("the operating system starts a thread");
    Ok(object)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportJson {
    dtype: StoredType,
}

/// Writes the model in `from`, in the form that transformers loads, and its tokenizer into the directory `to`, which
/// is there. Options are JSON; JSON: what was exported.
#[napi(js_name = "exportModel", ts_return_type = "Promise<string>")]
pub fn export_directory(env: &Env, from: String, to: String, options: String) -> napi::Result<Object<'_>> {
    let ExportJson { dtype } = serde_json::from_str(&options).map_err(Failure::from)?;
    let (promise, object) = Promise::<String>::new(env)?;
    let export = move || -> Result<String, Failure> {
        let (from, to) = (Path::new(&from), Path::new(&to));
        let tokenizer = Tokenizer::from_path(&tokenizer_of(from)?)?;
        let (eos_token_id, _) = tokenizer.eos_token()?;
        let options =
            ExportOptions { dtype, vocab_size: tokenizer.vocab_size(), eos_token_id, shard_bytes: None };
        let exported = export_model(from, to, &options)?;
        tokenizer.save(to)?;
        Ok(serde_json::to_string(&exported)?)
    };
    std::thread::Builder::new()
        .name("export".into())
        .spawn(move || promise.settle(export()))
        .expect("the operating system starts a thread");
    Ok(object)
}

/// JSON: where the tokenizer of a model directory lies (null where there is none), and the rows of the model's embedding.
#[napi]
pub fn inspect_model(dir: String) -> napi::Result<String> {
    let dir = Path::new(&dir);
    let inspect = || -> Result<serde_json::Value, Failure> {
        let config = ModelConfig::read(dir)?;
        let tokenizer = tokenizer_of(dir).ok();
        Ok(serde_json::json!({ "vocab_size": config.vocab_size, "tokenizer": tokenizer }))
    };
    Ok(inspect()?.to_string())
}

/// Throws CONFIG_INVALID where the weights of a directory do not fit a model (JSON, as in the configuration).
#[napi]
pub fn check_weights(dir: String, model: String) -> napi::Result<()> {
    let model: ModelConfig = serde_json::from_str(&model).map_err(Failure::from)?;
    Transformer::check_weights_of(&model, Path::new(&dir)).map_err(Failure::from)?;
    Ok(())
}

fn tokenizer_of(dir: &Path) -> Result<PathBuf, Failure> {
    let run = dir.parent().and_then(Path::parent);
    let places = [Some(dir.to_path_buf()), Some(dir.join("tokenizer")), run.map(|run| run.join("tokenizer"))];
    places.into_iter().flatten().find(|place| place.join("tokenizer.json").is_file()).ok_or_else(|| Failure {
        code: "TOKENIZER_INVALID".into(),
        message: format!("there is no tokenizer.json for the model in {}", dir.display()),
        hint: "put the tokenizer's files beside the model".into(),
    })
}

#[napi]
impl NativeModel {
    /// Continues a prompt; options are JSON.
    #[napi]
    pub fn generate(&self, prompt: String, options: String) -> napi::Result<NativeGeneration> {
        let loaded = self.loaded.clone().ok_or_else(|| Failure::closed("the model"))?;
        let sampling: Sampling = serde_json::from_str(&options).map_err(Failure::from)?;
        let mut ids = Vec::new();
        loaded.tokenizer.encode(&prompt, &mut ids).map_err(Failure::from)?;
        if ids.is_empty() {
            ids.push(loaded.end_of_text);
        }
        let options = GeneratorOptions {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            vocabulary: loaded.tokenizer.vocab_size(),
        };
        let generator = Generator::new(&loaded.transformer, &ids, options).map_err(Failure::from)?;
        let decoder = loaded.tokenizer.stream_decoder(false);
        let end_of_text = loaded.end_of_text;
        let writing = Writing { generator, decoder, end_of_text, left: sampling.max_tokens, _loaded: loaded };
        Ok(NativeGeneration { worker: Worker::start("generate", writing), cancelled: Arc::default() })
    }

    /// Lets go of the model; settles at once.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'e>(&mut self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<()>::new(env)?;
        self.loaded = None;
        promise.settle(Ok(()));
        Ok(object)
    }
}

struct Writing {
    generator: Generator,
    decoder: StreamDecoder,
    end_of_text: u32,
    left: u64,
    _loaded: Arc<Loaded>,
}

/// A text that is being continued, piece by piece.
#[napi]
pub struct NativeGeneration {
    worker: Worker<Writing>,
    cancelled: Arc<AtomicBool>,
}

#[napi]
impl NativeGeneration {
    /// The next piece, complete characters only; null at the end.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn next<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::<Option<String>>::new(env)?;
        let cancelled = self.cancelled.clone();
        self.worker.run(move |writing| promise.settle(writing.next_piece(&cancelled)));
        Ok(object)
    }

    /// Ends the text at the next token.
    #[napi]
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Writing {
    fn next_piece(&mut self, cancelled: &AtomicBool) -> Result<Option<String>, Failure> {
        while self.left > 0 && !cancelled.load(Ordering::Relaxed) {
            self.left -= 1;
            let id = self.generator.next_id()?;
            if id == self.end_of_text {
                break;
            }
            let piece = self.decoder.push(id);
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        self.left = 0;
        Ok(Some(self.decoder.finish()).filter(|rest| !rest.is_empty()))
    }
}
