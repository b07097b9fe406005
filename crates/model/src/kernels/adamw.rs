//! AdamW (Loshchilov, Hutter 2019) over flat buffers, and the norm of a flat gradient.

use super::{
    rounding::{RoundingKey, round_to_bf16},
    vector,
};
use half::bf16;
use rayon::prelude::*;

/// Values a task takes, and a partial sum is made of. Fixed, so that the norm does not depend on the number of threads.
const CHUNK: usize = 16_384;

/// The constants of one update.
#[derive(Debug, Clone, Copy)]
pub struct AdamWUpdate {
    /// Learning rate of this step.
    pub lr: f32,
    /// Factor of the decay: 1 − lr · weight_decay.
    pub keep: f32,
    /// β₁ and β₂.
    pub betas: [f32; 2],
    /// ε.
    pub eps: f32,
    /// 1 / (1 − βᵗ), which undo the moments' start at zero.
    pub corrections: [f32; 2],
    /// Factor on the gradient, from clipping.
    pub clip: f32,
    /// For moments in bf16: the bits that round them.
    pub rounding: RoundingKey,
}

/// One of the moments.
#[derive(Debug)]
pub enum Moment<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// Rounded stochastically.
    Bf16(&'a mut [bf16]),
}

/// g ← g · clip; m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w · keep − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε).
///
/// `first` is the number of the first value among all parameters; moments in bf16 are rounded after they were used.
///
/// # Panics
/// When lengths differ, or the moments' types.
pub fn adamw(
    weights: &mut [f32],
    gradient: &[f32],
    moments: (Moment<'_>, Moment<'_>),
    update: &AdamWUpdate,
    first: usize,
) {
    let n = weights.len();
    assert_eq!(gradient.len(), n);
    let tasks = weights.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).enumerate();
    match moments {
        (Moment::F32(m), Moment::F32(v)) => {
            assert!(m.len() == n && v.len() == n);
            let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
            tasks.zip(moments).for_each(|((_, (w, g)), (m, v))| {
                vector::vectorized(
                    #[inline(always)]
                    || {
                        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                            *w = value(*w, g, (m, v), update);
                        }
                    },
                );
            });
        }
        (Moment::Bf16(m), Moment::Bf16(v)) => {
            assert!(m.len() == n && v.len() == n);
            let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
            tasks.zip(moments).for_each(|((task, (w, g)), (m, v))| {
                let index = (first + task * CHUNK) as u64..;
                for ((((w, &g), m), v), index) in w.iter_mut().zip(g).zip(m).zip(v).zip(index) {
                    let (mut m_wide, mut v_wide) = (m.to_f32(), v.to_f32());
                    *w = value(*w, g, (&mut m_wide, &mut v_wide), update);
                    let bits = update.rounding.bits(index);
                    *m = round_to_bf16(m_wide, bits);
                    *v = round_to_bf16(v_wide, bits >> 16);
                }
            });
        }
        _ => panic!("both moments have one type"),
    }
}

#[inline(always)]
fn value(w: f32, g: f32, (m, v): (&mut f32, &mut f32), update: &AdamWUpdate) -> f32 {
    let [b1, b2] = update.betas;
    let g = g * update.clip;
    *m = b1 * *m + (1.0 - b1) * g;
    *v = b2 * *v + (1.0 - b2) * g * g;
    let root = (*v * update.corrections[1]).sqrt() + update.eps;
    w * update.keep - update.lr * (*m * update.corrections[0]) / root
}

/// Partial sums that [`sum_of_squares`] takes for so many values.
pub fn sum_of_squares_len(values: usize) -> usize {
    values.div_ceil(CHUNK)
}

/// Σ x² in f64; not finite when a value is not. `partials` has [`sum_of_squares_len`] values.
pub fn sum_of_squares(values: &[f32], partials: &mut [f64]) -> f64 {
    let partials = &mut partials[..sum_of_squares_len(values.len())];
    partials.par_iter_mut().zip(values.par_chunks(CHUNK)).for_each(|(sum, values)| {
        *sum = vector::vectorized(
            #[inline(always)]
            || vector::sum_of_squares(values),
        );
    });
    partials.iter().sum()
}
