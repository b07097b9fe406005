use candlewick_feed::FeedError;
use candlewick_model::ModelError;
use candlewick_tokenizer::TokenizerError;
use candlewick_train::TrainError;
use serde::Serialize;

/// An error on its way to JavaScript.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Failure {
    /// A bug of ours.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let hint = "this is a bug of candlewick; please report it with the command you ran";
        Self { code: "INTERNAL".into(), message: message.into(), hint: hint.into() }
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self {
            code: "ABORTED".into(),
            message: format!("{what} was closed"),
            hint: "create another to go on".into(),
        }
    }
}

impl From<FeedError> for Failure {
    fn from(FeedError { code, message, hint }: FeedError) -> Self {
        Self { code, message, hint }
    }
}

impl From<TokenizerError> for Failure {
    fn from(TokenizerError { code, message, hint }: TokenizerError) -> Self {
        Self { code: code.into(), message, hint }
    }
}

impl From<ModelError> for Failure {
    fn from(ModelError { code, message, hint }: ModelError) -> Self {
        Self { code: code.into(), message, hint }
    }
}

impl From<TrainError> for Failure {
    fn from(TrainError { code, message, hint }: TrainError) -> Self {
        Self { code: code.into(), message, hint }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!("the native side did not understand its options: {error}"))
    }
}

impl From<Failure> for napi::Error {
    fn from(failure: Failure) -> Self {
        // Plain strings always serialise.
        napi::Error::from_reason(serde_json::to_string(&failure).unwrap_or(failure.message))
    }
}
