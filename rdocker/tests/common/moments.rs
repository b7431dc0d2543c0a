//! Moments at which to kill what is at work.

use std::time::Duration;

/// Random moments within a work's time, the same for the same seed.
pub struct Moments {
    random: u64,
    whole: Duration,
}

impl Moments {
    /// `whole` is how long the work took once.
    pub fn new(seed: u64, whole: Duration) -> Self {
        Self {
            random: seed,
            whole,
        }
    }

    /// The next, counted from the work's begin.
    pub fn next(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.whole.mul_f64((self.random % 10_000) as f64 / 10_000.0)
    }

    /// Takes note whether the last one was in time. A busy machine is not as fast each time: those
    /// that come follow it, so that about five in six are in time and the rest near the work's end.
    pub fn learn(&mut self, in_time: bool) {
        self.whole = self.whole.mul_f64(if in_time { 1.02 } else { 0.9 });
    }
}
