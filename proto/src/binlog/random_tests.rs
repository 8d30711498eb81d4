//! Random numbers from a seed that is printed with a failure.

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// Runs `check` with many seeds; `BINLOG_SEED` repeats one.
pub(super) fn with_seeds(runs: u64, check: impl Fn(&mut Random)) {
    let told = std::env::var("BINLOG_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let start = u64::from(std::process::id()) << 32;
    for seed in told.map_or(start..start + runs, |seed| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mut Random(seed))));
        if let Err(panic) = outcome {
            eprintln!("repeat with BINLOG_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
