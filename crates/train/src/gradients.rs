use candlewick_model::Parameters;
use rayon::prelude::*;

/// Values a partial sum is made of. Fixed, so that the norm does not depend on the number of threads.
const CHUNK: usize = 16_384;

/// The gradient of a step, summed over its micro-batches: one buffer a parameter, in the parameters' order.
#[derive(Debug)]
pub(crate) struct Gradients {
    buffers: Vec<Vec<f32>>,
}

impl Gradients {
    /// Zeros.
    pub(crate) fn new(parameters: &Parameters) -> Self {
        Self { buffers: parameters.iter().map(|parameter| vec![0.0; parameter.spec.len()]).collect() }
    }

    /// Back to zeros.
    pub(crate) fn clear(&mut self) {
        self.buffers.par_iter_mut().for_each(|buffer| buffer.fill(0.0));
    }

    /// The buffers, for a micro-batch to add to.
    pub(crate) fn buffers_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.buffers
    }

    /// √Σ g² over everything, in f64; not finite when a value is not.
    pub(crate) fn norm(&self) -> f64 {
        let squares = self.buffers.iter().map(|buffer| {
            let parts: Vec<f64> = buffer.par_chunks(CHUNK).map(sum_of_squares).collect();
            parts.into_iter().sum::<f64>()
        });
        squares.sum::<f64>().sqrt()
    }

    /// The buffers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.buffers.iter().map(Vec::as_slice)
    }
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0f64; 8];
    for chunk in chunks {
        for lane in 0..8 {
            lanes[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>()
}
