//! Somebody starts the standby's replication while it is compared.

use super::*;
use crate::database::dialect::Dialect;
use crate::database::link::BoxFuture;
use crate::database::sql::Table;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// What somebody does before a statement.
type Meddle = Arc<dyn Fn(&str) + Send + Sync>;

/// A standby at which somebody does something.
struct Meddled(Dsn, Meddle);

struct Watched(Box<dyn Session>, Meddle);

impl Connect for Meddled {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SqlError>> {
        Box::pin(async {
            let session = Connect::connect(&self.0).await?;
            Ok(Box::new(Watched(session, Arc::clone(&self.1))) as Box<dyn Session>)
        })
    }
}

impl Session for Watched {
    fn table<'a>(&'a mut self, statement: &'a str) -> BoxFuture<'a, Result<Table, SqlError>> {
        (self.1)(statement);
        self.0.table(statement)
    }

    fn dialect(&self) -> Dialect {
        self.0.dialect()
    }

    fn server(&self) -> &str {
        self.0.server()
    }
}

#[test]
fn a_standby_that_somebody_starts_meanwhile_is_compared_at_another_position() {
    let two = Two::start();
    two.primary
        .sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY); INSERT INTO d.t VALUES (1)")
        .unwrap();
    two.catch_up();
    let (primary, standby) = (two.primary.access(), two.standby.access());
    let more = {
        let (primary, next) = (primary.clone(), Arc::new(AtomicU32::new(10)));
        move || {
            let row = next.fetch_add(1, Ordering::Relaxed);
            primary.sql(&format!("INSERT INTO d.t VALUES ({row})")).unwrap();
        }
    };
    let goes_on = {
        let (primary, standby) = (primary.clone(), standby.clone());
        move || {
            standby.sql("START SLAVE").unwrap();
            let at = &primary.sql("SELECT @@gtid_binlog_pos").unwrap()[0][0];
            assert_eq!(standby.sql(&format!("SELECT MASTER_GTID_WAIT('{at}', 60)")).unwrap()[0][0], "0");
        }
    };
    // Before it is to go on to a position; while it does; and when it is there, before its snapshot is.
    for moment in ["START SLAVE UNTIL", "SHOW ALL SLAVES STATUS", "START TRANSACTION"] {
        let (left, until) = (AtomicU32::new(2), AtomicBool::new(false));
        let (standby, more, goes_on) = (standby.clone(), more.clone(), goes_on.clone());
        let meddle: Meddle = Arc::new(move |statement| {
            if statement == "STOP SLAVE" {
                // So that it is behind.
                standby.sql("STOP SLAVE").unwrap();
                more();
            }
            let now =
                statement.starts_with(moment) && (until.load(Ordering::Relaxed) || moment.ends_with("UNTIL"));
            until.store(
                statement.starts_with("START SLAVE UNTIL") || !now && until.load(Ordering::Relaxed),
                Ordering::Relaxed,
            );
            let next = |left: u32| left.checked_sub(1);
            if now && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
                standby.sql("STOP SLAVE").unwrap();
                more();
                goes_on();
            }
        });
        let (primary, stop) = (Dsn::socket(two.primary.socket(), "root"), AtomicBool::new(false));
        let meddled = Meddled(Dsn::socket(two.standby.socket(), "root"), meddle);
        let compare =
            Compare { primary: &primary, standby: &meddled, deep: false, progress: &|_| {}, stop: &stop };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = async { tokio::time::timeout(std::time::Duration::from_secs(60), compare.run()).await };
        let found = runtime.block_on(run).expect("it ends").unwrap();
        assert_equal(&found);
        // Nothing was taken for a difference, and looked at again for that.
        assert_eq!(found.rounds, 1, "{moment}: {found}");
    }
    two.assert_follows();
}
