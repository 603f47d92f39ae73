//! How fast a start reads a log, and in how much memory. Prints one JSON object for each measurement.
//!
//! ```text
//! recover mode=make dir=DIR bytes=2147483648 record_bytes=1024 in_flight=64   makes a log in DIR, with groups as of so many connections
//! recover mode=scan dir=DIR        reads it as recovery does
//! recover mode=plain dir=DIR       reads the same files one after the other, directly, a mebibyte at a time
//! recover                          all three, in a directory of its own that is removed
//! ```

mod support;

use aligned_vec::{AVec, ConstAlign};
use forebay_wal::{
    group::SyncMethod,
    layout::Layout,
    limits::{BLOCK_BYTES, SEGMENT_BYTES_DEFAULT},
    recovery::{RecoverOptions, recover_lane},
    segment::parse_file_name,
    storage::{Disk, Storage},
};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use support::{Args, Outcome, Writer, pattern};

/// Bytes that the comparison reads at once.
const READ_BYTES: usize = 1 << 20;

fn main() -> Outcome<()> {
    let args = Args::read(&["mode", "dir", "bytes", "record_bytes", "in_flight"])?;
    let dir = args.dir()?;
    let dir = dir.path();
    match args.word("mode", "all") {
        "make" => make(dir, &args),
        "scan" => scan(dir),
        "plain" => plain(dir),
        "all" => make(dir, &args).and_then(|()| plain(dir)).and_then(|()| scan(dir)),
        other => Err(format!("mode={other}: make, scan, plain or all").into()),
    }
}

fn make(dir: &Path, args: &Args) -> Outcome<()> {
    let bytes: u64 = args.number("bytes", 2 << 30)?;
    let body = pattern(args.number("record_bytes", 1024)?);
    let mut writer = Writer::open(dir, SyncMethod::None, SEGMENT_BYTES_DEFAULT, false)?;
    let run = writer.run(&body, args.number("in_flight", 64)?, |progress, _| progress.written_bytes >= bytes)?;
    writer.close();
    for path in segments(dir)? {
        File::open(path)?.sync_all()?;
    }
    drop_page_cache(dir)?;
    println!("{{\"mode\":\"make\",\"records\":{},\"written_bytes\":{}}}", run.records, run.written_bytes);
    Ok(())
}

fn scan(dir: &Path) -> Outcome<()> {
    let (layout, disk) = (Layout::new(dir), Disk::at(dir)?);
    let options =
        RecoverOptions { log_id: layout.read_log_id(&disk)?, segment_bytes: SEGMENT_BYTES_DEFAULT, sync: false };
    drop_page_cache(dir)?;
    let memory = Memory::start()?;
    let start = Instant::now();
    let lane = recover_lane(&disk, &layout, 0, options)?;
    let took = start.elapsed();
    let grown_bytes = memory.grown_bytes()?;
    let records: u64 = lane.segments.iter().map(|found| found.records).sum();
    if records == 0 || !lane.findings.is_empty() {
        return Err(format!("{records} records, findings {:?}", lane.findings).into());
    }
    report("scan", total_bytes(dir)?, took, grown_bytes);
    Ok(())
}

fn plain(dir: &Path) -> Outcome<()> {
    drop_page_cache(dir)?;
    let memory = Memory::start()?;
    let mut buffer: AVec<u8, ConstAlign<BLOCK_BYTES>> = AVec::new(BLOCK_BYTES);
    buffer.resize(READ_BYTES, 0);
    let start = Instant::now();
    for path in segments(dir)? {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
        let mut at = 0;
        loop {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
    }
    report("plain", total_bytes(dir)?, start.elapsed(), memory.grown_bytes()?);
    Ok(())
}

fn report(mode: &str, bytes: u64, took: Duration, grown_bytes: u64) {
    println!(
        "{{\"mode\":\"{mode}\",\"bytes\":{bytes},\"bytes_per_s\":{:.0},\"memory_bytes\":{grown_bytes}}}",
        bytes as f64 / took.as_secs_f64()
    );
}

/// The files of the only lane, in order.
fn segments(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let lane = Layout::new(dir).lane(0);
    let mut names = Disk::at(dir)?.list(&lane)?;
    names.retain(|name| parse_file_name(name).is_some());
    names.sort_unstable();
    Ok(names.into_iter().map(|name| lane.join(name)).collect())
}

fn total_bytes(dir: &Path) -> Outcome<u64> {
    let mut total_bytes = 0;
    for path in segments(dir)? {
        total_bytes += path.metadata()?.len();
    }
    Ok(total_bytes)
}

/// Drops the files from the page cache: buffered reads must not find them there.
fn drop_page_cache(dir: &Path) -> Outcome<()> {
    for path in segments(dir)? {
        rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// The resident memory of this process, from now on.
struct Memory {
    start_bytes: u64,
}

impl Memory {
    fn start() -> Outcome<Self> {
        // Resets the peak (proc(5)).
        std::fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self { start_bytes: status_bytes("VmRSS:")? })
    }

    /// By how much the peak rose since then.
    fn grown_bytes(&self) -> Outcome<u64> {
        Ok(status_bytes("VmHWM:")?.saturating_sub(self.start_bytes))
    }
}

fn status_bytes(name: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}
