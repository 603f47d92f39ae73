//! Compares two ways to treat the rest of a group's last block. *Pad* starts the next group on the next block; the log does
//! so. *Rewrite* writes the block again, with the next group's bytes behind the old ones. The benchmark makes the bare writes
//! of one way to a file like a segment, or to one that an earlier run left in DIR. Prints one JSON object.
//! `docs/decisions/0004-partial-blocks.md` says why the log pads.
//!
//! `partial_blocks dir=DIR pattern=pad|rewrite sync=direct|fdatasync connections=16 record_bytes=200 seconds=1`

mod support;

use aligned_vec::{AVec, ConstAlign};
use forebay_wal::{
    frame::frame_len,
    group::SyncMethod,
    limits::{BLOCK_BYTES, SEGMENT_BYTES_DEFAULT, SEGMENT_HEADER_BYTES},
    storage::{Disk, Storage},
};
use rustix::io::ReadWriteFlags;
use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};
use support::{Args, Outcome, latencies, micros, pattern};

struct Segment {
    file: File,
    sync: SyncMethod,
    /// Whether the last partial block is written again.
    rewrites: bool,
    /// The last block's bytes, as far as they are written, and the next group's.
    buffer: AVec<u8, ConstAlign<BLOCK_BYTES>>,
    /// Offset in the file of the buffer's first byte.
    offset: u64,
}

/// The cost of a group.
struct Written {
    /// Bytes that were written.
    written_bytes: u64,
    /// Bytes by which the log grew.
    log_bytes: u64,
}

impl Segment {
    /// Writes the group's bytes and makes them durable.
    fn write_group(&mut self, group: &[u8]) -> io::Result<Written> {
        self.buffer.extend_from_slice(group);
        let used = self.buffer.len();
        self.buffer.resize(used.next_multiple_of(BLOCK_BYTES), 0);
        if self.offset + self.buffer.len() as u64 > SEGMENT_BYTES_DEFAULT {
            self.offset = SEGMENT_HEADER_BYTES as u64;
        }
        let written = if self.sync == SyncMethod::Direct {
            rustix::io::pwritev2(&self.file, &[IoSlice::new(&self.buffer)], self.offset, ReadWriteFlags::DSYNC)?
        } else {
            let written = rustix::io::pwrite(&self.file, &self.buffer, self.offset)?;
            self.file.sync_data()?;
            written
        };
        if written != self.buffer.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let (done, kept) = if self.rewrites { (used - used % BLOCK_BYTES, used % BLOCK_BYTES) } else { (written, 0) };
        self.buffer.copy_within(done..done + kept, 0);
        self.buffer.truncate(kept);
        self.offset += done as u64;
        Ok(Written { written_bytes: written as u64, log_bytes: done as u64 })
    }
}

fn main() -> Outcome<()> {
    let args = Args::read(&["dir", "pattern", "sync", "connections", "record_bytes", "seconds"])?;
    let sync = args.sync()?;
    let connections: usize = args.number("connections", 16)?;
    let group = pattern(frame_len(args.number("record_bytes", 200)?) * connections);
    let length = Duration::from_secs_f64(args.number("seconds", 1.0)?);
    let rewrites = match args.word("pattern", "pad") {
        "pad" => false,
        "rewrite" => true,
        other => return Err(format!("pattern={other}: pad or rewrite").into()),
    };
    let dir = args.dir()?;
    let path = dir.path().join("segment");
    if !path.exists() {
        Disk::at(dir.path())?.create_segment(&path, &[0; BLOCK_BYTES], SEGMENT_BYTES_DEFAULT)?;
    }
    let flags = if sync == SyncMethod::Direct { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new().write(true).custom_flags(flags).open(&path)?;
    let offset = SEGMENT_HEADER_BYTES as u64;
    let mut segment = Segment { file, sync, rewrites, buffer: AVec::new(BLOCK_BYTES), offset };
    let (mut latency_us, mut groups, mut written_bytes, mut log_bytes) = (latencies()?, 0_u64, 0_u64, 0_u64);
    let start = Instant::now();
    let mut now = start;
    while now - start < length {
        let written = segment.write_group(&group)?;
        written_bytes += written.written_bytes;
        log_bytes += written.log_bytes;
        groups += 1;
        let then = std::mem::replace(&mut now, Instant::now());
        latency_us.saturating_record(micros(now - then));
    }
    let (seconds, records) = ((now - start).as_secs_f64(), groups * connections as u64);
    println!(
        "{{\"records_per_s\":{:.0},\"written_bytes_per_record\":{:.0},\"log_bytes_per_record\":{:.0},\"p50_us\":{},\"p99_us\":{}}}",
        records as f64 / seconds,
        written_bytes as f64 / records as f64,
        log_bytes as f64 / records as f64,
        latency_us.value_at_quantile(0.5),
        latency_us.value_at_quantile(0.99),
    );
    Ok(())
}
