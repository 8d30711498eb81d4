//! Is a server well: what a check can find, and how often it must find it (5.2 `rise`, `fall`, `inter`, `fastinter`,
//! `downinter`). Pure.

use super::config::model::ServerCheck;
use std::time::Duration;

/// What a check found (9.1 of the management manual, `check_status`). The numbers are those of `show servers state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CheckStatus {
    Unknown = 0,
    Initializing = 1,
    SocketError = 5,
    Layer4Ok = 6,
    Layer4Timeout = 7,
    Layer4Connection = 8,
    Layer7Timeout = 12,
    Layer7Response = 13,
    Layer7Ok = 15,
    /// 404 with `http-check disable-on-404`.
    Layer7Conditional = 16,
    Layer7Status = 17,
}

/// What it means (`srv_check_result` of `show servers state`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CheckResult {
    Unknown = 0,
    Neutral = 1,
    Failed = 2,
    Passed = 3,
    ConditionallyPassed = 4,
}

impl CheckStatus {
    const ALL: [CheckStatus; 11] = [
        CheckStatus::Unknown,
        CheckStatus::Initializing,
        CheckStatus::SocketError,
        CheckStatus::Layer4Ok,
        CheckStatus::Layer4Timeout,
        CheckStatus::Layer4Connection,
        CheckStatus::Layer7Timeout,
        CheckStatus::Layer7Response,
        CheckStatus::Layer7Ok,
        CheckStatus::Layer7Conditional,
        CheckStatus::Layer7Status,
    ];

    /// As in `show servers state`; an unknown number is [`CheckStatus::Unknown`].
    pub fn from_number(number: u8) -> CheckStatus {
        CheckStatus::ALL.into_iter().find(|status| *status as u8 == number).unwrap_or(CheckStatus::Unknown)
    }

    /// The word of the stats page and of the CSV.
    pub fn word(self) -> &'static str {
        match self {
            CheckStatus::Unknown => "UNK",
            CheckStatus::Initializing => "INI",
            CheckStatus::SocketError => "SOCKERR",
            CheckStatus::Layer4Ok => "L4OK",
            CheckStatus::Layer4Timeout => "L4TOUT",
            CheckStatus::Layer4Connection => "L4CON",
            CheckStatus::Layer7Timeout => "L7TOUT",
            CheckStatus::Layer7Response => "L7RSP",
            CheckStatus::Layer7Ok => "L7OK",
            CheckStatus::Layer7Conditional => "L7OKC",
            CheckStatus::Layer7Status => "L7STS",
        }
    }

    /// The words of log lines and of `check_desc`.
    pub fn description(self) -> &'static str {
        match self {
            CheckStatus::Unknown => "Unknown",
            CheckStatus::Initializing => "Initializing",
            CheckStatus::SocketError => "Socket error",
            CheckStatus::Layer4Ok => "Layer4 check passed",
            CheckStatus::Layer4Timeout => "Layer4 timeout",
            CheckStatus::Layer4Connection => "Layer4 connection problem",
            CheckStatus::Layer7Timeout => "Layer7 timeout",
            CheckStatus::Layer7Response => "Layer7 invalid response",
            CheckStatus::Layer7Ok => "Layer7 check passed",
            CheckStatus::Layer7Conditional => "Layer7 check conditionally passed",
            CheckStatus::Layer7Status => "Layer7 wrong status",
        }
    }

    /// Good, bad, or neither.
    pub fn result(self) -> CheckResult {
        match self {
            CheckStatus::Unknown | CheckStatus::Initializing => CheckResult::Unknown,
            CheckStatus::Layer4Ok | CheckStatus::Layer7Ok => CheckResult::Passed,
            CheckStatus::Layer7Conditional => CheckResult::ConditionallyPassed,
            _ => CheckResult::Failed,
        }
    }
}

/// One finished check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckReport {
    /// What was found.
    pub status: CheckStatus,
    /// HTTP status, or error code of MySQL.
    pub code: Option<u16>,
    /// More for people: an operating system's error, a reason phrase, a server's greeting.
    pub info: String,
    /// How long it took.
    pub duration: Duration,
}

impl CheckReport {
    /// Without code and info; the duration is filled in by who ran it.
    pub fn new(status: CheckStatus) -> CheckReport {
        CheckReport { status, code: None, info: String::new(), duration: Duration::ZERO }
    }

    /// The same with more for people.
    pub fn with_info(mut self, info: impl Into<String>) -> CheckReport {
        self.info = info.into();
        self
    }

    /// The same with a code.
    pub fn with_code(mut self, code: u16) -> CheckReport {
        self.code = Some(code);
        self
    }

    /// `reason: ..., code: ..., info: "...", check duration: 0ms`, as log lines have it.
    pub fn reason(&self) -> String {
        let mut text = format!("reason: {}", self.status.description());
        if let Some(code) = self.code {
            text.push_str(&format!(", code: {code}"));
        }
        if !self.info.is_empty() {
            text.push_str(&format!(", info: \"{}\"", self.info));
        }
        text.push_str(&format!(", check duration: {}ms", self.duration.as_millis()));
        text
    }
}

/// How well a server is, in points: 0 is down; `rise` good checks in a row bring it up, to `rise + fall - 1`; from there
/// `fall` bad ones in a row bring it down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Health {
    points: u32,
    rise: u32,
    fall: u32,
}

/// What a check changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Turn {
    Stays,
    Up,
    Down,
}

impl Health {
    /// As at the start: up, but the first bad check brings it down.
    pub fn new(rise: u32, fall: u32) -> Health {
        let rise = rise.max(1);
        Health { points: rise, rise, fall: fall.max(1) }
    }

    fn full(&self) -> u32 {
        self.rise + self.fall - 1
    }

    /// It counts as up.
    pub fn is_up(&self) -> bool {
        self.points >= self.rise
    }

    /// A good check.
    pub fn pass(&mut self) -> Turn {
        let was_up = self.is_up();
        self.points += 1;
        if self.points >= self.rise {
            self.points = self.full();
        }
        if !was_up && self.is_up() { Turn::Up } else { Turn::Stays }
    }

    /// A bad check.
    pub fn fail(&mut self) -> Turn {
        if self.points > self.rise {
            self.points -= 1;
            return Turn::Stays;
        }
        let was_up = self.is_up();
        self.points = 0;
        if was_up { Turn::Down } else { Turn::Stays }
    }

    /// Up as at the start (a server that leaves maintenance).
    pub fn reset(&mut self) {
        self.points = self.rise;
    }

    /// Up for certain, or down (`set server health`).
    pub fn set(&mut self, up: bool) {
        self.points = if up { self.full() } else { 0 };
    }

    /// Points as `show servers state` has them.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// The same from a file of states; more than possible is all.
    pub fn set_points(&mut self, points: u32) {
        self.points = points.min(self.full());
    }

    /// `rise` and `fall`.
    pub fn limits(&self) -> (u32, u32) {
        (self.rise, self.fall)
    }

    /// How many of how many: `UP` 1 of 3 is nearly down, `DOWN` 1 of 2 nearly up.
    pub fn shown(&self) -> (u32, u32) {
        if self.is_up() { (self.points - self.rise + 1, self.fall) } else { (self.points, self.rise) }
    }

    /// It is on its way from up to down or back.
    pub fn is_in_transition(&self) -> bool {
        self.points != 0 && self.points != self.full()
    }

    /// Time from the start of one check to the start of the next.
    pub fn interval(&self, timing: &ServerCheck) -> Duration {
        let chosen = if self.points == self.full() {
            None
        } else if self.points == 0 {
            timing.downinter
        } else {
            timing.fastinter
        };
        chosen.unwrap_or(timing.inter)
    }
}

/// When the first check of each of `count` servers begins: spread over the shortest interval of all, so that they are not all
/// checked at once.
pub fn first_check(number: usize, count: usize, shortest: Duration) -> Duration {
    let micros = shortest.as_micros() as u64 * number as u64 / count.max(1) as u64;
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn timing() -> ServerCheck {
        ServerCheck {
            inter: Duration::from_millis(3000),
            fastinter: Some(Duration::from_millis(500)),
            downinter: Some(Duration::from_millis(9000)),
            rise: 2,
            fall: 3,
            port: None,
            address: None,
        }
    }

    #[test]
    fn the_first_check_decides_at_the_start() {
        let mut health = Health::new(2, 3);
        assert_eq!((health.is_up(), health.shown(), health.points()), (true, (1, 3), 2));
        assert_eq!(health.fail(), Turn::Down);
        assert_eq!(health.shown(), (0, 2));
        let mut health = Health::new(2, 3);
        assert_eq!(health.pass(), Turn::Stays);
        assert_eq!(health.shown(), (3, 3));
    }

    #[test]
    fn it_falls_and_rises_as_observed() {
        // HAProxy 2.6.12, rise 2 fall 3, log-health-checks: 2/3 UP, 1/3 UP, 0/2 DOWN, 1/2 DOWN, 3/3 UP.
        let mut health = Health::new(2, 3);
        health.pass();
        let mut seen = Vec::new();
        for good in [false, false, false, true, true] {
            let turn = if good { health.pass() } else { health.fail() };
            seen.push((health.shown(), turn));
        }
        assert_eq!(
            seen,
            [
                ((2, 3), Turn::Stays),
                ((1, 3), Turn::Stays),
                ((0, 2), Turn::Down),
                ((1, 2), Turn::Stays),
                ((3, 3), Turn::Up)
            ]
        );
    }

    #[test]
    fn one_good_check_between_makes_it_well_again() {
        let mut health = Health::new(2, 3);
        health.pass();
        for _ in 0..10 {
            assert_eq!(
                (health.fail(), health.fail(), health.pass()),
                (Turn::Stays, Turn::Stays, Turn::Stays)
            );
            assert_eq!(health.shown(), (3, 3));
        }
    }

    #[test]
    fn intervals_follow_the_state() {
        let timing = timing();
        let mut health = Health::new(2, 3);
        assert_eq!(health.interval(&timing), Duration::from_millis(500), "not sure yet");
        health.pass();
        assert_eq!(health.interval(&timing), timing.inter);
        health.fail();
        assert_eq!(health.interval(&timing), Duration::from_millis(500));
        health.fail();
        health.fail();
        assert_eq!(health.interval(&timing), Duration::from_millis(9000));
    }

    /// Simulated time: a server that is killed and comes back at random moments, checked every three seconds.
    #[test]
    fn the_time_to_notice_is_bounded() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let timing = ServerCheck { fastinter: None, downinter: None, ..timing() };
        for _ in 0..200 {
            let mut health = Health::new(2, 3);
            let killed = random.random_range(10_000..20_000);
            let back = killed + random.random_range(20_000..40_000);
            let (mut now, mut down, mut up) = (random.random_range(0..3000), None, None);
            while up.is_none() {
                let good = now < killed || now >= back;
                match if good { health.pass() } else { health.fail() } {
                    Turn::Down => down = Some(now),
                    Turn::Up => up = Some(now),
                    Turn::Stays => {}
                }
                now += health.interval(&timing).as_millis() as u64;
            }
            let (down, up) = (down.unwrap() - killed, up.unwrap() - back);
            assert!((6000..=9000).contains(&down), "down after {down} ms");
            assert!((3000..=6000).contains(&up), "up after {up} ms");
        }
    }

    #[test]
    fn first_checks_are_spread() {
        let shortest = Duration::from_millis(300);
        let starts: Vec<u128> = (0..4).map(|n| first_check(n, 4, shortest).as_millis()).collect();
        assert_eq!(starts, [0, 75, 150, 225]);
    }

    #[test]
    fn numbers_are_read_back() {
        for status in CheckStatus::ALL {
            assert_eq!(CheckStatus::from_number(status as u8), status);
        }
        assert_eq!(CheckStatus::from_number(99), CheckStatus::Unknown);
    }

    #[test]
    fn a_reason_reads_as_haproxys() {
        let report = CheckReport::new(CheckStatus::Layer7Status).with_code(500).with_info("Oops");
        assert_eq!(
            report.reason(),
            "reason: Layer7 wrong status, code: 500, info: \"Oops\", check duration: 0ms"
        );
    }
}
