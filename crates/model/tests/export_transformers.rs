//! An exported model computes what transformers computes: from fixtures that `scripts/fixtures/transformers_greedy.py`
//! made, and in transformers itself where a Python has it (`CANDLEWICK_TEST_PYTHON`, or `python3`).

use candle_core::{Device, Tensor};
use candlewick_model::{
    ExportOptions, Generator, GeneratorOptions, ModelConfig, StoredType, Transformer, export_model,
};
use safetensors::SafeTensors;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const NAMES: [&str; 4] = ["qwen3_tied", "qwen3_untied", "llama_tied", "llama_untied"];
const LARGEST_DIFFERENCE: f32 = 5e-5;

struct Fixture {
    prompt: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
    vocabulary: usize,
    /// Our own export of the model, in f32.
    exported: tempfile::TempDir,
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks::<4>().0.iter().copied()
}

fn read(name: &str) -> Fixture {
    let path = format!("{}/tests/fixtures/greedy_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let config_json = header.metadata().as_ref().unwrap()["config"].clone();
    let config = ModelConfig::from_hf_json(&config_json).unwrap();

    let saved = tempfile::tempdir().unwrap();
    let weights = config.parameters().into_iter().map(|spec| {
        let view = file.tensor(&spec.name).unwrap();
        (spec.name, view)
    });
    std::fs::write(saved.path().join("config.json"), config_json).unwrap();
    safetensors::serialize_to_file(weights, None, &saved.path().join("model.safetensors")).unwrap();
    let floats = |name: &str| words(file.tensor(name).unwrap().data()).map(f32::from_le_bytes).collect();
    let ids = |name: &str| words(file.tensor(name).unwrap().data()).map(u32::from_le_bytes).collect();
    let greedy: Vec<u32> = ids("greedy");
    let exported = tempfile::tempdir().unwrap();
    let options = ExportOptions {
        dtype: StoredType::F32,
        vocab_size: config.vocab_size,
        // transformers would end a text at it.
        eos_token_id: (0..).find(|id| !greedy.contains(id)).unwrap(),
        shard_bytes: Some(30_000),
    };
    assert!(export_model(saved.path(), exported.path(), &options).unwrap().files.len() > 1);
    Fixture {
        prompt: ids("prompt"),
        logits: floats("logits"),
        greedy,
        vocabulary: config.vocab_size,
        exported,
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_and_64_greedy_tokens_are_those_of_transformers() {
    for name in NAMES {
        let fixture = read(name);
        let model = Transformer::load(fixture.exported.path(), &Device::Cpu).unwrap();
        let ids = Tensor::from_slice(&fixture.prompt, (1, fixture.prompt.len()), &Device::Cpu).unwrap();
        let logits = model.forward(&ids).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let difference = largest_difference(&logits, &fixture.logits);
        assert!(difference < LARGEST_DIFFERENCE, "{name}: logits differ by {difference:e}");

        let vocabulary = fixture.vocabulary;
        let options = GeneratorOptions { temperature: 0.0, top_k: None, top_p: None, seed: 1, vocabulary };
        let mut generator = Generator::new(&model, &fixture.prompt, options).unwrap();
        let greedy: Vec<u32> = (0..64).map(|_| generator.next_id().unwrap()).collect();
        assert_eq!(greedy, fixture.greedy, "{name}");
    }
}

/// A Python that has transformers and torch, and why there is none.
fn python() -> Result<PathBuf, String> {
    let python = std::env::var_os("CANDLEWICK_TEST_PYTHON").map_or("python3".into(), PathBuf::from);
    let found = Command::new(&python).args(["-c", "import torch, transformers"]).output();
    match found {
        Ok(output) if output.status.success() => Ok(python),
        Ok(_) => Err(format!("{} cannot import torch and transformers", python.display())),
        Err(error) => Err(format!("{}: {error}", python.display())),
    }
}

/// Loads an exported directory as a user would and prints, as JSON, the prompt's logits and the greedy tokens.
const LIVE: &str = r#"
import json, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
prompt = torch.tensor([json.loads(sys.argv[2])])
with torch.no_grad():
    logits = model(input_ids=prompt).logits[0]
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=64)
print(json.dumps({"logits": logits.flatten().tolist(), "greedy": out[0, prompt.shape[1]:].tolist()}))
"#;

fn live(python: &Path, fixture: &Fixture) -> (Vec<f32>, Vec<u32>) {
    let prompt = serde_json::to_string(&fixture.prompt).unwrap();
    let output = Command::new(python)
        .args(["-c", LIVE])
        .arg(fixture.exported.path())
        .arg(prompt)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let last = output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
    let result: serde_json::Value = serde_json::from_slice(last).unwrap();
    (
        serde_json::from_value(result["logits"].clone()).unwrap(),
        serde_json::from_value(result["greedy"].clone()).unwrap(),
    )
}

#[test]
fn transformers_loads_what_is_exported() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return eprintln!("skipped: {reason}; CANDLEWICK_TEST_PYTHON names a Python that can"),
    };
    for name in NAMES {
        let fixture = read(name);
        let (logits, greedy) = live(&python, &fixture);
        let difference = largest_difference(&logits, &fixture.logits);
        assert!(difference < LARGEST_DIFFERENCE, "{name}: logits differ by {difference:e}");
        assert_eq!(greedy, fixture.greedy, "{name}");
    }
}
