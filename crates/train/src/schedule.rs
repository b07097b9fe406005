use crate::TrainError;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from 1 to the final ratio.
    Cosine,
    /// Warm-up, stable, decay: 1 until the last `decay_ratio`, then a line to the final ratio.
    Wsd,
    /// A line from 1 to the final ratio.
    Linear,
    /// 1.
    Constant,
}

/// The learning rate as a share of its base, by step and progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The shape of the decay.
    #[serde(alias = "name")]
    pub kind: ScheduleKind,
    /// Steps over which the rate rises from base / `warmup_steps` to its base.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Share of the base left at the end.
    #[serde(default)]
    pub final_lr_ratio: f64,
    /// Share of the run that `wsd` decays over.
    #[serde(default = "default_decay_ratio")]
    pub decay_ratio: f64,
}

fn default_decay_ratio() -> f64 {
    0.2
}

impl Schedule {
    /// Checks the ratios.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the key.
    pub fn validate(&self) -> Result<(), TrainError> {
        for (name, value, low) in [
            ("final_lr_ratio", self.final_lr_ratio, 0.0),
            ("decay_ratio", self.decay_ratio, f64::MIN_POSITIVE),
        ] {
            if !(value >= low && value <= 1.0) {
                return Err(TrainError::config(
                    format!("schedule.{name} is {value}"),
                    format!("set schedule.{name} to a share between 0 and 1"),
                ));
            }
        }
        Ok(())
    }

    /// min(1, (step + 1) / warm-up) · decay(progress), for the update after `steps` completed ones.
    ///
    /// With p = `progress` in [0, 1] and f the final ratio, decay is: cosine f + (1 − f)·(1 + cos πp)/2;
    /// linear 1 − (1 − f)·p; wsd 1 until p = 1 − `decay_ratio`, then a line to f at p = 1; constant 1.
    pub fn factor(&self, steps: u64, progress: f64) -> f64 {
        let warmup = match self.warmup_steps {
            0 => 1.0,
            warmup => ((steps + 1) as f64 / warmup as f64).min(1.0),
        };
        let progress = progress.clamp(0.0, 1.0);
        let last = self.final_lr_ratio;
        let decay = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => {
                last + (1.0 - last) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            ScheduleKind::Linear => 1.0 - (1.0 - last) * progress,
            ScheduleKind::Wsd => {
                let decayed = ((progress - (1.0 - self.decay_ratio)) / self.decay_ratio).max(0.0);
                1.0 - (1.0 - last) * decayed
            }
        };
        warmup * decay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, warmup_steps: 10, final_lr_ratio: 0.1, decay_ratio: 0.2 }
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn the_warm_up_rises_in_equal_parts_to_its_base() {
        let constant = schedule(ScheduleKind::Constant);
        close(constant.factor(0, 0.0), 0.1);
        close(constant.factor(4, 0.0), 0.5);
        close(constant.factor(9, 0.0), 1.0);
        close(constant.factor(10, 0.9), 1.0);
        close(Schedule { warmup_steps: 0, ..constant }.factor(0, 0.0), 1.0);
    }

    #[test]
    fn each_shape_goes_through_its_points() {
        let at = |kind, progress| schedule(kind).factor(100, progress);
        close(at(ScheduleKind::Cosine, 0.0), 1.0);
        close(at(ScheduleKind::Cosine, 0.5), 0.55);
        close(at(ScheduleKind::Cosine, 1.0), 0.1);
        close(at(ScheduleKind::Linear, 0.5), 0.55);
        close(at(ScheduleKind::Linear, 2.0), 0.1);
        close(at(ScheduleKind::Wsd, 0.8), 1.0);
        close(at(ScheduleKind::Wsd, 0.9), 0.55);
        close(at(ScheduleKind::Wsd, 1.0), 0.1);
        close(at(ScheduleKind::Constant, 1.0), 1.0);
    }

    #[test]
    fn ratios_beyond_one_are_refused_by_name() {
        for (key, bad) in [
            ("final_lr_ratio", Schedule { final_lr_ratio: 1.5, ..schedule(ScheduleKind::Cosine) }),
            ("decay_ratio", Schedule { decay_ratio: 0.0, ..schedule(ScheduleKind::Wsd) }),
        ] {
            let error = bad.validate().unwrap_err();
            assert!(
                error.code == "CONFIG_INVALID" && error.message.contains(key) && error.hint.contains(key)
            );
        }
    }
}
