//! Stochastic rounding to bf16: right on average, where rounding to the nearest would lose every small change.

use crate::Random;
use half::bf16;

/// What the bits of one update are made from; a step of a seed has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundingKey(u64);

impl RoundingKey {
    /// The key of update number `step`.
    pub fn new(seed: u64, step: u64) -> Self {
        Self(Random::stream(seed, &format!("stochastic rounding {step}")).bits())
    }

    /// The key's 64 bits, for a device that computes [`RoundingKey::bits`] by itself.
    pub fn value(self) -> u64 {
        self.0
    }

    /// 32 random bits for value number `index`, from the key and the index alone: two multiplications between shifts, as
    /// in the finalizers of hash functions, so that a device needs no state.
    #[inline(always)]
    pub fn bits(self, index: u64) -> u32 {
        let (low, high) = (self.0 as u32, (self.0 >> 32) as u32);
        let mut x = (index as u32) ^ low ^ ((index >> 32) as u32).wrapping_mul(0x9e37_79b9);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d) ^ high;
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x ^ (x >> 16)
    }
}

/// `value` rounded to one of the two bf16 around it: up, away from zero, with the probability of how far it lies on the
/// way, if the lower 16 bits of `random` are uniform. What bf16 holds exactly stays, and so does what is not finite.
///
/// bf16 is the upper half of an f32: adding 16 random bits to the lower half carries just as often as that half is large.
#[inline(always)]
pub fn round_to_bf16(value: f32, random: u32) -> bf16 {
    let bits = value.to_bits();
    // A carry may turn the largest values into infinity; they are no moments and no weights.
    let rounded = bits.wrapping_add(random & 0xffff);
    if value.is_finite() { bf16::from_bits((rounded >> 16) as u16) } else { bf16::from_f32(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 20_261_124;

    #[test]
    fn the_mean_of_many_roundings_is_the_value() {
        let mut random = Random::stream(SEED, "values");
        for trial in 0..40 {
            let value = (random.normal() * 10f64.powf(4.0 * random.normal())) as f32;
            let key = RoundingKey::new(SEED, trial);
            let n = 20_000;
            let mean =
                (0..n).map(|i| f64::from(round_to_bf16(value, key.bits(i)).to_f32())).sum::<f64>() / n as f64;
            // Between neighbours a distance apart, a rounding has a standard deviation of at most half of it: five of
            // the mean's are 5 · 0.5 / √20,000 of the distance.
            let below = f32::from_bits(value.to_bits() & 0xffff_0000);
            let distance =
                f64::from(f32::from_bits((value.to_bits() & 0xffff_0000) + 0x1_0000) - below).abs();
            let error = (mean - f64::from(value)).abs();
            assert!(error < 0.0177 * distance, "{value:e}: {error:e} of {distance:e}, seed {SEED}, {trial}");
        }
    }

    #[test]
    fn only_the_two_neighbours_come_and_exact_values_stay() {
        let key = RoundingKey::new(SEED, 1);
        for (value, low, high) in [(1.001f32, 1.0f32, 1.007_812_5f32), (-1.001, -1.0, -1.007_812_5)] {
            let rounded: Vec<f32> = (0..1000).map(|i| round_to_bf16(value, key.bits(i)).to_f32()).collect();
            assert!(rounded.iter().all(|&x| x == low || x == high));
            assert!(rounded.contains(&low) && rounded.contains(&high));
        }
        for exact in [0.0, 1.0, -2.5, 1e-38, f32::INFINITY] {
            let exact = bf16::from_f32(exact);
            assert!((0..100).all(|i| round_to_bf16(exact.to_f32(), key.bits(i)) == exact));
        }
        assert!(round_to_bf16(f32::NAN, 0xffff).to_f32().is_nan());
    }

    #[test]
    fn bits_depend_on_seed_step_and_index_and_are_balanced() {
        let key = RoundingKey::new(SEED, 1);
        assert_eq!(key.bits(7), RoundingKey::new(SEED, 1).bits(7));
        for other in [RoundingKey::new(SEED, 2), RoundingKey::new(SEED + 1, 1)] {
            let equal = (0..10_000).filter(|&i| key.bits(i) & 0xff == other.bits(i) & 0xff).count();
            // 39 are expected of 10,000, with a standard deviation of 6.2.
            assert!(equal < 75, "{equal}");
        }
        assert_ne!(key.bits(5), key.bits(5 + (1 << 32)));
        for bit in 0..32 {
            let ones = (0..10_000u64).filter(|&i| key.bits(i) >> bit & 1 == 1).count();
            // Five standard deviations of 50.
            assert!(ones.abs_diff(5_000) < 250, "bit {bit}: {ones}");
        }
    }
}
