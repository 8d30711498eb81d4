//! Restores, as the backup does them for `db restore` and `restore --all`.

use super::database_archive;
use super::db_keep::{Keep, moment as shown};
use crate::database::archive::Target;
use crate::database::dsn::{Dsn, Password};
use crate::database::moment::{self, Moment};
use crate::database::restore::{
    self, RestoreError, RestoreMoment, RestoreOptions, RestoreTarget, Restored, Vault,
};
use crate::database::server::Tools;
use crate::host;
use crate::host::local_time::local_time;
use crate::observe::status::DatabaseStatus;
use crate::observe::words;
use crate::replication::applier::past;
use crate::store::Store;
use ehpc_proto::replication::database::{Mark, Place};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Handle;

/// What a restore reports of its progress.
pub(super) type Step<'a> = &'a dyn Fn(String);

/// Restores of what is kept; they block, each on a thread of its own.
pub(super) struct Restoring<'a> {
    pub(super) keep: &'a Keep,
    /// The history of the share, where it is needed.
    pub(super) store: Option<&'a Arc<Store>>,
    pub(super) runtime: &'a Handle,
    pub(super) stop: &'a AtomicBool,
    pub(super) step: Step<'a>,
}

impl Restoring<'_> {
    /// `db restore`.
    pub(super) fn database(&self, request: &Value) -> Result<Value, String> {
        let text = |key: &str| request[key].as_str().map(str::to_owned);
        let target = match (text("to"), text("datadir")) {
            (Some(to), _) => {
                let mut dsn = Dsn::parse(&to).map_err(|error| format!("--to: {error}"))?;
                if let Some(password) = text("password") {
                    dsn.password = Password::Text(password);
                }
                RestoreTarget::Server(dsn)
            }
            (None, Some(datadir)) => RestoreTarget::Datadir(PathBuf::from(datadir)),
            (None, None) => return Err("say where to: --to DSN or --datadir DIR".to_owned()),
        };
        let options = RestoreOptions {
            moment: self.moment(&request["moment"])?,
            target,
            only: text("only"),
            as_table: text("as"),
            overwrite: request["overwrite"].as_bool().unwrap_or(false),
            keep_running: request["keep_running"].as_bool().unwrap_or(false),
            scratch: self.keep.settings.directory.clone(),
        };
        let mut restored = self.run(&options)?;
        let ahead = request["moment"]["at"].as_str().and_then(|asked| self.ahead(asked));
        let text = report(&restored, &options) + &ahead.unwrap_or_default();
        if let Some(server) = restored.server.take() {
            // It goes on until this daemon ends, or somebody shuts it down.
            std::mem::forget(server);
        }
        reply(&text, &restored)
    }

    /// `restore --all`.
    pub(super) fn all(&self, request: &Value) -> Result<Value, String> {
        let to = PathBuf::from(request["to"].as_str().ok_or("say where to: --to DIR")?);
        let asked = request["at"].as_str().unwrap_or("latest");
        let exact = request["exact"].as_bool().unwrap_or(false);
        let store = self.store.ok_or("the history of the share is not open")?;
        let mark = self.mark(asked, exact)?;
        let shown = shown(mark.time);
        let options = RestoreOptions {
            moment: RestoreMoment::Place(mark.place),
            target: RestoreTarget::Datadir(to.join("database")),
            only: None,
            as_table: None,
            overwrite: false,
            keep_running: false,
            scratch: self.keep.settings.directory.clone(),
        };
        // The share may take hours: that the database can follow is known before.
        self.with_vault(|vault| restore::check(vault, &options))?;
        let made = make_empty(&to)?;
        (self.step)(format!("the share of {shown} (batch {})", mark.batch));
        let progress = |written: past::Written| {
            let (objects, bytes) = (words::count(written.objects), words::bytes(written.bytes));
            (self.step)(format!("the share of {shown}: {objects} objects, {bytes}"));
        };
        let written = past::write_tree(store, mark.batch, &to.join("share"), &progress, self.stop)
            .map_err(|error| undone(&made, &to, error.to_string()))?;
        let restored = self.run(&options)?;
        let text = format!(
            "{}: share ({} objects, {}) and database of {shown}\n{}{}",
            to.display(),
            words::count(written.objects),
            words::bytes(written.bytes),
            report(&restored, &options),
            self.ahead(asked).unwrap_or_default()
        );
        let mut value = reply(&text, &restored)?;
        value["mark"] =
            json!({ "seconds": mark.time.seconds, "nanos": mark.time.nanos, "batch": mark.batch });
        value["share"] = json!({ "objects": written.objects, "bytes": written.bytes });
        Ok(value)
    }

    fn run(&self, options: &RestoreOptions) -> Result<Restored, String> {
        self.with_vault(|vault| restore::run(vault, options, self.step, self.stop))
    }

    fn with_vault<T>(&self, work: impl FnOnce(&Vault<'_>) -> Result<T, RestoreError>) -> Result<T, String> {
        let tools = Tools::new(self.keep.settings.tools.clone());
        let vault = Vault {
            archive: &self.keep.archive,
            bases: &self.keep.bases,
            tools: &tools,
            runtime: self.runtime,
        };
        work(&vault).map_err(|error| error.to_string())
    }

    fn moment(&self, request: &Value) -> Result<RestoreMoment, String> {
        if let Some(gtid) = request["gtid"].as_str() {
            return Ok(RestoreMoment::Gtid(gtid.to_owned()));
        }
        if let Some(position) = request["position"].as_str() {
            let parts = position.rsplit_once(':').and_then(|(file, at)| Some((file, at.parse().ok()?)));
            let (file, offset) =
                parts.ok_or_else(|| format!("`{position}` is not a place; write bin.000007:1234"))?;
            return Ok(RestoreMoment::Position { file: file.to_owned(), offset });
        }
        let asked = request["at"].as_str().ok_or("say which moment: --at, --gtid or --position")?;
        match parse(asked)? {
            moment::Target::Latest => Ok(RestoreMoment::At(Target::Latest)),
            moment::Target::Time(time) => Ok(RestoreMoment::At(Target::Time(time))),
            moment::Target::Label(label) => {
                let bases = self.keep.bases.list();
                let base = bases.iter().rev().find(|base| base.label.as_deref() == Some(&label));
                let base = base.ok_or_else(|| {
                    let known: Vec<&str> = bases.iter().filter_map(|base| base.label.as_deref()).collect();
                    format!("no base snapshot has the label `{label}`; there are: {}", known.join(", "))
                })?;
                let files = self.keep.archive.files();
                let file = files.iter().find(|f| f.lineage == base.lineage && f.name == base.place.file);
                let file = file.ok_or_else(|| {
                    format!("the binary log {} of that base snapshot is not kept any more", base.place.file)
                })?;
                let (lineage, file) = (file.lineage, file.ordinal);
                Ok(RestoreMoment::Place(Place { lineage, file, offset: base.place.offset }))
            }
        }
    }

    /// What a time does not find, because moments never go back and nfs1's clock did.
    fn ahead(&self, asked: &str) -> Option<String> {
        let moment::Target::Time(_) = parse(asked).ok()? else { return None };
        let known = DatabaseStatus {
            archive: Some(self.keep.archive.status()),
            newest_mark_ms: self.keep.marks.newest().map(|mark| database_archive::ms(mark.time)),
            ..DatabaseStatus::default()
        };
        let ahead = words::duration(known.ahead(words::now_ms())?);
        Some(format!(
            "ATTENTION: the clock of nfs1 was ahead, moments are known up to {ahead} in the future. What was committed \
             since it jumped has such times and is not in this unless {asked} is before the jump: --at latest, --gtid \
             and --position find it\n"
        ))
    }

    /// The newest mark at or before the moment.
    fn mark(&self, asked: &str, exact: bool) -> Result<Mark, String> {
        let marks = &self.keep.marks;
        let found = match parse(asked)? {
            moment::Target::Latest => marks.newest(),
            moment::Target::Time(time) => {
                let mark = marks.at_or_before(time).map_err(|error| error.to_string())?;
                match mark {
                    Some(mark) if exact && mark.time != time => {
                        return Err(format!(
                            "no mark is exactly at {asked}; the one before it is at {}",
                            moment::rfc3339(mark.time)
                        ));
                    }
                    mark => mark,
                }
            }
            moment::Target::Label(_) => {
                return Err("a label names a base snapshot of the database, not a moment of both".to_owned());
            }
        };
        found.ok_or_else(|| {
            let oldest = marks.oldest().ok().flatten();
            match oldest {
                Some(oldest) => format!(
                    "no moment that files and database have in common is known at or before {asked}; the first is {}",
                    moment::rfc3339(oldest.time)
                ),
                None => "no moment that files and database have in common is known yet: `ehpc-store ctl fence` on nfs1 \
                         makes one"
                    .to_owned(),
            }
        })
    }
}

fn parse(asked: &str) -> Result<moment::Target, String> {
    let parsed = Moment::parse(asked, &|seconds| local_time(seconds).offset_seconds);
    parsed.and_then(|moment| moment.target(host::now())).map_err(|error| error.to_string())
}

/// Makes the directory, or accepts an empty one; true = it was made.
fn make_empty(path: &Path) -> Result<bool, String> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let empty = std::fs::read_dir(path).map(|mut names| names.next().is_none());
            match empty {
                Ok(true) => Ok(false),
                Ok(false) => Err(format!("{} is not empty: name a directory that is", path.display())),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        }
        Err(error) => Err(format!("making {}: {error}", path.display())),
    }
}

/// Nothing was restored: an empty directory of ours is taken away again.
fn undone(made: &bool, path: &Path, error: String) -> String {
    if *made {
        let _ = std::fs::remove_dir(path);
    }
    error
}

fn reply(text: &str, restored: &Restored) -> Result<Value, String> {
    let mut value = serde_json::to_value(restored).map_err(|error| error.to_string())?;
    value["text"] = json!(text);
    Ok(value)
}

fn report(restored: &Restored, options: &RestoreOptions) -> String {
    let until = match restored.at.seconds {
        0 => String::new(),
        _ => format!(", last transaction of {}", shown(restored.at)),
    };
    let gtid = if restored.gtid.is_empty() { String::new() } else { format!(" (GTID {})", restored.gtid) };
    let mut text = format!(
        "the database up to {}:{}{gtid}{until}: base {} ({} of SQL) and {} of binary log\n",
        restored.file,
        restored.place.offset,
        restored.base,
        words::bytes(restored.base_bytes),
        words::bytes(restored.replayed_bytes)
    );
    match restored.equal {
        Some(true) => text.push_str(&format!(
            "EQUAL: {} tables, at the place where they were summed up\n",
            words::count(restored.compared as u64)
        )),
        Some(false) => {
            text.push_str("DIFFERENT from what was recorded when the base was taken:\n");
            restored.differences.iter().for_each(|difference| text.push_str(&format!("  {difference}\n")));
        }
        None => {}
    }
    restored.compared_note.iter().for_each(|note| text.push_str(&format!("{note}\n")));
    if !restored.lacks_history.is_empty() {
        text.push_str(&format!(
            "without earlier rows (the base does not hold the history of system-versioned tables): {}\n",
            restored.lacks_history.join(", ")
        ));
    }
    for statement in &restored.left_out {
        text.push_str(&format!(
            "left out, because the account that restored cannot grant it (where it only may not, run it as one that may): {statement}\n"
        ));
    }
    for branch in &restored.unlogged_branches {
        text.push_str(&format!(
            "NOT WHOLE: the changes of XA branch {branch} are in no binary log (its server was killed within XA PREPARE); a base \
             taken after that has them\n"
        ));
    }
    for branch in &restored.prepared {
        text.push_str(&format!("prepared, neither committed nor rolled back: {branch}\n"));
    }
    match (&options.target, &restored.socket) {
        (_, Some(socket)) => {
            text.push_str(&format!(
                "it runs until the backup daemon ends: mariadb -S {}\n",
                socket.display()
            ));
        }
        (RestoreTarget::Datadir(datadir), None) => {
            text.push_str(&format!("start a server on it: mariadbd --datadir={}\n", datadir.display()));
        }
        (RestoreTarget::Server(_), None) => {}
    }
    text
}
