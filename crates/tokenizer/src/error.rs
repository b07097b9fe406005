//! The one error of this crate: what happened, a stable code, and what to do next.

use std::fmt;
use std::io;
use std::path::Path;

/// A failure a user can meet, with the project's stable code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerError {
    /// Stable code: `TOKENIZER_INVALID`, `TOKENIZER_MISMATCH`, `VOCAB_TOO_LARGE`, `CONFIG_INVALID`, `ABORTED`,
    /// `NOT_WRITABLE`, `DISK_FULL`, `OUT_OF_MEMORY_HOST`, `CHECKPOINT_CORRUPT` or `RESUME_MISMATCH`.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl TokenizerError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new("TOKENIZER_INVALID", message, hint)
    }

    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::invalid(
            format!("cannot read {}: {error}", path.display()),
            "give a directory that holds a tokenizer.json, or the path of such a file",
        )
    }

    pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot write {}: {error}", path.display());
        if error.kind() == io::ErrorKind::StorageFull {
            Self::new("DISK_FULL", message, "free some space, or choose an output directory on another disk")
        } else {
            Self::new("NOT_WRITABLE", message, "choose an output directory that this user may write to")
        }
    }
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for TokenizerError {}
