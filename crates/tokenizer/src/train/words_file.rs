//! A file of sorted words and their counts: what spills to disk, what a stopped training keeps, and `counts.bin`.
//!
//! | | |
//! |---|---|
//! | 8 bytes | magic `CWKWORDS` |
//! | 4 bytes, little endian | version, 1 |
//! | 4 bytes, little endian | length of the JSON that follows |
//! | JSON | [`About`] |
//! | records | length of the word, its bytes, its count; words ascend by their bytes; both numbers are LEB128 |
//! | a length of 0 | then the number of words, LEB128 |
//! | 32 bytes | SHA-256 of everything before |

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::TokenizerError;
use crate::files::UNICODE_VERSION;
use crate::pattern::Pattern;

const MAGIC: &[u8; 8] = b"CWKWORDS";
const VERSION: u32 = 1;
/// Bytes read or written at a time.
const BUFFER: usize = 1 << 17;
/// A longer description is not ours.
const LONGEST_ABOUT: u32 = 1 << 16;

/// What words were counted, and how. Text counted otherwise has other words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) pattern: String,
    /// The normalizer's and the pattern's version of Unicode.
    pub(super) unicode: String,
    /// Documents without empty ones.
    pub(super) documents: u64,
    /// UTF-8 bytes of these.
    pub(super) bytes: u64,
}

impl About {
    pub(super) fn new(pattern: Pattern, documents: u64, bytes: u64) -> Self {
        Self { pattern: pattern.name().into(), unicode: UNICODE_VERSION.into(), documents, bytes }
    }

    /// `RESUME_MISMATCH` when these are not counts for `pattern`.
    pub(super) fn check(&self, pattern: Pattern, path: &Path) -> Result<(), TokenizerError> {
        let expected = Self::new(pattern, 0, 0);
        for (what, was, is) in
            [("pattern", &self.pattern, &expected.pattern), ("Unicode", &self.unicode, &expected.unicode)]
        {
            if was != is {
                return Err(TokenizerError::new(
                    "RESUME_MISMATCH",
                    format!("the words of {} were counted with {what} {was}, not {is}", path.display()),
                    "train with the same --pattern and version of candlewick, or count the documents again",
                ));
            }
        }
        Ok(())
    }
}

fn damaged(path: &Path, what: &str) -> TokenizerError {
    TokenizerError::new(
        "CHECKPOINT_CORRUPT",
        format!("{} is not a sound file of word counts: {what}", path.display()),
        "name a file that --save-counts wrote; delete a damaged one and count the documents again",
    )
}

/// Writes words, sorted by the caller. The file gets its name when it is whole.
pub(super) struct WordsWriter {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
    record: Vec<u8>,
    words: u64,
}

impl WordsWriter {
    pub(super) fn create(path: &Path, about: &About) -> Result<Self, TokenizerError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let file = File::create(&part).map_err(|error| TokenizerError::unwritable(path, &error))?;
        let file = BufWriter::with_capacity(BUFFER, file);
        let mut writer =
            Self { path: path.into(), part, file, digest: Sha256::new(), record: Vec::new(), words: 0 };
        let about = crate::files::to_json(about)?;
        writer.record.extend_from_slice(MAGIC);
        writer.record.extend_from_slice(&VERSION.to_le_bytes());
        writer.record.extend_from_slice(&(about.len() as u32).to_le_bytes());
        writer.record.extend_from_slice(&about);
        writer.write_record()?;
        Ok(writer)
    }

    pub(super) fn push(&mut self, word: &[u8], count: u64) -> Result<(), TokenizerError> {
        self.words += 1;
        push_number(&mut self.record, word.len() as u64);
        self.record.extend_from_slice(word);
        push_number(&mut self.record, count);
        if self.record.len() >= BUFFER { self.write_record() } else { Ok(()) }
    }

    /// Writes the end, makes sure that it is on the disk, and gives the file its name. Returns the number of words.
    pub(super) fn finish(mut self) -> Result<u64, TokenizerError> {
        push_number(&mut self.record, 0);
        push_number(&mut self.record, self.words);
        self.write_record()?;
        let digest = std::mem::take(&mut self.digest).finalize();
        let written = self
            .file
            .write_all(&digest)
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.part, &self.path));
        written.map_err(|error| TokenizerError::unwritable(&self.path, &error))?;
        Ok(self.words)
    }

    fn write_record(&mut self) -> Result<(), TokenizerError> {
        self.digest.update(&self.record);
        self.file.write_all(&self.record).map_err(|error| TokenizerError::unwritable(&self.path, &error))?;
        self.record.clear();
        Ok(())
    }
}

impl Drop for WordsWriter {
    fn drop(&mut self) {
        // What was not finished is of no use to anyone; once finished it has another name.
        let _ = fs::remove_file(&self.part);
    }
}

/// Reads words in their order. The last call of `next` verifies the whole.
pub(super) struct WordsReader {
    path: PathBuf,
    file: BufReader<File>,
    digest: Sha256,
    unhashed: Vec<u8>,
    words: u64,
    last: Vec<u8>,
    about: About,
}

impl WordsReader {
    pub(super) fn open(path: &Path) -> Result<Self, TokenizerError> {
        let file = File::open(path).map_err(|error| {
            TokenizerError::new(
                "CONFIG_INVALID",
                format!("cannot read {}: {error}", path.display()),
                "name a file of counts that --save-counts wrote",
            )
        })?;
        let mut reader = Self {
            path: path.into(),
            file: BufReader::with_capacity(BUFFER, file),
            digest: Sha256::new(),
            unhashed: Vec::new(),
            words: 0,
            last: Vec::new(),
            about: About { pattern: String::new(), unicode: String::new(), documents: 0, bytes: 0 },
        };
        let mut head = [0; 16];
        reader.read(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if &head[..8] != MAGIC {
            return Err(damaged(path, "it does not begin like one"));
        }
        if number(8) != VERSION {
            return Err(TokenizerError::new(
                "RESUME_MISMATCH",
                format!(
                    "{} has version {} of the format; this candlewick reads {VERSION}",
                    path.display(),
                    number(8)
                ),
                "use the version of candlewick that wrote it, or count the documents again",
            ));
        }
        if number(12) > LONGEST_ABOUT {
            return Err(damaged(path, "its description is too long"));
        }
        let mut about = vec![0; number(12) as usize];
        reader.read(&mut about)?;
        reader.about = serde_json::from_slice(&about)
            .map_err(|error| damaged(path, &format!("its description: {error}")))?;
        Ok(reader)
    }

    pub(super) fn about(&self) -> &About {
        &self.about
    }

    /// Puts the next word into `word` and returns its count; none at the sound end of the file.
    pub(super) fn next(&mut self, word: &mut Vec<u8>) -> Result<Option<u64>, TokenizerError> {
        let length = self.number()?;
        if length == 0 {
            self.end()?;
            return Ok(None);
        }
        word.clear();
        // A damaged length must not claim memory that is not there.
        let mut left = usize::try_from(length).map_err(|_| damaged(&self.path, "a word's length"))?;
        while left > 0 {
            let some = left.min(BUFFER);
            let start = word.len();
            word.resize(start + some, 0);
            self.read(&mut word[start..])?;
            left -= some;
        }
        let count = self.number()?;
        if count == 0 || self.words > 0 && *word <= self.last {
            return Err(damaged(&self.path, "its words are out of order"));
        }
        self.words += 1;
        self.last.clone_from(word);
        Ok(Some(count))
    }

    /// Reads a file to its end and says what it is.
    pub(super) fn verify(path: &Path) -> Result<About, TokenizerError> {
        let mut reader = Self::open(path)?;
        let mut word = Vec::new();
        while reader.next(&mut word)?.is_some() {}
        Ok(reader.about)
    }

    fn end(&mut self) -> Result<(), TokenizerError> {
        if self.number()? != self.words {
            return Err(damaged(&self.path, "words are missing"));
        }
        self.digest.update(&self.unhashed);
        let expected = std::mem::take(&mut self.digest).finalize();
        let mut digest = [0; 32];
        let read = self.file.read_exact(&mut digest).and_then(|()| self.file.read(&mut [0]));
        match read {
            Ok(0) if digest == expected[..] => Ok(()),
            Ok(0) => Err(damaged(&self.path, "its checksum is wrong")),
            Ok(_) => Err(damaged(&self.path, "something follows its end")),
            Err(error) => Err(self.unread(&error)),
        }
    }

    fn number(&mut self) -> Result<u64, TokenizerError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.read(&mut byte)?;
            let bits = u64::from(byte[0] & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte[0] < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged(&self.path, "a number is too long"))
    }

    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), TokenizerError> {
        if let Err(error) = self.file.read_exact(bytes) {
            return Err(self.unread(&error));
        }
        self.unhashed.extend_from_slice(bytes);
        if self.unhashed.len() >= BUFFER {
            self.digest.update(&self.unhashed);
            self.unhashed.clear();
        }
        Ok(())
    }

    fn unread(&self, error: &io::Error) -> TokenizerError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&self.path, "it is cut short"),
            _ => damaged(&self.path, &error.to_string()),
        }
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
