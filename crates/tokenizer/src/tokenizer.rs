//! The tokenizer: text to ids and back.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::alphabet;
use crate::batch::{self, Encoded, EncodedBatch, Task, Text};
use crate::bpe::Workspace;
use crate::decode::StreamDecoder;
use crate::definition::{AddedToken, BpeTables, Definition, eos_of_config};
use crate::encoder::Encoder;
use crate::error::TokenizerError;
use crate::files;
use crate::memory::Ahead;
use crate::pattern::Pattern;
use crate::reference::Reference;
use crate::registry;

/// The end of text where `tokenizer_config.json` names none.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A bound on ids, so that a damaged file cannot ask for memory without end.
const LARGEST_ID: u32 = 1 << 24;

/// Bytes of words that each thread remembers while it encodes one text after the other.
pub const DOCUMENTS_BUDGET: usize = 12 << 20;
/// Bytes of words that each thread remembers while it encodes many texts at once.
const BATCH_BUDGET: usize = 64 << 20;

/// Bytes of each token by id; `None` where the vocabulary has a hole.
type TokenBytes = Vec<Option<Box<[u8]>>>;

/// A loaded tokenizer. Cloning shares it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    engine: Engine,
    tokens: TokenBytes,
    added: Vec<AddedToken>,
    byte_level: bool,
    pub(crate) ignores_merges: bool,
    eos: Option<(u32, String)>,
    digest: String,
    pub(crate) tokenizer_json: Vec<u8>,
    pub(crate) config_json: Option<Vec<u8>>,
    pub(crate) manifest_json: Option<Vec<u8>>,
}

/// Who encodes.
pub(crate) enum Engine {
    /// This crate, for what its registry knows.
    Own(Box<Encoder>),
    /// The `tokenizers` crate, for everything else.
    Reference(Box<Reference>),
}

impl Tokenizer {
    /// Loads a directory that holds a `tokenizer.json`, or such a file; `tokenizer_config.json` beside it is read
    /// when there. Errors: `TOKENIZER_INVALID`.
    pub fn from_path(path: &Path) -> Result<Self, TokenizerError> {
        let files = files::read(path)?;
        Self::from_files(files.tokenizer_json, files.config_json, files.manifest_json)
    }

    /// Loads the bytes of a `tokenizer.json` and of the `tokenizer_config.json` beside it. Errors:
    /// `TOKENIZER_INVALID`.
    pub fn from_json(tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, TokenizerError> {
        Self::from_files(tokenizer_json.to_vec(), tokenizer_config.map(<[u8]>::to_vec), None)
    }

    pub(crate) fn from_files(
        tokenizer_json: Vec<u8>,
        config_json: Option<Vec<u8>>,
        manifest_json: Option<Vec<u8>>,
    ) -> Result<Self, TokenizerError> {
        let definition = Definition::parse(&tokenizer_json)?;
        let byte_level = definition.decoder["type"] == "ByteLevel";
        let ignores_merges = definition.model.ignore_merges;
        let tables = definition.model.is_bpe().then(|| BpeTables::parse(&tokenizer_json)).transpose()?;
        let own = match &tables {
            Some(tables) => registry::encoder(&definition, tables),
            None => Err(registry::not_bpe(&definition)),
        };
        let (engine, vocabulary, mut added) = match (own, tables) {
            (Ok(encoder), Some(tables)) => {
                let added = definition.added_tokens;
                let ids = tables
                    .vocab
                    .into_iter()
                    .chain(added.iter().map(|token| (token.content.clone(), token.id)));
                (Engine::Own(Box::new(encoder)), ids.collect::<HashMap<String, u32>>(), added)
            }
            (own, _) => {
                let why = own.err().unwrap_or_default();
                let reference = Reference::load(&tokenizer_json, &definition, why)?;
                let (vocabulary, added) = (reference.vocabulary(), reference.added_tokens());
                (Engine::Reference(Box::new(reference)), vocabulary, added)
            }
        };
        added.sort_unstable_by_key(|token| token.id);
        let tokens = token_bytes(&vocabulary, &added, byte_level)?;

        let named = config_json.as_deref().map(eos_of_config).transpose()?.flatten();
        let eos = match named {
            Some(token) => match vocabulary.get(&token) {
                Some(&id) => Some((id, token)),
                None => {
                    return Err(TokenizerError::invalid(
                        format!("eos_token {token:?} of tokenizer_config.json is not in the vocabulary"),
                        "name a token of tokenizer.json as eos_token",
                    ));
                }
            },
            None => vocabulary.get(END_OF_TEXT).map(|&id| (id, END_OF_TEXT.to_owned())),
        };

        let digest = digest_of(&tokenizer_json, eos.as_ref().map(|(_, token)| token.as_str()));
        let inner = Inner {
            engine,
            tokens,
            added,
            byte_level,
            ignores_merges,
            eos,
            digest,
            tokenizer_json,
            config_json,
            manifest_json,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Appends the ids of a document: a special token's spelling in it is plain text, and nothing is added.
    ///
    /// Errors: `TOKENIZER_INVALID` when the `tokenizers` crate serves this file and it has no ids for the text. Our
    /// own encoder has ids for every text.
    pub fn encode_document(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        self.encode_with(text, false, ids)
    }

    /// Appends the ids of `text`, special tokens in it recognised (leftmost, then longest); nothing is added.
    /// Errors: as [`Tokenizer::encode_document`].
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        self.encode_with(text, true, ids)
    }

    /// [`Tokenizer::encode`] of each text on `threads` threads (0: as many as there are cores), each of which
    /// remembers up to 64 MiB of words. Errors: as [`Tokenizer::encode_document`].
    pub fn encode_batch<T: Text>(&self, texts: &[T], threads: usize) -> Result<EncodedBatch, TokenizerError> {
        batch::encode(texts, threads, |Task { texts, whole, shared }, Encoded { ids, ends }| {
            let mut room = Vec::new();
            let mut memory = match &self.inner.engine {
                Engine::Own(encoder) => Some(encoder.borrow_memory(BATCH_BUDGET, whole, shared)),
                Engine::Reference(_) => None,
            };
            for (at, text) in texts.iter().enumerate() {
                let text = text.read(&mut room);
                if let (Some(memory), Some(next)) = (&mut memory, texts.get(at + 1)) {
                    memory.ahead = Ahead::of(next.addresses());
                }
                match (&self.inner.engine, &mut memory) {
                    (Engine::Own(encoder), Some(memory)) => encoder.encode(&text, true, memory, ids),
                    _ => self.encode(&text, ids)?,
                }
                ends.push(ids.len() as u32);
            }
            if let (Engine::Own(encoder), Some(memory)) = (&self.inner.engine, memory) {
                encoder.give_back(memory);
            }
            Ok(())
        })
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD, unknown ids nothing. With `skip_special`, special
    /// tokens are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        if let Engine::Reference(reference) = &self.inner.engine
            && !self.decodes_bytes()
            && let Some(text) = reference.decode(ids, skip_special)
        {
            return text;
        }
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            if skip_special && self.is_special(id) {
                continue;
            }
            bytes.extend_from_slice(self.token_bytes(id).unwrap_or_default());
        }
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// A decoder that takes one id at a time; with `skip_special`, special tokens are left out.
    pub fn stream_decoder(&self, skip_special: bool) -> StreamDecoder {
        StreamDecoder::new(self.clone(), skip_special)
    }

    /// Whether decoding puts the bytes of tokens together and nothing else.
    pub(crate) fn decodes_bytes(&self) -> bool {
        self.inner.byte_level || matches!(self.inner.engine, Engine::Own(_))
    }

    /// The bytes that `id` stands for, or `None` for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.inner.tokens.get(id as usize)?.as_deref()
    }

    /// The largest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokens.len()
    }

    /// The token that closes a document, and its id: `eos_token` of `tokenizer_config.json`, else
    /// `<|endoftext|>`, else `TOKENIZER_INVALID`.
    pub fn eos_token(&self) -> Result<(u32, &str), TokenizerError> {
        match &self.inner.eos {
            Some((id, token)) => Ok((*id, token)),
            None => Err(TokenizerError::invalid(
                "the tokenizer has no end-of-text token",
                "name one as eos_token in tokenizer_config.json, or train with --special-token '<|endoftext|>'",
            )),
        }
    }

    /// The pattern of our registry that splits the text, or `None` when the `tokenizers` crate serves this file.
    pub fn pattern(&self) -> Option<Pattern> {
        match &self.inner.engine {
            Engine::Own(encoder) => Some(encoder.pattern()),
            Engine::Reference(_) => None,
        }
    }

    /// Why the `tokenizers` crate serves this file and not our own encoder, in words; `None` when ours does.
    pub fn outside_registry(&self) -> Option<&str> {
        match &self.inner.engine {
            Engine::Own(_) => None,
            Engine::Reference(reference) => Some(reference.why()),
        }
    }

    /// The ids that no text can give: tokens, added ones aside, whose own bytes merge into something else. `None`
    /// when the `tokenizers` crate serves this file.
    pub fn unreachable_tokens(&self) -> Option<Vec<u32>> {
        let Engine::Own(encoder) = &self.inner.engine else { return None };
        let mut work = Workspace::default();
        let ids = (0..self.vocab_size() as u32).filter(|&id| {
            let bytes = self.token_bytes(id);
            !self.is_added(id) && bytes.is_some_and(|bytes| !encoder.makes(bytes, id, &mut work))
        });
        Some(ids.collect())
    }

    /// SHA-256, in hex, over what determines ids: the bytes of `tokenizer.json` and the end-of-text token.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// Writes `tokenizer.json`, `vocab.json`, `merges.txt` (for BPE), `tokenizer_config.json`,
    /// `special_tokens_map.json`, `tokenizer_manifest.json` and, where tiktoken would give the same ids,
    /// `tokenizer.tiktoken` into `dir`, which is made if need be. Each file appears whole or not at all. Errors:
    /// `NOT_WRITABLE`, `DISK_FULL`.
    pub fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        files::write(self, dir)
    }

    /// The same tokenizer, saved with `manifest_json` beside it.
    pub(crate) fn with_manifest(self, manifest_json: Vec<u8>) -> Self {
        match Arc::try_unwrap(self.inner) {
            Ok(inner) => Self { inner: Arc::new(Inner { manifest_json: Some(manifest_json), ..inner }) },
            Err(inner) => Self { inner },
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn added_tokens(&self) -> &[AddedToken] {
        &self.inner.added
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Whether our own encoder brings text to NFC first.
    pub(crate) fn normalizes(&self) -> bool {
        self.pattern() == Some(Pattern::Qwen2)
    }

    pub(crate) fn encode_with(
        &self,
        text: &str,
        special: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        match &self.inner.engine {
            Engine::Own(encoder) => {
                let mut memory = encoder.borrow_memory(DOCUMENTS_BUDGET, text.len(), false);
                encoder.encode(text, special, &mut memory, ids);
                encoder.give_back(memory);
                Ok(())
            }
            Engine::Reference(reference) => reference.encode(text, special, ids),
        }
    }

    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.added_token(id).is_some_and(|token| token.special)
    }

    pub(crate) fn is_added(&self, id: u32) -> bool {
        self.added_token(id).is_some()
    }

    pub(crate) fn added_token(&self, id: u32) -> Option<&AddedToken> {
        let at = self.inner.added.binary_search_by_key(&id, |token| token.id).ok()?;
        self.inner.added.get(at)
    }
}

fn token_bytes(
    vocabulary: &HashMap<String, u32>,
    added: &[AddedToken],
    byte_level: bool,
) -> Result<TokenBytes, TokenizerError> {
    let mut tokens = Vec::new();
    for (spelling, &id) in vocabulary {
        if id > LARGEST_ID {
            return Err(TokenizerError::invalid(
                format!("the token {spelling:?} has the id {id}; ids above {LARGEST_ID} are not supported"),
                "number the tokens from 0 without large gaps",
            ));
        }
        if tokens.len() <= id as usize {
            tokens.resize(id as usize + 1, None);
        }
        tokens[id as usize] = Some(bytes_of(spelling, byte_level).into_boxed_slice());
    }
    // An added token stands for its own text, whatever the alphabet would make of its characters.
    for token in added {
        if let Some(bytes) = tokens.get_mut(token.id as usize) {
            *bytes = Some(token.content.as_bytes().into());
        }
    }
    Ok(tokens)
}

/// The bytes of a token's spelling: in the byte-level alphabet, or as SentencePiece writes space and bytes.
fn bytes_of(spelling: &str, byte_level: bool) -> Vec<u8> {
    if byte_level {
        return alphabet::unspell(spelling).unwrap_or_else(|| spelling.as_bytes().to_vec());
    }
    let byte = spelling.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => spelling.replace('\u{2581}', " ").into_bytes(),
    }
}

fn digest_of(tokenizer_json: &[u8], eos: Option<&str>) -> String {
    let mut hash = Sha256::new();
    hash.update((tokenizer_json.len() as u64).to_le_bytes());
    hash.update(tokenizer_json);
    hash.update(eos.unwrap_or_default());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
