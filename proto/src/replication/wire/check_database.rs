//! What the types of the database's lane cannot say: lengths, names, ranges.

use super::super::database::{
    ArchivedFile, DbAnswer, DbQuery, DrillState, Drilled, Joined, Lineage, MAX_COLUMNS, MAX_DAMAGE,
    MAX_FILES, MAX_HEAD, MAX_NAME, MAX_PIECE, MAX_ROWS_BYTES, MAX_STATEMENT, Place, SqlRow, ToArchive,
    ToSource, name_is_valid,
};
use super::check::{Checked, MAX_TEXT, at_most, invalid, time};

/// Longest GTID state as text, bytes. (MySQL's sets grow with every server and every gap.)
pub const MAX_GTID: usize = 256 * 1024;

/// A message to the archive.
pub fn to_archive(message: &ToArchive) -> Checked {
    match message {
        ToArchive::Hello { source, .. } => {
            at_most("hello", "bytes of the server's name", source.len(), MAX_TEXT)
        }
        ToArchive::Open { lineage: of, name, ordinal, joined: after } => {
            lineage(of)?;
            file_name(name)?;
            if *ordinal == 0 {
                return invalid("file", "its ordinal is 0, the first is 1".to_owned());
            }
            after.as_ref().map_or(Ok(()), |after| joined(of, after))
        }
        ToArchive::Bytes { offset, arrived, bytes } => {
            time("bytes of a binary log", *arrived)?;
            piece(*offset, bytes.len())
        }
        ToArchive::Patch { offset, bytes, .. } => piece(*offset, bytes.len()),
        ToArchive::Closed { name, .. } => file_name(name),
        ToArchive::Mark(mark) => {
            time("mark", mark.time)?;
            place(mark.place)
        }
        ToArchive::Ask { query: asked, .. } => query(asked),
        ToArchive::Ping(_) => Ok(()),
    }
}

/// A message to the source.
pub fn to_source(message: &ToSource) -> Checked {
    match message {
        ToSource::Welcome { lineage: newest, file: last, head, gtid, .. } => {
            newest.as_ref().map_or(Ok(()), lineage)?;
            last.as_ref().map_or(Ok(()), file)?;
            if last.is_some() && newest.is_none() {
                return invalid("welcome", "a file without a lineage".to_owned());
            }
            at_most("welcome", "bytes of a file's head", head.len(), MAX_HEAD)?;
            at_most("welcome", "bytes of GTID state", gtid.len(), MAX_GTID)
        }
        ToSource::Durable(durable) => place(*durable),
        ToSource::Answer { answer: given, .. } => answer(given),
        ToSource::Refused { reason } => at_most("refusal", "bytes of reason", reason.len(), MAX_TEXT),
        ToSource::Credit { .. } | ToSource::Pong(_) => Ok(()),
    }
}

fn lineage(lineage: &Lineage) -> Checked {
    if lineage.number == 0 {
        return invalid("lineage", "its number is 0, the first is 1".to_owned());
    }
    at_most("lineage", "bytes of version", lineage.version.len(), 256)?;
    file_name(&lineage.first_file)
}

fn joined(lineage: &Lineage, joined: &Joined) -> Checked {
    place(joined.end)?;
    if joined.end.lineage >= lineage.number {
        let (number, other) = (lineage.number, joined.end.lineage);
        return invalid("lineage", format!("lineage {number} goes on from lineage {other}"));
    }
    at_most("lineage", "bytes of GTID state", joined.gtid.len(), MAX_GTID)
}

fn place(place: Place) -> Checked {
    if place.lineage == 0 || place.file == 0 {
        return invalid("place", format!("file {} of lineage {}", place.file, place.lineage));
    }
    Ok(())
}

fn file(file: &ArchivedFile) -> Checked {
    place(Place { lineage: file.lineage, file: file.ordinal, offset: file.len })?;
    file_name(&file.name)
}

fn file_name(name: &str) -> Checked {
    if name_is_valid(name) {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(MAX_TEXT).collect();
    invalid("file", format!("\"{shown}\" is no name of a binary log"))
}

fn piece(offset: u64, length: usize) -> Checked {
    if length == 0 || length > MAX_PIECE {
        return invalid("piece", format!("{length} bytes, 1 to {MAX_PIECE} are allowed"));
    }
    match offset.checked_add(length as u64).filter(|&end| end <= i64::MAX as u64) {
        Some(_) => Ok(()),
        None => invalid("piece", format!("{length} bytes at offset {offset}")),
    }
}

fn query(query: &DbQuery) -> Checked {
    match query {
        DbQuery::Files { .. }
        | DbQuery::NewestBase
        | DbQuery::StandbyClose { .. }
        | DbQuery::DrillClose { .. }
        | DbQuery::Drill { .. } => Ok(()),
        DbQuery::StandbySql { statement, .. } | DbQuery::DrillSql { statement, .. } => {
            at_most("question", "bytes of SQL", statement.len(), MAX_STATEMENT)
        }
        DbQuery::Check { lineage, ordinal } => place(Place { lineage: *lineage, file: *ordinal, offset: 0 }),
        DbQuery::Hash { lineage, ordinal, from, to } | DbQuery::Refetch { lineage, ordinal, from, to } => {
            place(Place { lineage: *lineage, file: *ordinal, offset: *from })?;
            if from > to || (from == to && matches!(query, DbQuery::Refetch { .. })) {
                return invalid("question", format!("bytes {from} to {to}"));
            }
            Ok(())
        }
    }
}

fn answer(answer: &DbAnswer) -> Checked {
    match answer {
        DbAnswer::Files(files) => {
            at_most("answer", "files", files.len(), MAX_FILES)?;
            files.iter().try_for_each(file)
        }
        DbAnswer::Failed { reason } => at_most("answer", "bytes of reason", reason.len(), MAX_TEXT),
        DbAnswer::Rows { columns, rows: all } => rows(columns, all),
        DbAnswer::SqlFailed { text, .. } => at_most("answer", "bytes of text", text.len(), MAX_TEXT),
        DbAnswer::Checked(damage) => {
            at_most("answer", "damaged places", damage.len(), MAX_DAMAGE)?;
            damage
                .iter()
                .try_for_each(|damage| at_most("answer", "bytes of reason", damage.reason.len(), MAX_TEXT))
        }
        DbAnswer::Drill(state) => drill(state),
        DbAnswer::Hash(_) | DbAnswer::Refetched | DbAnswer::NewestBase(_) => Ok(()),
    }
}

fn drill(state: &DrillState) -> Checked {
    match state {
        DrillState::Working(text) | DrillState::Failed(text) | DrillState::Unsound(text) => {
            at_most("answer", "bytes of text", text.len(), MAX_TEXT)
        }
        DrillState::Ready(drilled) => {
            let Drilled { file, gtid, differences, lacks_history, unlogged_branches, compared_note, .. } =
                drilled;
            at_most("answer", "bytes of a file's name", file.len(), MAX_NAME)?;
            at_most("answer", "bytes of GTID state", gtid.len(), MAX_GTID)?;
            for texts in [differences, lacks_history, unlogged_branches] {
                at_most("answer", "differences", texts.len(), MAX_DAMAGE)?;
            }
            let texts = differences.iter().chain(lacks_history).chain(unlogged_branches).chain(compared_note);
            texts.into_iter().try_for_each(|text| at_most("answer", "bytes of text", text.len(), MAX_TEXT))
        }
        DrillState::Ended => Ok(()),
    }
}

fn rows(columns: &[String], rows: &[SqlRow]) -> Checked {
    at_most("answer", "columns", columns.len(), MAX_COLUMNS)?;
    columns.iter().try_for_each(|name| at_most("answer", "bytes of a name", name.len(), MAX_TEXT))?;
    let mut bytes = 0_usize;
    for row in rows {
        if row.len() != columns.len() {
            return invalid("answer", format!("{} values for {} columns", row.len(), columns.len()));
        }
        bytes = bytes.saturating_add(row.iter().flatten().map(Vec::len).sum());
    }
    at_most("answer", "bytes of values", bytes, MAX_ROWS_BYTES)
}
