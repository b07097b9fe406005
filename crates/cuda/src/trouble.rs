use serde::Serialize;

/// Why a GPU cannot be used, in words that a user can act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// `CUDA_UNAVAILABLE` or `CUDA_DRIVER_TOO_OLD`.
    pub code: &'static str,
    /// What is missing, or what failed.
    pub message: String,
    /// What to do.
    pub hint: String,
}
