//! Cross-entropy of rows of logits, which become their own gradients.

use super::vector;
use rayon::prelude::*;

/// The target that counts for nothing.
pub const IGNORED_TARGET: u32 = 0xFFFF_FFFF;

/// Rows of logits a task takes.
const ROWS: usize = 8;

/// What becomes of the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropyGradient {
    /// Factor: one over the number of counted targets makes it the gradient of the mean.
    pub scale: f32,
    /// Weight of l² a counted token, l = ln Σ exp z (the z-loss of Chowdhery et al. 2022), which keeps logits near 0.
    pub z_loss: f32,
}

/// A token: l − z_target with l = ln Σᵥ exp(zᵥ), in nats; 0 for a target that does not count.
///
/// `logits` `[tokens, V]`, `losses` `[tokens]`. With p = softmax(z), the logits become
/// scale · (p · (1 + 2 · z_loss · l) − 1\[v = target\]); without a gradient their values are undefined afterwards.
///
/// # Panics
/// When a target is neither below V nor [`IGNORED_TARGET`].
pub fn cross_entropy(
    losses: &mut [f32],
    logits: &mut [f32],
    targets: &[u32],
    vocabulary: usize,
    gradient: Option<CrossEntropyGradient>,
) {
    assert!(losses.len() == targets.len() && logits.len() == targets.len() * vocabulary);
    logits
        .par_chunks_mut(ROWS * vocabulary)
        .zip(targets.par_chunks(ROWS))
        .zip(losses.par_chunks_mut(ROWS))
        .for_each(|((logits, targets), losses)| {
            vector::vectorized(
                #[inline(always)]
                || {
                    let rows = logits.chunks_exact_mut(vocabulary).zip(targets);
                    for ((logits, &target), loss) in rows.zip(losses) {
                        *loss = row(logits, target, gradient);
                    }
                },
            );
        });
}

#[inline(always)]
fn row(logits: &mut [f32], target: u32, gradient: Option<CrossEntropyGradient>) -> f32 {
    if target == IGNORED_TARGET {
        logits.fill(0.0);
        return 0.0;
    }
    let target = target as usize;
    let (max, correct) = (vector::max(logits), logits[target]);
    for value in logits.iter_mut() {
        *value = vector::exp(*value - max);
    }
    let sum = vector::sum(logits);
    // In f64: the difference of two large numbers may be small.
    let log_sum = f64::from(sum).ln() + f64::from(max);
    if let Some(CrossEntropyGradient { scale, z_loss }) = gradient {
        let factor = scale * (1.0 + 2.0 * z_loss * log_sum as f32) / sum;
        for value in logits.iter_mut() {
            *value *= factor;
        }
        logits[target] -= scale;
    }
    (log_sum - f64::from(correct)) as f32
}
