//! `wal salvage`: copies what verifies out of the log.

use super::{Exit, look, look::Look, print, record};
use forebay_wal::recovery::RecoveredLane;
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Messages are for the own account only, as the log is.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What was copied of a lane.
struct Copied<'a> {
    lane: &'a RecoveredLane,
    path: PathBuf,
    records: u64,
}

pub(super) fn run(look: &Look, to: &Path) -> Result<(), Exit> {
    make_dir(look, to)?;
    let copied: Result<Vec<_>, Exit> = look.lanes.iter().map(|lane| copy(look, lane, to)).collect();
    let copied = copied?;
    File::open(to).and_then(|dir| dir.sync_all()).map_err(|error| failed("sync", to, &error))?;
    print(|out| {
        if look.log_id_lost {
            writeln!(out, "log-id is missing or damaged; a segment's header told which log it is")?;
        }
        for Copied { lane, path, records } in &copied {
            let missing = look::missing_records(lane);
            writeln!(
                out,
                "lane {}: {records} records copied to {}, {missing} known to be missing",
                lane.lane,
                path.display()
            )?;
            for finding in lane.findings.iter().filter(|finding| !look.is_expected(finding)) {
                writeln!(out, "lane {}: {finding}", lane.lane)?;
            }
        }
        let records: u64 = copied.iter().map(|copied| copied.records).sum();
        let missing: u64 = look.lanes.iter().map(look::missing_records).sum();
        writeln!(out, "total: {records} records copied, {missing} known to be missing")
    })?;
    if look.is_sound() { Ok(()) } else { Err(Exit::findings()) }
}

/// Makes the directory, or takes one that is empty; never one within the log.
fn make_dir(look: &Look, to: &Path) -> Result<(), Exit> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = to.canonicalize().or_else(|_| parent.canonicalize());
    let place = place.map_err(|error| Exit::usage(format!("{}: {error}", parent.display())))?;
    let root = look.root().canonicalize().map_err(|error| failed("find", look.root(), &error))?;
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

fn copy<'a>(look: &Look, lane: &'a RecoveredLane, to: &Path) -> Result<Copied<'a>, Exit> {
    let path = to.join(format!("lane-{:02}.ndjson", lane.lane));
    let failed = |error: io::Error| failed("write", &path, &error);
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path).map_err(failed)?;
    let mut out = BufWriter::new(file);
    let mut found = look.records_of(lane)?;
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
