use super::*;
use crate::Random;

/// Values of `[length, width]` with gaps of 3 between rows.
fn random(random: &mut Random, length: usize, width: usize) -> Vec<f32> {
    (0..length * (width + 3)).map(|_| random.normal() as f32).collect()
}

fn matrix(values: &[f32], length: usize, width: usize) -> Matrix<'_> {
    Matrix::strided(values, length, width, width + 3)
}

/// The formulas in f64: O, L, dQ, dK, dV row by row.
fn exact(head: Head<'_>, grad: Matrix<'_>) -> [Vec<f64>; 5] {
    let (length, width) = (head.q.rows, head.q.columns);
    let scale = f64::from(head.scale);
    let value = |x: Matrix<'_>, t: usize, d: usize| f64::from(x.row(t)[d]);
    let dot = |x: Matrix<'_>, t: usize, y: Matrix<'_>, s: usize| -> f64 {
        (0..width).map(|d| value(x, t, d) * value(y, s, d)).sum()
    };
    let [mut out, mut dq, mut dk, mut dv] = [(); 4].map(|()| vec![0.0; length * width]);
    let mut log_sums = vec![0.0; length];
    for t in 0..length {
        let scores: Vec<f64> = (0..=t).map(|s| scale * dot(head.q, t, head.k, s)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        log_sums[t] = max + scores.iter().map(|score| (score - max).exp()).sum::<f64>().ln();
        let p: Vec<f64> = scores.iter().map(|score| (score - log_sums[t]).exp()).collect();
        for (s, p) in p.iter().enumerate() {
            for d in 0..width {
                out[t * width + d] += p * value(head.v, s, d);
            }
        }
        let delta: f64 = (0..width).map(|d| value(grad, t, d) * out[t * width + d]).sum();
        for (s, p) in p.iter().enumerate() {
            let ds = scale * p * (dot(grad, t, head.v, s) - delta);
            for d in 0..width {
                dq[t * width + d] += ds * value(head.k, s, d);
                dk[s * width + d] += ds * value(head.q, t, d);
                dv[s * width + d] += p * value(grad, t, d);
            }
        }
    }
    [out, log_sums, dq, dk, dv]
}

/// ‖x − exact‖ ≤ 1e-5 · ‖exact‖ + 2e-5: sums of hundreds of products in f32 stay a few times 6e-8 · √(their number) from
/// it, and where one or two tokens see each other the gradients are differences of nearly equal numbers of about 10.
fn assert_near(name: &str, x: &[f32], exact: &[f64], width: usize) {
    let rows = x.chunks(width + 3).flat_map(|row| &row[..width]);
    let error = rows.zip(exact).map(|(x, exact)| (f64::from(*x) - exact).powi(2)).sum::<f64>().sqrt();
    let norm = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!(error <= 1e-5 * norm + 2e-5, "{name}: {error:e} of {norm}");
}

#[test]
fn every_length_and_width_agrees_with_the_formulas_in_f64() {
    let seed = 21;
    println!("seed {seed}");
    let mut source = Random::stream(seed, "attention");
    for length in [1, 2, 5, 6, 7, 31, 32, 33, 64, 97, 128, 131, 260] {
        for width in [2, 8, 24, 32, 64, 96, 128] {
            println!("{length} tokens, {width} wide");
            let [q, k, v, grad] = [(); 4].map(|()| random(&mut source, length, width));
            let [q_td, k_sd, v_sd, do_td] = [&q, &k, &v, &grad].map(|x| matrix(x, length, width));
            let head = Head { q: q_td, k: k_sd, v: v_sd, scale: 1.0 / (width as f32).sqrt() };
            let [out_exact, log_sums_exact, dq_exact, dk_exact, dv_exact] = exact(head, do_td);

            let stride = width + 3;
            // Whatever was in the scratch memory must not matter.
            let mut scratch = vec![f32::NAN; forward_len(length, width)];
            let (mut out, mut log_sums) = (vec![7.0; length * stride], vec![0.0; length]);
            forward(MatrixMut::strided(&mut out, length, width, stride), &mut log_sums, head, &mut scratch);
            assert_near("O", &out, &out_exact, width);
            for (log_sum, exact) in log_sums.iter().zip(&log_sums_exact) {
                assert!((f64::from(*log_sum) - exact).abs() < 1e-5, "{log_sum} for {exact}");
            }
            assert!(out.chunks(stride).all(|row| row[width..] == [7.0; 3]), "between the rows");

            let output =
                OutputGradient { out: matrix(&out, length, width), grad: do_td, log_sums: &log_sums };
            let mut scratch = vec![f32::NAN; backward_len(length, width)];
            let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0f32; length * stride]);
            for accumulate in [false, true] {
                let [q, k, v] =
                    [&mut dq, &mut dk, &mut dv].map(|x| MatrixMut::strided(x, length, width, stride));
                backward(HeadGradient { q, k, v, accumulate }, output, head, &mut scratch);
            }
            // The second time dK and dV were added to what the first one left.
            let twice = |x: Vec<f64>| x.into_iter().map(|x| 2.0 * x).collect::<Vec<_>>();
            assert_near("dQ", &dq, &dq_exact, width);
            assert_near("dK", &dk, &twice(dk_exact), width);
            assert_near("dV", &dv, &twice(dv_exact), width);
        }
    }
}
