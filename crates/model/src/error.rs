use std::{io, path::Path};

/// What went wrong with a model, in words that a user can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// Stable code: `CONFIG_INVALID`, `CHECKPOINT_CORRUPT`, `DISK_FULL`, `NOT_WRITABLE`, `OUT_OF_MEMORY_HOST`,
    /// or `INTERNAL` for a bug of ours.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl ModelError {
    /// An error with its three parts.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }

    pub(crate) fn config(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new("CONFIG_INVALID", message, hint)
    }

    pub(crate) fn corrupt(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::new(
            "CHECKPOINT_CORRUPT",
            format!("{} cannot be used: {what}", path.display()),
            "use an older checkpoint, or copy the directory again from where it came",
        )
    }

    /// A failed read or write of `path`; a full disk and a missing permission have codes of their own.
    pub fn from_io(error: &io::Error, action: &str, path: &Path) -> Self {
        let message = format!("cannot {action} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(
                "DISK_FULL",
                message,
                "free some space or choose another --output, then run the command again",
            ),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::new(
                "NOT_WRITABLE",
                message,
                "check the permissions of the directory or choose another --output",
            ),
            io::ErrorKind::OutOfMemory => {
                Self::new("OUT_OF_MEMORY_HOST", message, "close other programs or use a smaller model")
            }
            _ if action == "read" => Self::new(
                "CHECKPOINT_CORRUPT",
                message,
                "check that the path is a model directory and is complete",
            ),
            _ => Self::new("NOT_WRITABLE", message, "check the directory or choose another --output"),
        }
    }
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        // As the driver spells it; candle has no error of its own for it.
        if error.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY") {
            return Self::new(
                "OUT_OF_MEMORY_DEVICE",
                "the GPU has no memory left for the model in f32 and what it reads",
                "use --device cpu, or end what else is on the GPU (nvidia-smi names it)",
            );
        }
        Self::new(
            "INTERNAL",
            format!("a tensor operation failed: {error}"),
            "this is a bug of candlewick; please report it with the command you ran",
        )
    }
}
