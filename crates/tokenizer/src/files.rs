//! The output directory: the files that the `tokenizers` library and transformers load, and our manifest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::definition::{BpeTables, Definition, OrderedVocab, write_tokenizer_config};
use crate::error::TokenizerError;
use crate::tiktoken;
use crate::tokenizer::Tokenizer;

/// The version of Unicode whose classes the patterns use.
pub(crate) const UNICODE_VERSION: &str = "16.0.0";

/// What was found on disk.
pub(crate) struct Files {
    pub(crate) tokenizer_json: Vec<u8>,
    pub(crate) config_json: Option<Vec<u8>>,
    pub(crate) manifest_json: Option<Vec<u8>>,
}

/// Reads `path`, a directory or a `tokenizer.json`, and what lies beside it.
pub(crate) fn read(path: &Path) -> Result<Files, TokenizerError> {
    let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
    let tokenizer_json = fs::read(&file).map_err(|error| TokenizerError::unreadable(&file, &error))?;
    let beside = |name: &str| {
        let path = file.with_file_name(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TokenizerError::unreadable(&path, &error)),
        }
    };
    Ok(Files {
        config_json: beside("tokenizer_config.json")?,
        manifest_json: beside("tokenizer_manifest.json")?,
        tokenizer_json,
    })
}

/// The rank file that tiktoken reads.
const RANK_FILE: &str = "tokenizer.tiktoken";

/// Writes every file of `tokenizer` into `dir`, the manifest last.
pub(crate) fn write(tokenizer: &Tokenizer, dir: &Path) -> Result<(), TokenizerError> {
    fs::create_dir_all(dir).map_err(|error| TokenizerError::unwritable(dir, &error))?;
    let inner = tokenizer.inner();
    let eos = tokenizer.eos_token().ok().map(|(_, token)| token);
    if Definition::parse(&inner.tokenizer_json)?.model.is_bpe() {
        let tables = BpeTables::parse(&inner.tokenizer_json)?;
        let mut merges = String::from("#version: 0.2\n");
        for (a, b) in tables.merges()? {
            merges.extend([a, " ", b, "\n"]);
        }
        write_file(dir, "vocab.json", &to_json(&OrderedVocab(&tables.by_id()))?)?;
        write_file(dir, "merges.txt", merges.as_bytes())?;
    }
    match tiktoken::rank_file(tokenizer) {
        Ok(ranks) => write_file(dir, RANK_FILE, &ranks)?,
        Err(_) => remove_file(dir, RANK_FILE)?,
    }
    write_file(dir, "tokenizer.json", &inner.tokenizer_json)?;
    let config = match &inner.config_json {
        Some(config) => config.clone(),
        None => write_tokenizer_config(eos, tokenizer.added_tokens())?,
    };
    write_file(dir, "tokenizer_config.json", &config)?;
    write_file(dir, "special_tokens_map.json", &to_json(&special_tokens_map(tokenizer, eos))?)?;
    let manifest = match &inner.manifest_json {
        Some(manifest) => manifest.clone(),
        None => to_json(&json!({
            "candlewick": env!("CARGO_PKG_VERSION"),
            "digest": tokenizer.digest(),
            "unicode": UNICODE_VERSION,
            "vocab_size": tokenizer.vocab_size(),
        }))?,
    };
    write_file(dir, "tokenizer_manifest.json", &manifest)
}

fn special_tokens_map(tokenizer: &Tokenizer, eos: Option<&str>) -> Value {
    let others: Vec<&str> = tokenizer
        .added_tokens()
        .iter()
        .filter(|token| token.special && Some(token.content.as_str()) != eos)
        .map(|token| token.content.as_str())
        .collect();
    let mut map = json!({});
    if let Some(eos) = eos {
        map["eos_token"] = eos.into();
    }
    if !others.is_empty() {
        map["additional_special_tokens"] = others.into();
    }
    map
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, TokenizerError> {
    serde_json::to_vec_pretty(value).map_err(|error| {
        TokenizerError::invalid(format!("cannot write as JSON: {error}"), "report this as a bug")
    })
}

/// Removes what another tokenizer may have left.
fn remove_file(dir: &Path, name: &str) -> Result<(), TokenizerError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(TokenizerError::unwritable(&path, &error))
        }
        _ => Ok(()),
    }
}

pub(crate) fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), TokenizerError> {
    let path = dir.join(name);
    let part = dir.join(format!("{name}.part"));
    let written = File::create(&part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&part, &path));
    written.map_err(|error| {
        // The part is of no use to anyone; the error that matters is the first.
        let _ = fs::remove_file(&part);
        TokenizerError::unwritable(&path, &error)
    })
}
