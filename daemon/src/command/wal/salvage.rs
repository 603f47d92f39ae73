//! `wal salvage`: copies the records that verify out of the log.

use super::{inspection, inspection::Inspection, record};
use crate::command::{Exit, print::print};
use forebay_wal::recovery::RecoveredLane;
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Only the own account may read the messages, as in the log.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The copy of a lane.
struct Copied<'a> {
    lane: &'a RecoveredLane,
    path: PathBuf,
    records: u64,
}

pub(super) fn run(log: &Inspection, to: &Path) -> Result<(), Exit> {
    make_dir(log, to)?;
    let copied: Result<Vec<_>, Exit> = log.lanes.iter().map(|lane| copy(log, lane, to)).collect();
    let copied = copied?;
    File::open(to).and_then(|dir| dir.sync_all()).map_err(|error| failed("sync", to, &error))?;
    print(|out| {
        if log.log_id_lost {
            writeln!(out, "log-id is missing or damaged; the log's id comes from a segment's header")?;
        }
        for Copied { lane, path, records } in &copied {
            let missing = inspection::missing_records(lane);
            writeln!(
                out,
                "lane {}: {records} records copied to {}, {missing} known to be missing",
                lane.lane,
                path.display()
            )?;
            for finding in lane.findings.iter().filter(|finding| !log.is_expected(finding)) {
                writeln!(out, "lane {}: {finding}", lane.lane)?;
            }
        }
        let records: u64 = copied.iter().map(|copied| copied.records).sum();
        let missing: u64 = log.lanes.iter().map(inspection::missing_records).sum();
        writeln!(out, "total: {records} records copied, {missing} known to be missing")
    })?;
    if log.is_sound() { Ok(()) } else { Err(Exit::findings()) }
}

/// Makes the directory, or accepts an empty one. It must not lie within the log.
fn make_dir(log: &Inspection, to: &Path) -> Result<(), Exit> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = to.canonicalize().or_else(|_| parent.canonicalize());
    let place = place.map_err(|error| Exit::usage(format!("{}: {error}", parent.display())))?;
    let root = log.root().canonicalize().map_err(|error| failed("find", log.root(), &error))?;
    if place.starts_with(&root) {
        return Err(Exit::usage(format!("{} lies within the log", to.display())));
    }
    match DirBuilder::new().mode(DIR_MODE).create(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(|error| failed("make", to, &error)),
    }
    let mut entries = to.read_dir().map_err(|error| Exit::usage(format!("{}: {error}", to.display())))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Exit::usage(format!("{} is not empty", to.display()))),
    }
}

fn copy<'a>(log: &Inspection, lane: &'a RecoveredLane, to: &Path) -> Result<Copied<'a>, Exit> {
    let path = to.join(format!("lane-{:02}.ndjson", lane.lane));
    let failed = |error: io::Error| failed("write", &path, &error);
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path).map_err(failed)?;
    let mut out = BufWriter::new(file);
    let mut found = log.records_of(lane)?;
    let (mut records, mut line) = (0, Vec::new());
    while let Some(record) = found.next()? {
        record::render(&record, record::message(&record).as_ref(), &mut line).map_err(failed)?;
        out.write_all(&line).map_err(failed)?;
        records += 1;
    }
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(Copied { lane, path, records })
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Exit {
    Exit::storage(format!("cannot {what} {}: {error}", path.display()))
}
