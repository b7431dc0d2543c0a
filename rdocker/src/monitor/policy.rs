//! When a container is started again, and how it is asked to stop.

use std::time::Duration;

use crate::container::api::{Config, RestartPolicy};
use crate::container::signal;

/// Seconds between the stop signal and SIGKILL unless configured.
pub const STOP_SECONDS: i64 = 10;
/// The first delay before a restart; it doubles each time.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length was a good one: the delay begins anew.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The signal that asks the container to stop: its configuration's, else SIGTERM.
pub fn stop_signal(config: &Config) -> i32 {
    let named = config.stop_signal.as_deref().map(signal::parse);
    named.and_then(Result::ok).unwrap_or(libc::SIGTERM)
}

/// Whether the policy wants another run after one that ended with `code`.
pub fn wants_restart(policy: &RestartPolicy, code: i32, restarts: u32) -> bool {
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let bound = policy.maximum_retry_count;
            code != 0 && (bound == 0 || restarts < bound)
        }
        _ => false,
    }
}

/// The growing pause between restarts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delay(Option<Duration>);

impl Delay {
    /// The pause before the next run, after one of length `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        let next = match self.0 {
            Some(last) if ran < GOOD_RUN => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0 = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_to_a_minute_and_a_good_run_resets_it() {
        let mut delay = Delay::default();
        let short = Duration::from_secs(1);
        let millis: Vec<u128> = (0..12).map(|_| delay.after(short).as_millis()).collect();
        assert_eq!(&millis[..4], [100, 200, 400, 800]);
        assert_eq!(&millis[10..], [60_000, 60_000]);
        assert_eq!(delay.after(GOOD_RUN), FIRST);
    }

    #[test]
    fn each_policy_restarts_when_docker_does() {
        let cases = [
            ("no", 0, 1, 0, false),
            ("always", 0, 0, 9, true),
            ("unless-stopped", 0, 0, 9, true),
            ("on-failure", 0, 0, 0, false),
            ("on-failure", 0, 1, 9, true),
            ("on-failure", 2, 1, 1, true),
            ("on-failure", 2, 1, 2, false),
        ];
        for (name, bound, code, restarts, want) in cases {
            let policy = RestartPolicy {
                name: name.to_owned(),
                maximum_retry_count: bound,
            };
            let got = wants_restart(&policy, code, restarts);
            assert_eq!(got, want, "{name}:{bound} code {code} after {restarts}");
        }
    }
}
