//! Framing and checksums without a disk: group commit takes one record, or a group of records and its completion.
//! Throughput is in bytes of payload. The targets are 2 GB/s a core at 1 KiB and 200 MB/s at 64 bytes.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay_wal::{
    frame::KIND_MESSAGE,
    group::{GroupCommit, LaneStart, Record},
    limits::SEGMENT_BYTES_DEFAULT,
    position::segment_start,
};
use std::{hint::black_box, time::Duration};

/// Records of one group, one for each of so many connections.
const RECORDS_PER_GROUP: usize = 64;

/// Bytes that the daemon's encoding of a message puts before its payload.
const HEAD_BYTES: usize = 32;

fn commit() -> GroupCommit {
    let tail = segment_start(1);
    let start = LaneStart {
        log_id: [7; 16],
        lane: 0,
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        tail,
        next_ordinal: 0,
        is_sealed: false,
        pending_tail: None,
    };
    GroupCommit::new(start)
}

/// Appends a group's records, each a batch of its own, and completes it.
fn one_group(commit: &mut GroupCommit, number: &mut u64, record: Record<'_>) {
    while let Some(header) = commit.take_segment_request(*number) {
        commit.add_ready_segment(header.segment);
    }
    for _ in 0..RECORDS_PER_GROUP {
        let appended = commit.append(black_box(&[record]), |count| {
            *number += count;
            *number - count
        });
        assert!(appended.is_ok(), "{appended:?}");
    }
    // The end of a segment closes a group while another one is open.
    while let Some(group) = commit.take_next_group() {
        let bytes = group.unwritten().map(<[u8]>::len).sum();
        assert!(commit.complete(black_box(group), Ok(bytes)).is_ok());
    }
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(30);
    for payload_bytes in [64, 1 << 10, 16 << 10] {
        let payload: Vec<u8> = (0..payload_bytes).map(|i| (i % 251) as u8).collect();
        let (head, body) = payload.split_at(HEAD_BYTES);
        let record = Record { kind: KIND_MESSAGE, head, body };
        group.throughput(Throughput::Bytes((RECORDS_PER_GROUP * payload_bytes) as u64));
        group.bench_function(BenchmarkId::from_parameter(payload_bytes), |bencher| {
            let (mut commit, mut number) = (commit(), 0);
            bencher.iter(|| one_group(&mut commit, &mut number, record));
        });
    }
    group.finish();
}

criterion_group!(benches, framing);
criterion_main!(benches);
