//! The norm of the gradient and AdamW.

use candlewick_cuda::kernels;

use crate::{
    program::{
        Argument::{Bf16, F32, F64, Float, Int, Long, NewBf16, NewF32, Null, Unsigned},
        Buffer, Machine,
    },
    values::{SEED, SINGLE, assert_close, normal, rounded},
};

const LR: f32 = 1e-2;
const KEEP: f32 = 1.0 - 1e-3;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.95;
const EPS: f32 = 1e-8;

/// Norm, factor of clipping, and whether both norm and loss are finite.
fn norm(machine: &mut Machine, g: &[f32], loss: Option<f64>, limit: f32) -> Vec<f32> {
    let launch = kernels::sum_of_squares(g.len());
    let parts = launch.grid[0] as usize;
    let partials = machine.launch(launch, &[NewF32(parts), F32(g), Long(g.len() as i64)])[0].floats();
    let loss = loss.map(|loss| [loss]);
    let arguments = [
        NewF32(3),
        F32(&partials),
        loss.as_ref().map_or(Null, |loss| F64(loss)),
        Float(limit),
        Int(parts as i32),
    ];
    machine.launch(kernels::finish_norm(), &arguments)[0].floats()
}

#[test]
fn the_norm_and_the_factor_of_clipping() {
    let mut machine = Machine::start();
    for n in [8, 72, 2048, 2056, 10_000] {
        let g = normal("gradient", n);
        let exact = g.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32;
        let limit = 0.25 * exact;
        let got = norm(&mut machine, &g, Some(1.0), limit);
        assert_close(&got, &[exact, limit / (exact + 1e-6), 1.0], SINGLE, "clipped");
        assert_close(&norm(&mut machine, &g, None, 4.0 * exact), &[exact, 1.0, 1.0], SINGLE, "not clipped");
        assert_close(&norm(&mut machine, &g, None, 0.0), &[exact, 1.0, 1.0], SINGLE, "no limit");
    }
}

#[test]
fn what_is_not_finite_is_told() {
    let mut machine = Machine::start();
    let finite = normal("gradient", 2056);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut g = finite.clone();
        g[2051] = bad;
        assert_eq!(norm(&mut machine, &g, Some(1.0), 1.0)[2], 0.0, "{bad}");
        assert_eq!(norm(&mut machine, &finite, Some(f64::from(bad)), 1.0)[2], 0.0, "a loss of {bad}");
    }
}

struct Update {
    master: Vec<f32>,
    moments: [Vec<f32>; 2],
    gradient: Vec<f32>,
    scalars: [f32; 3],
    bf16_moments: bool,
    stochastic: bool,
    lr: f32,
    seed: u64,
}

impl Update {
    fn new(n: usize) -> Self {
        let second = normal("v", n).iter().map(|x| rounded(0.1 + x * x)).collect();
        Self {
            master: normal("w", n),
            moments: [normal("m", n), second],
            gradient: normal("g", n),
            scalars: [3.0, 0.5, 1.0],
            bf16_moments: false,
            stochastic: false,
            lr: LR,
            seed: SEED,
        }
    }

    /// Master weights, weights, and both moments.
    fn launch(&self, machine: &mut Machine) -> Vec<Buffer> {
        let n = self.master.len();
        let moment = |i: usize| {
            if self.bf16_moments { Bf16(&self.moments[i]) } else { F32(&self.moments[i]) }
        };
        let weights = vec![7.0; n];
        let mut got = machine.launch(
            kernels::adamw(n, self.bf16_moments),
            &[
                F32(&self.master),
                Bf16(&weights),
                moment(0),
                moment(1),
                F32(&self.gradient),
                F32(&self.scalars),
                Float(self.lr),
                Float(KEEP),
                Float(BETA1),
                Float(BETA2),
                Float(correction(BETA1)),
                Float(correction(BETA2)),
                Float(EPS),
                Int(i32::from(self.stochastic)),
                Unsigned(self.seed),
                Unsigned(3),
                Long(24),
                Long(n as i64),
            ],
        );
        got.truncate(4);
        got
    }

    /// The definition, in f64.
    fn exactly(&self) -> [Vec<f32>; 3] {
        let [b1, b2] = [BETA1, BETA2].map(f64::from);
        let mut result = [vec![], vec![], vec![]];
        for (i, &g) in self.gradient.iter().enumerate() {
            let g = f64::from(g * self.scalars[1]);
            let m = b1 * f64::from(self.moments[0][i]) + (1.0 - b1) * g;
            let v = b2 * f64::from(self.moments[1][i]) + (1.0 - b2) * g * g;
            let root = (v * f64::from(correction(BETA2))).sqrt() + f64::from(EPS);
            let w = f64::from(self.master[i]) * f64::from(KEEP)
                - f64::from(self.lr) * m * f64::from(correction(BETA1)) / root;
            for (into, value) in result.iter_mut().zip([w, m, v]) {
                into.push(value as f32);
            }
        }
        result
    }
}

/// 1 / (1 − β³), of the third step.
fn correction(beta: f32) -> f32 {
    1.0 / (1.0 - beta.powi(3))
}

#[test]
fn adamw_of_f32_moments() {
    let mut machine = Machine::start();
    for n in [8, 72, 2056] {
        let update = Update::new(n);
        let got = update.launch(&mut machine);
        let [w, m, v] = update.exactly();
        assert_close(&got[0].floats(), &w, SINGLE, "master weights");
        assert_close(&got[2].floats(), &m, SINGLE, "m");
        assert_close(&got[3].floats(), &v, SINGLE, "v");
        let nearest: Vec<f32> = got[0].floats().into_iter().map(rounded).collect();
        assert_eq!(got[1].floats(), nearest, "weights are the master weights rounded to nearest");
    }
}

#[test]
fn adamw_of_bf16_moments_rounds_them_to_a_neighbour() {
    let mut machine = Machine::start();
    let mut update = Update::new(2056);
    update.bf16_moments = true;
    let got = update.launch(&mut machine);
    let [w, m, v] = update.exactly();
    assert_close(&got[0].floats(), &w, SINGLE, "master weights");
    for (got, exact) in [(got[2].floats(), m), (got[3].floats(), v)] {
        for (got, exact) in got.into_iter().zip(exact) {
            // Neighbours in bf16 are 2⁻⁷ apart at most, and what f32 loses before does not matter.
            assert!((got - exact).abs() <= 2f32.powi(-7) * 1.001 * exact.abs(), "{got} {exact}");
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut machine = Machine::start();
    for bf16_moments in [false, true] {
        let mut update = Update::new(72);
        (update.bf16_moments, update.stochastic) = (bf16_moments, true);
        update.gradient[5] = f32::NAN;
        update.scalars = [f32::NAN, 1.0, 0.0];
        let got = update.launch(&mut machine);
        assert_eq!(got[0].floats(), update.master);
        assert_eq!(got[1].floats(), vec![7.0; 72]);
        assert_eq!(got[2].floats(), update.moments[0]);
        assert_eq!(got[3].floats(), update.moments[1]);
    }
}

#[test]
fn stochastic_rounding_is_right_on_average_and_repeats() {
    let mut machine = Machine::start();
    let n = 8192;
    let mut update = Update::new(n);
    // Of the way from 1 to the next bf16, 1 + 2⁻⁷, a quarter.
    let value = 1.0 + 2f32.powi(-9);
    (update.stochastic, update.lr) = (true, 0.0);
    update.master = vec![value / KEEP; n];
    let got = update.launch(&mut machine);
    let weights = got[1].floats();
    let up = weights.iter().filter(|&&w| w == 1.0 + 2f32.powi(-7)).count();
    let down = weights.iter().filter(|&&w| w == 1.0).count();
    assert_eq!(up + down, n);
    // Five standard deviations of a binomial.
    let [expected, deviation] = [n as f64 / 4.0, (n as f64 * 3.0 / 16.0).sqrt()];
    assert!((up as f64 - expected).abs() < 5.0 * deviation, "{up} of {n} went up (seed {SEED})");
    assert_eq!(update.launch(&mut machine)[1], got[1]);
    update.seed += 1;
    assert_ne!(update.launch(&mut machine)[1], got[1]);
}

#[test]
fn loaded_weights_are_rounded_to_nearest() {
    let mut machine = Machine::start();
    let x: Vec<f32> = normal("x", 2056).iter().zip(normal("y", 2056)).map(|(x, y)| x + 1e-3 * y).collect();
    let got = machine.launch(kernels::round_to_bf16(2056), &[NewBf16(2056), F32(&x), Long(2056)]);
    assert_eq!(got[0].floats(), x.into_iter().map(rounded).collect::<Vec<_>>());
}
