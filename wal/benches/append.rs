//! A lane on a disk, kept busy by a closed loop on its own thread. Prints one JSON object.
//!
//! It continues a log that an earlier run left in DIR, and reuses its segments.
//!
//! `append dir=DIR sync=direct|fdatasync|none in_flight=64 record_bytes=1024 seconds=2`

mod support;

use forebay_wal::limits::SEGMENT_BYTES_DEFAULT;
use std::time::Duration;
use support::{Args, Outcome, Writer, pattern};

/// Segments that exist before the measurement: the current one, those ahead of it, and one to recycle.
const SEGMENTS: u64 = 4;

/// Time at the start of a run that is not measured.
const WARM_UP: Duration = Duration::from_millis(100);

fn main() -> Outcome<()> {
    let args = Args::read(&["dir", "sync", "in_flight", "record_bytes", "seconds", "segment_bytes"])?;
    let sync = args.sync()?;
    let in_flight = args.number("in_flight", 64)?;
    let body = pattern(args.number("record_bytes", 1024)?);
    let length = Duration::from_secs_f64(args.number("seconds", 2.0)?);
    let segment_bytes = args.number("segment_bytes", SEGMENT_BYTES_DEFAULT)?;
    let dir = args.dir()?;
    let mut writer = Writer::open(dir.path(), sync, segment_bytes, true)?;
    writer.warm_up(SEGMENTS, segment_bytes)?;
    writer.run(&body, in_flight, |_, elapsed| elapsed >= WARM_UP)?;
    let run = writer.run(&body, in_flight, |_, elapsed| elapsed >= length)?;
    writer.close();
    let seconds = run.elapsed.as_secs_f64();
    println!(
        "{{\"records_per_s\":{:.0},\"written_bytes_per_s\":{:.0},\"group_bytes\":{:.0},\"groups\":{},\"p50_us\":{},\"p99_us\":{},\"busy\":{}}}",
        run.records as f64 / seconds,
        run.written_bytes as f64 / seconds,
        run.written_bytes as f64 / run.groups.max(1) as f64,
        run.groups,
        run.latency_us.value_at_quantile(0.5),
        run.latency_us.value_at_quantile(0.99),
        run.busy,
    );
    Ok(())
}
