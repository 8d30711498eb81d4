//! From a long sequence that fails to a short one.

use super::{Stage, Step, replay};
use std::time::{Duration, Instant};

/// Longest time that is spent on a shorter one.
const PATIENCE: Duration = Duration::from_secs(120);

/// Leaves out whatever can be left out; the least sequence and its failure. A failure that does not come again
/// is left whole.
pub(super) fn shrink(stage: &dyn Fn() -> Stage, steps: Vec<Step>) -> (Vec<Step>, String) {
    let start = Instant::now();
    let Err(mut difference) = replay(stage, &steps) else {
        return (steps, "played again it does not fail: the two depend on something else".to_owned());
    };
    let mut least = steps;
    let mut chunk = least.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < least.len() && start.elapsed() < PATIENCE {
            let end = least.len().min(at + chunk);
            let fewer = [&least[..at], &least[end..]].concat();
            match replay(stage, &fewer) {
                Err(still) => (least, difference) = (fewer, still),
                Ok(()) => at = end,
            }
        }
        chunk /= 2;
    }
    (least, difference)
}
