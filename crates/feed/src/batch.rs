/// The target that counts for nothing: it fills the last batch of a finite stream.
pub const IGNORED: u32 = 0xFFFF_FFFF;

/// Rows of token ids cut from the stream, row-major `rows × sequence_length`.
///
/// `targets[i]` is the token that follows `inputs[i]` in the stream, or [`IGNORED`] past the end of a finite one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids that the model reads.
    pub inputs: Vec<u32>,
    /// Token ids that the model is to predict.
    pub targets: Vec<u32>,
    /// Number of sequences.
    pub rows: usize,
    /// Tokens a sequence.
    pub sequence_length: usize,
    /// Targets that are not [`IGNORED`].
    pub counted: u64,
}
