//! The output matrix and the loss in one, a chunk of tokens at a time, so that the logits of a whole batch never exist.

use super::{Matrix, MatrixMut, multiply, vector};
use rayon::prelude::*;

/// The target that counts for nothing.
pub const IGNORED_TARGET: u32 = 0xFFFF_FFFF;

/// Tokens whose logits exist at a time.
const CHUNK: usize = 256;

/// Rows of logits a task takes.
const ROWS: usize = 8;

/// Where the gradients of the loss go.
#[derive(Debug)]
pub struct HeadGradients<'a> {
    /// Factor on every gradient: one over the number of counted targets makes it the gradient of the mean.
    pub scale: f32,
    /// dx `[tokens, C]`, overwritten.
    pub x: &'a mut [f32],
    /// dW `[V, C]`, added to.
    pub weight: &'a mut [f32],
}

/// Values of logits that exist at a time, for so many tokens.
pub fn logits_len(tokens: usize, vocabulary: usize) -> usize {
    CHUNK.min(tokens) * vocabulary
}

/// Σ over counted tokens of ln Σᵥ exp(zᵥ) − z_target with z = W·x, in nats.
///
/// `x` `[tokens, C]`, `weight` `[V, C]`. With p = softmax(z): dz = scale · (p − 1[v = target]), dx = dz·W,
/// dW += dzᵀ·x. A chunk without counted tokens costs nothing.
///
/// # Panics
/// When a target is neither below V nor [`IGNORED_TARGET`].
pub fn head_cross_entropy(
    x: &[f32],
    weight: &[f32],
    targets: &[u32],
    width: usize,
    mut gradients: Option<HeadGradients<'_>>,
) -> f64 {
    let vocabulary = weight.len() / width;
    assert!(x.len() == targets.len() * width && weight.len() == vocabulary * width);
    let weight_vc = Matrix::new(weight, vocabulary, width);
    let scale = gradients.as_ref().map_or(0.0, |gradients| gradients.scale);
    let mut logits = vec![0.0; logits_len(targets.len(), vocabulary)];
    let mut nats = 0.0;
    for (at, targets) in targets.chunks(CHUNK).enumerate() {
        let tokens = targets.len();
        let range = at * CHUNK * width..(at * CHUNK + tokens) * width;
        if targets.iter().all(|&target| target == IGNORED_TARGET) {
            if let Some(gradients) = &mut gradients {
                gradients.x[range].fill(0.0);
            }
            continue;
        }
        let x_tc = Matrix::new(&x[range.clone()], tokens, width);
        let logits = &mut logits[..tokens * vocabulary];
        multiply(MatrixMut::new(logits, tokens, vocabulary), x_tc, weight_vc.transposed(), 1.0, false, true);
        let losses: Vec<f64> = logits
            .par_chunks_mut(ROWS * vocabulary)
            .zip(targets.par_chunks(ROWS))
            .map(|(logits, targets)| {
                let mut nats = 0.0;
                vector::vectorized(
                    #[inline(always)]
                    || {
                        // A loop, not a fold: the iterator's own fold would be compiled without the wide registers.
                        for (logits, &target) in logits.chunks_exact_mut(vocabulary).zip(targets) {
                            nats += row(logits, target, scale);
                        }
                    },
                );
                nats
            })
            .collect();
        nats += losses.iter().sum::<f64>();
        if let Some(gradients) = &mut gradients {
            let dz_tv = Matrix::new(logits, tokens, vocabulary);
            multiply(
                MatrixMut::new(&mut gradients.x[range], tokens, width),
                dz_tv,
                weight_vc,
                1.0,
                false,
                true,
            );
            let weight_grad = MatrixMut::new(gradients.weight, vocabulary, width);
            multiply(weight_grad, dz_tv.transposed(), x_tc, 1.0, true, true);
        }
    }
    nats
}

/// The loss of one row; its logits become dz.
#[inline(always)]
fn row(logits: &mut [f32], target: u32, scale: f32) -> f64 {
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
    let factor = scale / sum;
    for value in logits.iter_mut() {
        *value *= factor;
    }
    logits[target] -= scale;
    f64::from(sum).ln() + f64::from(max) - f64::from(correct)
}
