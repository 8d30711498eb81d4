//! The order in which a moment is put together, and what makes none.

use super::*;
use parking_lot::Mutex;

/// Both sides, with a clock and a batch that go on at every step; remembers the steps.
struct Told {
    steps: Mutex<Vec<&'static str>>,
    clock: Mutex<i64>,
    batch: Mutex<u64>,
    /// What each question for the end of the database is answered with.
    end: Mutex<Result<Place, String>>,
    archived: watch::Sender<Option<Place>>,
    /// Marks that are lost before one arrives.
    lost: Mutex<u32>,
    kept: Mutex<Vec<Mark>>,
}

fn place(lineage: u32, offset: u64) -> Place {
    Place { lineage, file: 1, offset }
}

impl Told {
    fn new(end: Result<Place, String>, archived: Place) -> Told {
        Told {
            steps: Mutex::default(),
            clock: Mutex::new(100),
            batch: Mutex::new(7),
            end: Mutex::new(end),
            archived: watch::channel(Some(archived)).0,
            lost: Mutex::new(0),
            kept: Mutex::default(),
        }
    }

    fn step(&self, step: &'static str) {
        self.steps.lock().push(step);
        *self.clock.lock() += 10;
    }
}

impl Sides for Told {
    async fn database_end(&self, _: Duration) -> Result<Place, String> {
        self.step("database");
        self.end.lock().clone()
    }

    fn archived(&self) -> watch::Receiver<Option<Place>> {
        self.step("archived");
        // While the archive is waited for, files go on: rows of before may have lost theirs in a later batch.
        *self.batch.lock() += 1;
        self.archived.subscribe()
    }

    async fn files_fenced(&self, _: Duration) -> Result<u64, String> {
        self.step("files");
        *self.batch.lock() += 1;
        Ok(33)
    }

    fn batch(&self) -> u64 {
        *self.batch.lock()
    }

    fn now(&self) -> Timestamp {
        Timestamp { seconds: *self.clock.lock(), nanos: 0 }
    }

    async fn keep(&self, mark: Mark) -> Result<(), String> {
        let mut lost = self.lost.lock();
        if *lost > 0 {
            *lost -= 1;
            return Err("the connection to the backup was lost".to_owned());
        }
        self.kept.lock().push(mark);
        Ok(())
    }
}

#[tokio::test]
async fn the_database_first_then_the_time_then_the_files_and_their_batch() {
    let sides = Told::new(Ok(place(1, 500)), place(1, 600));
    assert_eq!(mark(&sides).await, Some((place(1, 500), 33)));
    assert_eq!(*sides.steps.lock(), ["database", "files", "archived"]);
    // 110: after the question for the end (commits until then are in it), before the files' fence; 8: the fence's batch.
    let time = Timestamp { seconds: 110, nanos: 0 };
    let expected = Mark { time, place: place(1, 500), batch: 8, cut: 33, kind: MarkKind::Periodic };
    assert_eq!(*sides.kept.lock(), [expected]);

    let sides = Told::new(Ok(place(1, 500)), place(1, 600));
    let begun = fence_begins(&sides).await.unwrap();
    let cut = sides.files_fenced(PATIENCE).await.unwrap();
    fence_ends(&sides, begun, cut).await.unwrap();
    assert_eq!(*sides.kept.lock(), [Mark { kind: MarkKind::Fence, ..expected }]);
}

#[tokio::test]
async fn a_database_that_cannot_be_asked_makes_no_mark() {
    let sides = Told::new(Err("it is away".to_owned()), place(1, 600));
    assert_eq!(mark(&sides).await, None);
    assert_eq!(*sides.kept.lock(), []);
}

#[tokio::test]
async fn a_place_of_an_earlier_lineage_is_not_reached_by_a_later_one() {
    let sides = Told::new(Ok(place(1, 5000)), place(2, 4));
    assert!(fence(&sides).await.unwrap_err().contains("another server took its place"));
    assert_eq!(mark(&sides).await, None);
    assert!(fence_ends(&sides, (place(1, 5000), Timestamp::default()), 1).await.is_err());
    assert_eq!(*sides.kept.lock(), []);
    sides.archived.send_replace(Some(place(1, 5000)));
    fence(&sides).await.unwrap();
}

#[tokio::test]
async fn a_fences_mark_is_sent_until_it_is_kept() {
    let sides = Told::new(Ok(place(1, 500)), place(1, 600));
    *sides.lost.lock() = 2;
    fence_ends(&sides, (place(1, 500), Timestamp::default()), 1).await.unwrap();
    assert_eq!(sides.kept.lock().len(), 1);
}

#[tokio::test]
async fn what_did_not_move_is_not_marked_again() {
    let sides = Told::new(Ok(place(1, 500)), place(1, 600));
    let (moved, asked) = (Mutex::new((place(1, 500), 33)), Mutex::new(0));
    let marking = now_and_then(&sides, Duration::from_millis(1), || {
        *asked.lock() += 1;
        Some(*moved.lock())
    });
    let looking = async {
        while *asked.lock() < 5 {
            tokio::task::yield_now().await;
        }
        assert_eq!(sides.kept.lock().len(), 1);
        moved.lock().1 = 34;
        while sides.kept.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    let within = Duration::from_secs(30);
    let looked = tokio::time::timeout(within, async {
        tokio::select! {
            () = marking => panic!("it ended"),
            () = looking => {}
        }
    });
    looked.await.unwrap();
}
