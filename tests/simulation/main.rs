//! Seeded simulations of what must survive any order of faults. `SEED=n` repeats one run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, which may

mod session;

/// Runs `run` with every seed, or with the one that the environment names. A failing run names its seed.
fn seeds(count: u64, run: impl Fn(u64)) {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed);
    }
    for seed in 0..count {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        assert!(outcome.is_ok(), "failed with SEED={seed}");
    }
}
