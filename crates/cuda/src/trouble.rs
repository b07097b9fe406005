use serde::Serialize;

/// Why a GPU cannot be used, or no longer, in words that a user can act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// `CUDA_UNAVAILABLE`, `CUDA_DRIVER_TOO_OLD`, `OUT_OF_MEMORY_DEVICE`, or `INTERNAL` for a bug of ours.
    pub code: &'static str,
    /// What is missing, or what failed.
    pub message: String,
    /// What to do.
    pub hint: String,
}
