//! Rotary position embedding (Su et al. 2021) in the rotate-half convention of Hugging Face's models.

use super::vector::vectorized;
use rayon::prelude::*;

/// cos and sin of position · θ^(−2i/D), each `[positions, D/2]`.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RotaryTable {
    /// The table for `positions` positions of heads of `head_dim` values.
    ///
    /// Frequencies and angles are rounded to f32 where `transformers` rounds them, so that long contexts agree.
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1.0 / theta.powf((2 * i) as f64 / head_dim as f64) as f32).collect();
        let angles = || (0..positions).flat_map(|t| frequencies.iter().map(move |f| t as f32 * f));
        Self { cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect(), half }
    }

    /// cos, `[positions, D/2]`.
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// sin, `[positions, D/2]`.
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Number of positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half
    }
}

/// With h = D/2: x[i] ← x[i]·cos − x[i+h]·sin, x[i+h] ← x[i+h]·cos + x[i]·sin, for i < h.
///
/// `x` `[B, T, H, D]`, in place. The rotation is orthogonal, so its backward is the rotation by the opposite
/// angle: call it on the gradient with `backward` set.
///
/// # Panics
/// When the sizes do not agree or T exceeds the table.
pub fn rotate(x: &mut [f32], table: &RotaryTable, length: usize, heads: usize, backward: bool) {
    let (half, width) = (table.half, heads * table.half * 2);
    assert!(x.len().is_multiple_of(length * width) && length <= table.positions());
    let sign = if backward { -1.0 } else { 1.0 };
    let tokens = (8_192 / width).max(1);
    x.par_chunks_mut(tokens * width).enumerate().for_each(|(task, x)| {
        vectorized(
            #[inline(always)]
            || {
                for (at, x) in x.chunks_exact_mut(width).enumerate() {
                    let position = (task * tokens + at) % length;
                    let cos = &table.cos[position * half..][..half];
                    let sin = &table.sin[position * half..][..half];
                    for x in x.chunks_exact_mut(2 * half) {
                        let (low, high) = x.split_at_mut(half);
                        for i in 0..half {
                            let (a, b, s) = (low[i], high[i], sign * sin[i]);
                            low[i] = a * cos[i] - b * s;
                            high[i] = b * cos[i] + a * s;
                        }
                    }
                }
            },
        )
    });
}
