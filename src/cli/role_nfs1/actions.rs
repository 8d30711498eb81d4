//! What may be asked of a running nfs1: how it is, and the actions of its control socket.

use super::Nfs1Role;
use crate::cli::describe;
use crate::cli::prove_database::{self, Wishes};
use crate::database::moment;
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::{Control, NodeStatus, Refusal, words};
use crate::verify;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A fence that somebody asked for waits so long for the backup.
const FENCE_PATIENCE: Duration = Duration::from_secs(600);

impl Control for Nfs1Role {
    fn describe(&self, status: &mut NodeStatus) {
        let stats = self.server.stats();
        let per_second = self.rate.lock().per_second(stats.requests, Instant::now());
        let mut nfs = describe::nfs(
            &stats,
            per_second,
            &self.settings,
            &self.cluster,
            &self.notes,
            &mut status.attention,
        );
        self.shares.describe(&mut nfs.exports);
        status.nfs = Some(nfs);
        status.attention.extend(self.shares.faults());
        if let Some(capture) = &*self.capture.lock() {
            status.capture = Some(describe::capture(&capture.status(), &mut status.attention));
        }
        let report = self.sender.status().report();
        status.sender = Some(describe::sender(&report, &self.dirty, &mut status.attention));
        status.verify = Some(self.prover.last.lock().clone());
        status.link = Some(describe::link(&self.link.monitor.status()));
        if let Some(database) = &self.database {
            status.add_database(database.status());
        }
    }

    fn actions(&self) -> Vec<Action> {
        let database = [
            Action { name: "db-snapshot", help: "take a base snapshot of the database" },
            Action { name: "db-accept-loss", help: "go on although the server has lost what the backup has" },
        ];
        let database = self.database.iter().flat_map(|_| database);
        vec![
            Action { name: "verify", help: "prove that the backup equals the share" },
            Action { name: "verify-database", help: "prove that archive and standby equal the database" },
            Action { name: "fence", help: "wait until everything before now is on the backup's disk" },
            Action { name: "rescan", help: "compare the whole export with the index now" },
            Action { name: "reload", help: "read the exports file again" },
            Action { name: "accept-removal", help: "go on although a scan would remove most of the objects" },
        ]
        .into_iter()
        .chain(database)
        .collect()
    }

    fn act(&self, action: &str, arguments: Value, progress: Progress) -> Outcome {
        match action {
            "verify" => self.verify(&arguments, progress),
            "verify-database" => self.verify_database(&arguments, progress),
            "fence" => self.fence(),
            "rescan" => {
                self.prover.scans.ask();
                done("a scan begins; `ehpc-store status` shows it")
            }
            "reload" => self.reload(),
            "accept-removal" => {
                self.prover.scans.consent();
                done("accepted: a scan begins, and may remove what it finds missing")
            }
            "db-snapshot" => self.snapshot(&arguments, progress),
            "db-accept-loss" => {
                if let Some(database) = &self.database {
                    let state = database.source().status().state;
                    if !["ahead", "diverged", "gap"].contains(&state.as_str()) {
                        let why = format!("there is no loss to accept: the database is {state}");
                        return Box::pin(async move { Err(Refusal::Failed(why)) });
                    }
                    database.source().accept_loss();
                }
                done(
                    "accepted: a new lineage begins as soon as the server is reached, with a base snapshot of its own",
                )
            }
            other => {
                let refusal = Refusal::Failed(format!("nfs1 cannot do `{other}`"));
                Box::pin(async move { Err(refusal) })
            }
        }
    }
}

impl Nfs1Role {
    fn reload(&self) -> Outcome {
        let (shares, server) = (Arc::clone(&self.shares), self.server.clone());
        Box::pin(async move {
            let run = tokio::task::spawn_blocking(move || shares.reload(server.exports()));
            let reloaded = run
                .await
                .map_err(|error| Refusal::Failed(format!("the reload ended abnormally: {error}")))?;
            let reloaded = reloaded.map_err(Refusal::Failed)?;
            Ok(json!({ "text": reloaded.text(), "reloaded": reloaded }))
        })
    }

    fn snapshot(&self, arguments: &Value, progress: Progress) -> Outcome {
        let label = arguments["label"].as_str().map(str::to_owned);
        let database = self.database.clone();
        Box::pin(async move {
            let database = database.ok_or_else(|| Refusal::Failed("there is no database".to_owned()))?;
            if let Some(label) = label.as_ref().filter(|label| !moment::is_label(label)) {
                return Err(Refusal::Failed(format!("`{label}` cannot be a label")));
            }
            let base = database.snapshot(label, progress).await.map_err(Refusal::Failed)?;
            let mut text = format!(
                "base snapshot {}: {} of SQL, {} of it new, up to {}:{}",
                base.number,
                words::bytes(base.bytes),
                words::bytes(base.new_bytes),
                base.place.file,
                base.place.offset
            );
            if !base.lacks_history.is_empty() {
                text.push_str(&format!(
                    "\nits dump program leaves earlier rows of system-versioned tables out: {}; it takes a server and a mariadb-dump \
                     of 10.11 or later",
                    base.lacks_history.join(", ")
                ));
            }
            Ok(json!({ "text": text, "base": base }))
        })
    }

    fn fence(&self) -> Outcome {
        let (fence, database) = (self.prover.fence.clone(), self.database.clone());
        Box::pin(async move {
            let started = Instant::now();
            // The database first: the files that its transactions name are older than they are.
            let place = match &database {
                Some(database) => Some(database.fence_begins().await.map_err(Refusal::Failed)?),
                None => None,
            };
            let cut = fence.wait(FENCE_PATIENCE).await.map_err(|error| Refusal::Failed(error.to_string()))?;
            if let (Some(database), Some(place)) = (&database, place) {
                database.fence_ends(place, cut).await.map_err(Refusal::Failed)?;
            }
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            Ok(json!({ "fenced": true, "ms": ms }))
        })
    }

    fn verify(&self, arguments: &Value, progress: Progress) -> Outcome {
        let asked = |name: &str| arguments[name].as_bool().unwrap_or(false);
        let options = verify::Options { read_data: asked("read_data"), repair: asked("repair") };
        let (prover, stopping) = (Arc::clone(&self.prover), Arc::clone(&self.stop_verify));
        Box::pin(async move {
            let run = tokio::task::spawn_blocking(move || prover.run(options, &progress, &stopping));
            let report =
                run.await.map_err(|error| Refusal::Failed(format!("verify ended abnormally: {error}")))?;
            let report = report.map_err(Refusal::Failed)?;
            serde_json::to_value(report).map_err(|error| Refusal::Failed(error.to_string()))
        })
    }

    /// `null` when there is no database and nobody insists.
    fn verify_database(&self, arguments: &Value, progress: Progress) -> Outcome {
        let asked = |name: &str| arguments[name].as_bool().unwrap_or(false);
        let wishes = Wishes { deep: asked("deep"), repair: asked("repair"), drill: asked("drill") };
        let required = asked("required");
        let (database, stopping) = (self.database.clone(), Arc::clone(&self.stop_verify));
        Box::pin(async move {
            let Some(database) = database else {
                let none = "there is no [database] in the settings".to_owned();
                return if required { Err(Refusal::Failed(none)) } else { Ok(Value::Null) };
            };
            // A task of its own: whoever asks may go, and the standby must follow again all the same.
            let run = tokio::spawn(prove_database::verify(database, wishes, progress, stopping));
            let report =
                run.await.map_err(|error| Refusal::Failed(format!("verify ended abnormally: {error}")))?;
            serde_json::to_value(report.map_err(Refusal::Failed)?)
                .map_err(|error| Refusal::Failed(error.to_string()))
        })
    }
}

fn done(text: &'static str) -> Outcome {
    Box::pin(async move { Ok(json!(text)) })
}
