//! Random changes, with a link that breaks and a sender that dies.

use super::*;

/// Random changes to a small tree, each noted as a watcher would.
pub(super) struct Mutator {
    random: StdRng,
    dirs: Vec<String>,
    files: Vec<String>,
    counter: u64,
}

impl Mutator {
    pub(super) fn new(seed: u64) -> Mutator {
        Mutator { random: StdRng::seed_from_u64(seed), dirs: vec![String::new()], files: Vec::new(), counter: 0 }
    }

    fn pick(&mut self, from: &[String]) -> Option<String> {
        if from.is_empty() { None } else { Some(from[self.random.random_range(0..from.len())].clone()) }
    }

    fn fresh(&mut self) -> String {
        self.counter += 1;
        let dirs = self.dirs.clone();
        let dir = self.pick(&dirs).unwrap();
        // Few names, so that they are used again.
        let name = format!("n{}", self.random.random_range(0..12));
        if dir.is_empty() { name } else { format!("{dir}/{name}") }
    }

    /// Paths after a move of `from` to `to`.
    fn moved(&mut self, from: &str, to: &str) {
        for path in self.dirs.iter_mut().chain(self.files.iter_mut()) {
            if path == from {
                *path = to.to_owned();
            } else if let Some(rest) = path.strip_prefix(&format!("{from}/")) {
                *path = format!("{to}/{rest}");
            }
        }
    }

    pub(super) fn step(&mut self, bench: &Bench) {
        let (dirs, files) = (self.dirs.clone(), self.files.clone());
        let free = |path: &str| !dirs.iter().any(|d| d == path) && !files.iter().any(|f| f == path);
        match self.random.random_range(0..100) {
            0..20 => {
                let path = self.fresh();
                if dirs.contains(&path) {
                    return;
                }
                let len = [10, 3000, 70_000, 400_000][self.random.random_range(0..4)];
                bench.write(&path, &noise(self.counter, self.random.random_range(0..len)));
                if !self.files.contains(&path) {
                    self.files.push(path);
                }
            }
            20..32 => {
                let path = self.fresh();
                if free(&path) {
                    bench.mkdir(&path);
                    self.dirs.push(path);
                }
            }
            32..44 => {
                let Some(from) = self.pick(&files) else { return };
                let to = self.fresh();
                if dirs.contains(&to) || from == to {
                    return;
                }
                bench.rename(&from, &to);
                // Two names of one object: rename does nothing.
                if !bench.root.join(&from).exists() {
                    self.files.retain(|path| *path != to);
                    self.moved(&from, &to);
                }
            }
            44..54 => {
                let Some(from) = self.pick(&dirs[1..]) else { return };
                let to = self.fresh();
                if !free(&to) || to.starts_with(&format!("{from}/")) {
                    return;
                }
                bench.rename(&from, &to);
                self.moved(&from, &to);
            }
            54..64 => {
                let Some(path) = self.pick(&files) else { return };
                fs::remove_file(bench.root.join(&path)).unwrap();
                bench.note_entry(&path);
                self.files.retain(|file| *file != path);
            }
            64..70 => {
                let Some(path) = self.pick(&dirs[1..]) else { return };
                // rm -r, of which only some is noted name by name.
                fs::remove_dir_all(bench.root.join(&path)).unwrap();
                bench.note_entry(&path);
                let below = format!("{path}/");
                self.dirs.retain(|dir| *dir != path && !dir.starts_with(&below));
                self.files.retain(|file| !file.starts_with(&below));
            }
            70..78 => {
                let Some(from) = self.pick(&files) else { return };
                let to = self.fresh();
                if free(&to) {
                    fs::hard_link(bench.root.join(&from), bench.root.join(&to)).unwrap();
                    bench.note_entry(&to);
                    self.files.push(to);
                }
            }
            78..90 => {
                let Some(path) = self.pick(&files) else { return };
                let file = fs::OpenOptions::new().write(true).open(bench.root.join(&path)).unwrap();
                let len = file.metadata().unwrap().len();
                let at = self.random.random_range(0..=len + 20_000);
                let count = self.random.random_range(1..30_000);
                self.counter += 1;
                file.write_all_at(&noise(self.counter, count), at).unwrap();
                bench.dirty.note(Change::Object(bench.key(&path), Touch::range(at..at + count as u64)));
            }
            90..95 => {
                let Some(path) = self.pick(&files) else { return };
                let file = fs::OpenOptions::new().write(true).open(bench.root.join(&path)).unwrap();
                let len = self.random.random_range(0..=file.metadata().unwrap().len() + 10_000);
                file.set_len(len).unwrap();
                bench.dirty.note(Change::Object(bench.key(&path), Touch::range(len..u64::MAX)));
            }
            _ => {
                let all = if self.random.random_bool(0.5) { &files } else { &dirs };
                let Some(path) = self.pick(all) else { return };
                let mode = 0o700 | self.random.random_range(0..0o100);
                fs::set_permissions(bench.root.join(&path), fs::Permissions::from_mode(mode)).unwrap();
                bench.dirty.note(Change::Object(bench.key(&path), Touch::ATTRIBUTES));
            }
        }
    }
}

fn mutate(seed: u64, failing: f64, crashes: bool, steps: u32) {
    let mut bench = Bench::new(seed);
    mutate_on(&mut bench, seed, failing, crashes, steps);
}

pub(super) fn mutate_on(bench: &mut Bench, seed: u64, failing: f64, crashes: bool, steps: u32) {
    let mut mutator = Mutator::new(seed);
    bench.backup.lock().failing = failing;
    bench.backup.lock().lazy = seed % 2 == 1;
    let mut random = StdRng::seed_from_u64(seed ^ 0xabcd);
    for step in 0..steps {
        for _ in 0..random.random_range(1..8) {
            mutator.step(bench);
        }
        for _ in 0..random.random_range(0..4) {
            bench.turn();
        }
        if crashes && random.random_bool(0.03) {
            bench.start();
            if random.random_bool(0.3) {
                mutator.step(bench);
            }
            // What was noted before is lost; the scan of the start finds it.
            bench.start_scan();
        }
        if step % 40 == 39 {
            bench.settle();
            bench.assert_equal();
        }
    }
    bench.settle();
    bench.assert_equal();
}

/// A dozen, or as many as EHPC_SEEDS says.
fn seeds(from: u64) -> std::ops::Range<u64> {
    let count = std::env::var("EHPC_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(12);
    from..from + count
}

#[test]
fn random_changes_between_rounds() {
    for seed in seeds(0) {
        eprintln!("seed {seed}");
        mutate(seed, 0.0, false, 60);
    }
}

#[test]
fn random_changes_while_the_link_breaks_at_any_message() {
    for seed in seeds(10_000) {
        eprintln!("seed {seed}");
        mutate(seed, 0.15, false, 60);
    }
}

#[test]
fn random_changes_while_the_sender_dies() {
    for seed in seeds(20_000) {
        eprintln!("seed {seed}");
        mutate(seed, 0.05, true, 60);
    }
}

#[test]
fn random_changes_without_handles() {
    for seed in seeds(30_000) {
        eprintln!("seed {seed}");
        let mut bench = Bench::with_tree(seed, |root| Tree::open_without_handles(root).unwrap());
        mutate_on(&mut bench, seed, 0.05, seed % 3 == 0, 40);
    }
}
