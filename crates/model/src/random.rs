/// A counter-based generator: value `i` of a stream depends on the key and `i` alone.
///
/// The mixing function is SplitMix64's (Steele, Lea, Flood 2014). Only integer operations and the exactly
/// rounded `+ - * /` and `sqrt` are used, so a seed means the same numbers on every platform; the `ln` of the
/// system's mathematical library is avoided for that reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    key: u64,
    counter: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream called `name` of `seed`; streams of different names are independent.
    pub fn stream(seed: u64, name: &str) -> Self {
        // FNV-1a: names are few and short, and the mix that follows spreads them.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, byte| {
            (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { key: mix(mix(seed).wrapping_add(GOLDEN) ^ hash), counter: 0 }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Marsaglia's polar method (1964).
    pub fn normal(&mut self) -> f64 {
        loop {
            let u = 2.0 * self.uniform() - 1.0;
            let v = 2.0 * self.uniform() - 1.0;
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                // The second value, v · …, is dropped: a stream then needs no state but its counter.
                return u * (-2.0 * portable_ln(s) / s).sqrt();
            }
        }
    }
}

/// ln x for finite x > 0, the same bits everywhere.
///
/// x = m · 2ᵉ with m in [√½, √2), and ln m = 2 artanh((m−1)/(m+1)), whose series has |z| ≤ 0.172.
fn portable_ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let zz = z * z;
    let mut sum = 0.0;
    for k in (0..12).rev() {
        sum = sum * zz + 1.0 / (2 * k + 1) as f64;
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * z * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_accurate() {
        let mut random = Random::stream(1, "ln");
        for _ in 0..10_000 {
            let x = random.uniform() + 1e-12;
            assert!((portable_ln(x) - x.ln()).abs() <= 1e-14 * (1.0 + x.ln().abs()), "{x}");
        }
    }

    #[test]
    fn a_seed_means_these_numbers_on_every_platform() {
        let mut random = Random::stream(1, "model.embed_tokens.weight");
        let drawn: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(drawn, PINNED_BITS);
        let drawn: Vec<u64> = (0..3).map(|_| random.normal().to_bits()).collect();
        assert_eq!(drawn, PINNED_NORMALS);
    }

    const PINNED_BITS: [u64; 3] = [9573980712630484588, 11721049948782592921, 1776871194965342189];
    const PINNED_NORMALS: [u64; 3] = [13827081632526426593, 4606206848822338142, 4608076241210117296];

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let mut random = Random::stream(7, "moments");
        let n = 200_000;
        let drawn: Vec<f64> = (0..n).map(|_| random.normal()).collect();
        let mean = drawn.iter().sum::<f64>() / n as f64;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let fourth = drawn.iter().map(|x| (x - mean).powi(4)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
        assert!((fourth - 3.0).abs() < 0.1, "{fourth}");
    }
}
