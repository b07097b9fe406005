//! The loss and the gradient of logits.

use candlewick_cuda::kernels;
use candlewick_model::kernels::{CrossEntropyGradient, IGNORED_TARGET};

use crate::{
    program::{
        Argument::{Bf16, F32, F64, Float, Int, NewF32, U32},
        Buffer, Machine,
    },
    reference,
    values::{ROUNDED_ONCE, SEED, SINGLE, assert_close, normal},
};

const SHAPES: [(usize, usize); 6] = [(1, 8), (7, 50), (33, 131), (65, 9), (2, 5001), (3, 4096)];

struct Rows {
    vocabulary: usize,
    stride: usize,
    logits: Vec<f32>,
    targets: Vec<u32>,
}

impl Rows {
    fn new(tokens: usize, vocabulary: usize) -> Self {
        let stride = vocabulary.next_multiple_of(8);
        // The padding holds numbers that would be seen in every sum.
        let logits = normal("logits", tokens * stride)
            .chunks_exact(stride)
            .flat_map(|row| row.iter().enumerate().map(|(v, x)| if v < vocabulary { 3.0 * x } else { 1e4 }))
            .map(crate::values::rounded)
            .collect();
        let target = |token: usize| match (token as u64 * 7 + SEED) % 5 {
            0 => IGNORED_TARGET,
            other => ((token * 13 + other as usize) % vocabulary) as u32,
        };
        Self { vocabulary, stride, logits, targets: (0..tokens).map(target).collect() }
    }

    fn launch(&self, machine: &mut Machine, scale: f32, z_loss: f32) -> Vec<Buffer> {
        machine.launch(
            kernels::cross_entropy(self.targets.len()),
            &[
                Bf16(&self.logits),
                U32(&self.targets),
                NewF32(self.targets.len()),
                Float(scale),
                Float(z_loss),
                Int(self.vocabulary as i32),
                Int(self.stride as i32),
            ],
        )
    }

    /// Losses and gradients by the definition, in f64.
    fn exactly(&self, scale: f64, z_loss: f64) -> (Vec<f32>, Vec<f32>) {
        let (mut losses, mut grads) = (Vec::new(), Vec::new());
        for (row, &target) in self.logits.chunks_exact(self.stride).zip(&self.targets) {
            let log_sum = row[..self.vocabulary].iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
            let counts = target != IGNORED_TARGET;
            losses.push(if counts { (log_sum - f64::from(row[target as usize])) as f32 } else { 0.0 });
            grads.extend(row.iter().enumerate().map(|(v, &z)| {
                let p = (f64::from(z) - log_sum).exp() * (1.0 + 2.0 * z_loss * log_sum);
                let hit = f64::from(u8::from(v as u32 == target));
                if counts && v < self.vocabulary { (scale * (p - hit)) as f32 } else { 0.0 }
            }));
        }
        (losses, grads)
    }
}

#[test]
fn losses_and_gradients_of_rows_of_every_kind() {
    let mut machine = Machine::start();
    for (tokens, vocabulary) in SHAPES {
        let rows = Rows::new(tokens, vocabulary);
        for z_loss in [0.0, 1e-2] {
            let got = rows.launch(&mut machine, 0.125, z_loss);
            let (losses, grads) = rows.exactly(0.125, f64::from(z_loss));
            assert_close(&got[0].floats(), &grads, ROUNDED_ONCE, "dlogits");
            // Logits up to 12: f32 has them to 2⁻²¹.
            assert_close(&got[2].floats(), &losses, 4.0 * SINGLE, "losses");
        }
    }
}

#[test]
fn the_cpu_gives_the_same() {
    let mut machine = Machine::start();
    let rows = Rows::new(33, 136);
    for z_loss in [0.0, 1e-2] {
        let gradient = CrossEntropyGradient { scale: 0.125, z_loss };
        let (nats, dx) = reference::cross_entropy(&rows.logits, &rows.targets, 136, gradient);
        let got = rows.launch(&mut machine, 0.125, z_loss);
        assert_close(&got[0].floats(), &dx, ROUNDED_ONCE, "dlogits");
        let losses = got[2].floats();
        let before = 3.0;
        let total = machine
            .launch(kernels::reduce_losses(), &[F64(&[before]), F32(&losses), Int(losses.len() as i32)])[0]
            .doubles()[0];
        assert!((total - before - nats).abs() <= 4.0 * SINGLE * nats, "{total} {nats}");
    }
}

#[test]
fn a_target_outside_of_the_vocabulary_is_not_a_number() {
    let mut machine = Machine::start();
    let mut rows = Rows::new(2, 50);
    // The first is only in the padding.
    rows.targets = vec![50, 7];
    let losses = rows.launch(&mut machine, 1.0, 0.0)[2].floats();
    assert!(losses[0].is_nan() && losses[1].is_finite());
}

#[test]
fn losses_are_summed_in_double_precision() {
    let mut machine = Machine::start();
    for tokens in [1, 33, 5000] {
        let losses: Vec<f32> = normal("losses", tokens).iter().map(|x| x * x).collect();
        let got = machine.launch(kernels::reduce_losses(), &[F64(&[1.0]), F32(&losses), Int(tokens as i32)]);
        let expected = 1.0 + losses.iter().map(|&x| f64::from(x)).sum::<f64>();
        assert!((got[0].doubles()[0] - expected).abs() < 1e-12 * expected);
    }
}
