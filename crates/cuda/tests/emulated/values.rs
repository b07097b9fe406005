//! Random values, and how far apart two of them may be.

use candlewick_model::Random;
use half::bf16;

/// Of every random value here, and of the order of threads.
pub(crate) const SEED: u64 = 20_261_124;

/// Largest relative error, in the Euclidean norm, of values that are rounded to bf16 once: 2⁻⁹ for each of them, and
/// some for sums in another order.
pub(crate) const ROUNDED_ONCE: f64 = 2.2e-3;

/// The same of f32 that other functions and other orders of sums make: some units of 2⁻²⁴.
pub(crate) const SINGLE: f64 = 2e-6;

pub(crate) fn rounded(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// `n` normal values that bf16 can represent; `name` makes them different from others.
pub(crate) fn normal(name: &str, n: usize) -> Vec<f32> {
    let mut random = Random::stream(SEED, name);
    (0..n).map(|_| rounded(random.normal() as f32)).collect()
}

/// Weights of a norm: around one.
pub(crate) fn around_one(name: &str, n: usize) -> Vec<f32> {
    normal(name, n).into_iter().map(|x| rounded(1.0 + 0.25 * x)).collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// Holds ‖got − expected‖₂ ≤ tolerance · ‖expected‖₂. Values that are not finite fail.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f32], tolerance: f64, what: &str) {
    let size = norm(expected.iter().map(|&x| f64::from(x)));
    assert_close_to(got, expected, tolerance * size, what);
}

/// Holds ‖got − expected‖₂ ≤ limit.
#[track_caller]
pub(crate) fn assert_close_to(got: &[f32], expected: &[f32], limit: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let error = norm(got.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let size = norm(expected.iter().map(|&x| f64::from(x)));
    assert!(
        error <= limit,
        "{what}: the error {error:.3e} is more than {limit:.3e}, of {size:.3e} (seed {SEED})"
    );
}
