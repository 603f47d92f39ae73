//! Recovers and reads a log whose files have arbitrary content.
//!
//! What must hold for all contents:
//! - No panic. Memory stays below a bound that does not depend on the size of the log.
//! - The checksums of every record that is read match those computed here from the bytes of the file.
//! - Ordinals increase from record to record, so that no record is read twice.
//! - A second recovery gives the same result as the first, and the reader reads as many records as recovery counted.
#![no_main]

use arbitrary::Arbitrary;
use forebay_wal::{
    frame::{self, FrameHeader, HEADER_BYTES, SegmentSeed},
    group::{Completion, GroupCommit, LaneStart, Record},
    layout::Layout,
    limits::{BLOCK_BYTES, SEGMENT_BYTES_MIN},
    position::segment_start,
    reader::{Event, LaneReader},
    recovery::{RecoverOptions, RecoveredLane, recover_lane},
    scan::ReadAt,
    segment::{SegmentHeader, file_name},
    storage::Storage,
};
use libfuzzer_sys::fuzz_target;
use std::{
    alloc::{GlobalAlloc, Layout as MemoryLayout, System},
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

const LOG_ID: [u8; 16] = *b"a log to recover";
const LANE: u16 = 1;
const SEGMENT_BYTES: usize = SEGMENT_BYTES_MIN as usize;

/// Most memory that a recovery and a reading may allocate at once: two read buffers, and some more for names and findings.
const MEMORY_MAX_BYTES: usize = 2 << 20;

/// An allocator that counts bytes.
struct Counting;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all calls go to the system's allocator, which keeps the contract. The counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: MemoryLayout) -> *mut u8 {
        let allocated = ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(allocated, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: MemoryLayout) {
        ALLOCATED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` above returns the system allocator's pointers.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The content of the files: batches, then edits.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Batches that the log writes before the edits, each as the sizes of its records.
    batches: Vec<Vec<u16>>,
    /// Whether the log seals the lane after the batches.
    sealed: bool,
    edits: Vec<Edit<'a>>,
}

/// A change of the files.
#[derive(Arbitrary, Debug)]
enum Edit<'a> {
    /// Arbitrary bytes.
    Overwrite { segment: u8, at: u16, bytes: &'a [u8] },
    /// A flipped bit.
    Flip { segment: u8, at: u16, bit: u8 },
    /// A block of zeros.
    Zero { segment: u8, block: u8 },
    /// A frame with a valid checksum and an arbitrary header.
    Forge {
        segment: u8,
        at: u16,
        number: u64,
        ordinal: u64,
        kind: u16,
        flags: u16,
        length: u32,
        remaining: u32,
        group_block: u32,
    },
    /// A segment header with a valid checksum.
    ForgeHeader { segment: u8, number: u8, unfinished_block: u32, base_number: u64, base_ordinal: u64, zeroed: bool },
    /// Bytes of the log, copied to another position.
    Copy { segment: u8, from: u16, to_segment: u8, to: u16, length: u16 },
    /// A shorter file.
    Truncate { segment: u8, length: u16 },
    /// A missing file.
    Remove { segment: u8 },
    /// A file with arbitrary content.
    Whole { number: u8, bytes: &'a [u8] },
    /// A block that gives a read error.
    Unreadable { segment: u8, block: u8 },
}

/// A directory in memory, with one lane.
#[derive(Clone, Default)]
struct Memory(Arc<BTreeMap<String, Content>>);

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    unreadable_blocks: Vec<usize>,
}

struct MemoryFile(Memory, String);

impl ReadAt for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = &self.0.0[&self.1];
        let range = offset as usize..offset as usize + buf.len();
        let hits = |block: &usize| block * BLOCK_BYTES < range.end && range.start < (block + 1) * BLOCK_BYTES;
        match content.unreadable_blocks.iter().any(hits) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => content.bytes[..].read_at(buf, offset),
        }
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Storage for Memory {
    type File = MemoryFile;

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }
    fn open(&self, path: &Path) -> io::Result<(MemoryFile, u64)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::NotFound)?;
        let length = self.0.get(name).ok_or(io::ErrorKind::NotFound)?.bytes.len() as u64;
        Ok((MemoryFile(self.clone(), name.to_owned()), length))
    }
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        read_only()
    }
    fn sync(&self, _file: &MemoryFile) -> io::Result<()> {
        Ok(())
    }
    fn create_segment(&self, _path: &Path, _first_block: &[u8; BLOCK_BYTES], _length: u64) -> io::Result<()> {
        read_only()
    }
    fn write_first_block(&self, _path: &Path, _block: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        read_only()
    }
    fn write_small(&self, _path: &Path, _content: &[u8]) -> io::Result<()> {
        read_only()
    }
    fn create_sparse(&self, _path: &Path, _length: u64) -> io::Result<()> {
        read_only()
    }
    fn read_small(&self, _path: &Path) -> io::Result<Vec<u8>> {
        read_only()
    }
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        read_only()
    }
    fn remove(&self, _path: &Path) -> io::Result<()> {
        read_only()
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        read_only()
    }
}

fuzz_target!(|input: Input<'_>| {
    let mut files = write_log(&input);
    for edit in &input.edits {
        apply(&mut files, edit);
    }
    let memory = Memory(Arc::new(files.into_iter().map(|(number, content)| (file_name(number), content)).collect()));
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    check(&memory);
    let held = PEAK_BYTES.load(Ordering::Relaxed) - before;
    assert!(held <= MEMORY_MAX_BYTES, "{held} bytes");
});

fn check(memory: &Memory) {
    let layout = Layout::new("/log");
    let options = RecoverOptions { log_id: LOG_ID, segment_bytes: SEGMENT_BYTES as u64, sync: true };
    // A newer format is refused, and so is a disk that only gives errors.
    let Ok(recovered) = recover_lane(memory, &layout, LANE, options) else { return };
    let Ok(again) = recover_lane(memory, &layout, LANE, options) else { panic!("the second recovery failed") };
    assert_eq!(format!("{recovered:?}"), format!("{again:?}"));
    let counted: u64 = recovered.segments.iter().map(|found| found.records).sum();
    let read = read(memory, &layout, &recovered);
    assert_eq!(read, counted, "the reader and recovery count different records");
}

fn read(memory: &Memory, layout: &Layout, recovered: &RecoveredLane) -> u64 {
    let mut reader = LaneReader::from_recovery(memory.clone(), layout.clone(), LOG_ID, recovered);
    let (mut count, mut last): (u64, Option<u64>) = (0, None);
    loop {
        match reader.next_event(recovered.tail) {
            Ok(Some(Event::Record(header))) => {
                check_record(memory, &header, reader.position().segment, reader.position().offset, reader.payload());
                let is_in_order = last.is_none_or(|last| last < header.ordinal);
                // Edits may exchange the content of segments, which are read in the order of their names.
                assert!(
                    is_in_order || reader.position().segment > recovered.segments[0].segment,
                    "ordinals do not increase"
                );
                last = Some(header.ordinal);
                count += 1;
            }
            Ok(Some(Event::Seal { .. } | Event::Damaged { .. })) => {}
            Ok(None) => return count,
            Err(error) => panic!("the reader fails on a log that recovery could read: {error}"),
        }
    }
}

/// Computes the checksums of the frame that ends at `end` independently of the crate under test.
fn check_record(memory: &Memory, header: &FrameHeader, segment: u64, end: u32, payload: &[u8]) {
    let bytes = &memory.0[&file_name(segment)].bytes;
    let length = frame::frame_len(payload.len()).min(HEADER_BYTES + payload.len() + 7);
    // The padding of the last frame may be missing.
    let at = (end as usize - (HEADER_BYTES + payload.len())) / 8 * 8;
    let at = if end as usize % 8 == 0 { end as usize - length } else { at };
    let crc = |parts: &[&[u8]]| {
        let mut hasher = crc32fast::Hasher::new();
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().to_le_bytes()
    };
    let (lane, segment) = (LANE.to_le_bytes(), segment.to_le_bytes());
    let frame = &bytes[at..];
    assert_eq!(frame[..4], crc(&[&LOG_ID, &lane, &segment, &frame[4..HEADER_BYTES]]));
    assert_eq!(frame[4..8], crc(&[&LOG_ID, &lane, &segment, payload]));
    assert_eq!(&frame[HEADER_BYTES..HEADER_BYTES + payload.len()], payload);
    assert_eq!(frame[16..24], header.number.to_le_bytes());
}

/// Segments by number, as the log writes them.
fn write_log(input: &Input<'_>) -> BTreeMap<u64, Content> {
    let mut files = BTreeMap::new();
    let start = LaneStart {
        log_id: LOG_ID,
        lane: LANE,
        segment_bytes: SEGMENT_BYTES as u64,
        tail: segment_start(1),
        next_ordinal: 0,
        is_sealed: true,
        pending_tail: None,
    };
    let mut commit = GroupCommit::new(start);
    let mut next_number = 0;
    files.insert(1, new_segment(&header(1)));
    for sizes in input.batches.iter().take(16) {
        while let Some(header) = commit.take_segment_request(next_number) {
            files.insert(header.segment, new_segment(&header));
            commit.add_ready_segment(header.segment);
        }
        let payloads: Vec<Vec<u8>> =
            sizes.iter().take(16).map(|size| vec![*size as u8; usize::from(*size) % 6000]).collect();
        let records: Vec<Record<'_>> =
            payloads.iter().map(|payload| Record { kind: 1, head: b"", body: payload }).collect();
        if records.is_empty() {
            continue;
        }
        let numbers = |count: u64| {
            next_number += count;
            next_number - count
        };
        if commit.append(&records, numbers).is_err() {
            break;
        }
        write_groups(&mut commit, &mut files);
    }
    if input.sealed && commit.seal(next_number) {
        write_groups(&mut commit, &mut files);
    }
    files
}

fn write_groups(commit: &mut GroupCommit, files: &mut BTreeMap<u64, Content>) {
    while let Some(group) = commit.take_next_group() {
        let at = group.start();
        let bytes: Vec<u8> = group.unwritten().flatten().copied().collect();
        let file = files.get_mut(&at.segment).expect("a group is in a segment that is not ready");
        file.bytes[at.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        assert!(matches!(commit.complete(group, Ok(bytes.len())), Ok(Completion::Durable)));
    }
}

fn header(segment: u64) -> SegmentHeader {
    SegmentHeader {
        log_id: LOG_ID,
        lane: LANE,
        segment,
        segment_bytes: SEGMENT_BYTES as u64,
        base_number: 0,
        base_ordinal: 0,
        previous_unfinished_block: 0,
        zeroed: true,
    }
}

fn new_segment(header: &SegmentHeader) -> Content {
    let mut bytes = header.encode().to_vec();
    bytes.resize(SEGMENT_BYTES, 0);
    Content { bytes, unreadable_blocks: Vec::new() }
}

fn apply(files: &mut BTreeMap<u64, Content>, edit: &Edit<'_>) {
    let numbers: Vec<u64> = files.keys().copied().collect();
    if numbers.is_empty() {
        return;
    }
    let number_of = |segment: u8| numbers[usize::from(segment) % numbers.len()];
    let mut put = |number: u64, at: usize, bytes: &[u8]| {
        let Some(file) = files.get_mut(&number) else { return };
        let at = at.min(file.bytes.len());
        let length = bytes.len().min(file.bytes.len() - at);
        file.bytes[at..at + length].copy_from_slice(&bytes[..length]);
    };
    match *edit {
        Edit::Overwrite { segment, at, bytes } => put(number_of(segment), at.into(), bytes),
        Edit::Zero { segment, block } => {
            put(number_of(segment), usize::from(block % 16) * BLOCK_BYTES, &[0; BLOCK_BYTES])
        }
        Edit::Forge { segment, at, number, ordinal, kind, flags, length, remaining, group_block } => {
            let header = FrameHeader {
                number,
                ordinal,
                payload_len: length,
                kind,
                flags,
                batch_remaining: remaining,
                group_block,
            };
            let segment = number_of(segment);
            let seed = SegmentSeed::new(LOG_ID, LANE, segment);
            // With length 0 the payload's checksum is valid as well.
            put(segment, usize::from(at) / 8 * 8, &frame::encode_header(seed, &header, &[]));
        }
        Edit::ForgeHeader { segment, number, unfinished_block, base_number, base_ordinal, zeroed } => {
            let forged = SegmentHeader {
                previous_unfinished_block: unfinished_block,
                base_number,
                base_ordinal,
                zeroed,
                ..header(number.into())
            };
            put(number_of(segment), 0, &forged.encode());
        }
        Edit::Copy { segment, from, to_segment, to, length } => {
            let source = &files[&number_of(segment)].bytes;
            let from = usize::from(from).min(source.len());
            let copied = source[from..(from + usize::from(length)).min(source.len())].to_vec();
            if let Some(target) = files.get_mut(&number_of(to_segment)) {
                let to = usize::from(to).min(target.bytes.len());
                let length = copied.len().min(target.bytes.len() - to);
                target.bytes[to..to + length].copy_from_slice(&copied[..length]);
            }
        }
        Edit::Flip { segment, at, bit } => {
            if let Some(file) = files.get_mut(&number_of(segment))
                && let Some(byte) = file.bytes.get_mut(usize::from(at))
            {
                *byte ^= 1 << (bit % 8);
            }
        }
        Edit::Truncate { segment, length } => {
            if let Some(file) = files.get_mut(&number_of(segment)) {
                file.bytes.truncate(length.into());
            }
        }
        Edit::Remove { segment } => {
            files.remove(&number_of(segment));
        }
        Edit::Whole { number, bytes } => {
            let content = Content { bytes: bytes.to_vec(), unreadable_blocks: Vec::new() };
            files.insert(u64::from(number).max(1), content);
        }
        Edit::Unreadable { segment, block } => {
            if let Some(file) = files.get_mut(&number_of(segment)) {
                file.unreadable_blocks.push(usize::from(block % 16));
            }
        }
    }
}
