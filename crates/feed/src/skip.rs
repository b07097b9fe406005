use crate::{FeedError, StreamState};

/// Which global batches of a stream are left out. Batches are numbered from 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Skips(Vec<[u64; 2]>);

impl Skips {
    /// `CONFIG_INVALID` for a range that names no batch.
    pub(crate) fn new(ranges: &[[u64; 2]]) -> Result<Self, FeedError> {
        if let Some([first, last]) = ranges.iter().find(|[first, last]| *first == 0 || first > last) {
            return Err(FeedError::new(
                "CONFIG_INVALID",
                format!("skip_steps {first}:{last} names no batch"),
                "give A:B with 1 <= A <= B; both ends are left out",
            ));
        }
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        let mut skips = Self::default();
        for [first, last] in sorted {
            skips.add(first, last);
        }
        Ok(skips)
    }

    pub(crate) fn contains(&self, batch: u64) -> bool {
        let after = self.0.partition_point(|[first, _]| *first <= batch);
        after > 0 && batch <= self.0[after - 1][1]
    }

    /// Whether going on from `state` would leave out just what was left out before it.
    ///
    /// # Errors
    /// `RESUME_MISMATCH` naming a range that was trained on, or was left out and is missing.
    pub(crate) fn check(&self, state: &StreamState) -> Result<(), FeedError> {
        let before = Self::new(&state.skipped)?;
        let now = self.until(state.batches);
        if let Some([first, last]) = now.first_without(&before) {
            return Err(FeedError::new(
                "RESUME_MISMATCH",
                format!(
                    "--skip-steps names batches {first}:{last}, but the run has trained on them: it stands after \
                     batch {}",
                    state.batches
                ),
                format!(
                    "leave out batches from {} on, or resume from a checkpoint before batch {first} (--resume DIR)",
                    state.batches + 1
                ),
            ));
        }
        if let Some([first, last]) = before.first_without(&now) {
            return Err(FeedError::new(
                "RESUME_MISMATCH",
                format!("the run left out batches {first}:{last}, but --skip-steps does not name them now"),
                format!("add --skip-steps {first}:{last}, or resume from a checkpoint before batch {first}"),
            ));
        }
        Ok(())
    }

    /// Those up to and including `batch`.
    fn until(&self, batch: u64) -> Self {
        let ranges = self.0.iter().filter(|[first, _]| *first <= batch);
        Self(ranges.map(|&[first, last]| [first, last.min(batch)]).collect())
    }

    /// The first range of batches that are in this and not in `other`.
    fn first_without(&self, other: &Self) -> Option<[u64; 2]> {
        for &[first, last] in &self.0 {
            let mut from = first;
            for &[a, b] in &other.0 {
                if a > last {
                    break;
                }
                if a > from {
                    return Some([from, a - 1]);
                }
                from = from.max(b + 1);
            }
            if from <= last {
                return Some([from, last]);
            }
        }
        None
    }

    fn add(&mut self, first: u64, last: u64) {
        match self.0.last_mut() {
            Some([_, end]) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => self.0.push([first, last]),
        }
    }
}

/// Adds a batch to ranges that end before it.
pub(crate) fn add_batch(ranges: &mut Vec<[u64; 2]>, batch: u64) {
    match ranges.last_mut() {
        Some([_, end]) if *end + 1 == batch => *end = batch,
        _ => ranges.push([batch, batch]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_compared_by_the_batches_in_them() {
        let skips = Skips::new(&[[8, 9], [2, 3], [4, 5], [3, 4]]).unwrap();
        assert_eq!(skips.0, [[2, 5], [8, 9]]);
        let inside: Vec<u64> = (0..12).filter(|&n| skips.contains(n)).collect();
        assert_eq!(inside, [2, 3, 4, 5, 8, 9]);
        assert_eq!(skips.until(8).0, [[2, 5], [8, 8]]);
        let first =
            |a: &[[u64; 2]], b: &[[u64; 2]]| Skips::new(a).unwrap().first_without(&Skips::new(b).unwrap());
        assert_eq!(first(&[[2, 5]], &[[2, 5]]), None);
        assert_eq!(first(&[[2, 9]], &[[4, 5]]), Some([2, 3]));
        assert_eq!(first(&[[4, 9]], &[[1, 5], [7, 8]]), Some([6, 6]));
        assert_eq!(first(&[[4, 9]], &[[1, 8]]), Some([9, 9]));
        for range in [[0, 3], [4, 3]] {
            assert_eq!(Skips::new(&[range]).unwrap_err().code, "CONFIG_INVALID");
        }
    }
}
