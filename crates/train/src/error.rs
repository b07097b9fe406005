use candlewick_feed::FeedError;
use candlewick_model::ModelError;
use std::borrow::Cow;

/// Why training cannot go on, in words that a user can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TrainError {
    /// Stable code: `CONFIG_INVALID`, `DIVERGED`, `CHECKPOINT_CORRUPT`, `DISK_FULL`, `NOT_WRITABLE`,
    /// `OUT_OF_MEMORY_HOST`, `TOKENIZER_MISMATCH`, `INTERNAL` for a bug of ours, or one of the stream's.
    pub code: Cow<'static, str>,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl TrainError {
    /// An error with its three parts.
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { code: code.into(), message: message.into(), hint: hint.into() }
    }

    pub(crate) fn config(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new("CONFIG_INVALID", message, hint)
    }

    pub(crate) fn diverged(what: &str, step: u64, times: u64) -> Self {
        let message = match times {
            1 => format!("the {what} of step {step} is not a finite number"),
            _ => format!(
                "the {what} of step {step} was not a finite number {times} times in a row, each time with other data"
            ),
        };
        Self::new(
            "DIVERGED",
            message,
            "go on from an older checkpoint, or train with a lower optimizer.lr or a longer schedule.warmup_steps",
        )
    }
}

impl From<ModelError> for TrainError {
    fn from(ModelError { code, message, hint }: ModelError) -> Self {
        Self::new(code, message, hint)
    }
}

impl From<FeedError> for TrainError {
    fn from(FeedError { code, message, hint }: FeedError) -> Self {
        Self::new(code, message, hint)
    }
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        ModelError::from(error).into()
    }
}
