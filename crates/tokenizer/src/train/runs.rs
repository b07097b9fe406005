//! Sorted runs on disk: counts that memory has no room for, and what a stopped training goes on from.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::sorted::{Words, merge};
use super::words_file::{About, WordsReader, WordsWriter};
use crate::error::TokenizerError;

/// More runs are merged into one, so that reading them needs few open files.
const MOST_RUNS: usize = 32;
/// Names what a directory of runs holds that can be gone on from.
const PROGRESS: &str = "progress.json";
const VERSION: u32 = 1;
const LOCK: &str = "lock";
const TEMPORARY: &str = "candlewick-counts-";

/// A directory with sorted runs.
pub(super) struct Runs {
    dir: PathBuf,
    /// Held while a temporary directory is in use; such a directory is removed with this.
    lock: Option<File>,
    made: bool,
    names: Vec<String>,
    /// Runs that went into another, and that `progress.json` may still name.
    replaced: Vec<String>,
    next: u64,
}

/// Where a stopped training stands.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    version: u32,
    pub(super) about: About,
    /// The caller's own.
    pub(super) position: String,
    runs: Vec<String>,
}

impl Runs {
    /// Runs in a directory of their own under `parent`, gone when the training is. Made when it is needed.
    pub(super) fn temporary(parent: &Path) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        Self { dir, lock: None, made: false, names: Vec::new(), replaced: Vec::new(), next: 0 }
    }

    /// Runs in `dir`, which stays; what its `progress.json` names is taken over, anything else of ours there removed.
    pub(super) fn kept(dir: &Path) -> Result<(Self, Option<Progress>), TokenizerError> {
        fs::create_dir_all(dir).map_err(|error| TokenizerError::unwritable(dir, &error))?;
        let path = dir.join(PROGRESS);
        let corrupt = |error: &dyn std::fmt::Display| {
            TokenizerError::new(
                "CHECKPOINT_CORRUPT",
                format!("{} does not say where the training stood: {error}", path.display()),
                format!("delete {} to begin again", dir.display()),
            )
        };
        let progress = match fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice::<Progress>(&bytes).map_err(|error| corrupt(&error))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(corrupt(&error)),
        };
        if let Some(progress) = progress.as_ref().filter(|progress| progress.version != VERSION) {
            return Err(corrupt(&format!("version {} is not {VERSION}", progress.version)));
        }
        let names = progress.as_ref().map(|progress| progress.runs.clone()).unwrap_or_default();
        for entry in fs::read_dir(dir).map_err(|error| TokenizerError::unwritable(dir, &error))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("words-") && !names.contains(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
        for name in &names {
            WordsReader::verify(&dir.join(name))?;
        }
        let next = names.iter().filter_map(|name| number_of(name)).max().map_or(0, |last| last + 1);
        Ok((Self { dir: dir.into(), lock: None, made: true, names, replaced: Vec::new(), next }, progress))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Writes `words` as another run.
    pub(super) fn add(&mut self, words: Vec<Words>, about: &About) -> Result<(), TokenizerError> {
        self.write(words, about)?;
        if self.names.len() > MOST_RUNS {
            let old = std::mem::take(&mut self.names);
            let words = self.readers_of(&old)?;
            self.write(words, about)?;
            if self.lock.is_some() {
                self.remove(&old);
            } else {
                self.replaced.extend(old);
            }
        }
        Ok(())
    }

    /// The words of every run.
    pub(super) fn readers(&self) -> Result<Vec<Words>, TokenizerError> {
        self.readers_of(&self.names)
    }

    /// Makes what was added so far what a later training goes on from.
    pub(super) fn commit(&mut self, about: About, position: &str) -> Result<(), TokenizerError> {
        let progress =
            Progress { version: VERSION, about, position: position.into(), runs: self.names.clone() };
        crate::files::write_file(&self.dir, PROGRESS, &crate::files::to_json(&progress)?)?;
        // Names have to be on the disk before what they replace goes.
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| TokenizerError::unwritable(&self.dir, &error))?;
        let replaced = std::mem::take(&mut self.replaced);
        self.remove(&replaced);
        Ok(())
    }

    /// [`add`](Self::add) and [`commit`](Self::commit) of words that stay in memory: the run is for a later training only.
    pub(super) fn commit_held(
        &mut self,
        words: Vec<Words>,
        about: About,
        position: &str,
    ) -> Result<(), TokenizerError> {
        self.write(words, &about)?;
        let committed = self.commit(about, position);
        self.names.pop();
        committed
    }

    fn write(&mut self, words: Vec<Words>, about: &About) -> Result<(), TokenizerError> {
        self.make()?;
        let name = format!("words-{:06}.bin", self.next);
        self.next += 1;
        let mut writer = WordsWriter::create(&self.dir.join(&name), about)?;
        merge(words, |word, count| writer.push(word, count))?;
        writer.finish()?;
        self.names.push(name);
        Ok(())
    }

    fn readers_of(&self, names: &[String]) -> Result<Vec<Words>, TokenizerError> {
        names.iter().map(|name| Ok(Words::File(Box::new(WordsReader::open(&self.dir.join(name))?)))).collect()
    }

    fn remove(&self, names: &[String]) {
        for name in names {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// Makes the directory, and removes those that killed trainings left beside it.
    fn make(&mut self) -> Result<(), TokenizerError> {
        if self.made {
            return Ok(());
        }
        if let Some(parent) = self.dir.parent() {
            remove_left_over(parent);
        }
        let locked = fs::create_dir_all(&self.dir).and_then(|()| {
            // It gets its name when it is held, so that nobody takes the directory for left over.
            let unnamed = self.dir.join("lock.part");
            let lock = File::create(&unnamed)?;
            lock.lock()?;
            fs::rename(unnamed, self.dir.join(LOCK))?;
            Ok(lock)
        });
        self.lock = Some(locked.map_err(|error| TokenizerError::unwritable(&self.dir, &error))?);
        self.made = true;
        Ok(())
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        if self.lock.is_some() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("words-")?.strip_suffix(".bin")?.parse().ok()
}

/// Removes the temporary directories that nobody holds the lock of.
fn remove_left_over(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY)
            && let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
