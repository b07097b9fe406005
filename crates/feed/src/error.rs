use std::fmt;

use candlewick_tokenizer::TokenizerError;

/// A failure of the stream, with a stable code (`interface` of the project), what happened, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FeedError {
    /// Stable code, e.g. `PROTOCOL_VIOLATION`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl FeedError {
    /// An error with its code, message and hint.
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: hint.into() }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(
            "PROTOCOL_VIOLATION",
            message,
            "the streamer and this version of candlewick do not match, or something wrote into its pipe; \
             reinstall candlewick, and report this if it comes again",
        )
    }

    /// A thread ended without saying why: it panicked, which is reported where it happened.
    pub(crate) fn lost_thread() -> Self {
        Self::new(
            "INTERNAL",
            "a thread of the stream ended unexpectedly",
            "this is a bug of candlewick; please report it with what was printed above",
        )
    }

    /// The feed was closed while somebody waited on it.
    pub(crate) fn closed() -> Self {
        Self::new("ABORTED", "the stream was closed", "nothing to do: it was closed on purpose")
    }
}

impl From<TokenizerError> for FeedError {
    fn from(TokenizerError { code, message, hint }: TokenizerError) -> Self {
        Self { code: code.into(), message, hint }
    }
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
