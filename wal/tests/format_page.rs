//! Checks `docs/log-format.md` against the code: every byte table, vector and limit of the log. The daemon tests what the page
//! says about messages.

// Test helpers may panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "page/crc.rs"]
mod crc;
mod page;

use crc::Crc;
use forebay_wal::{
    frame::{self, FLAG_BATCH_START, FrameError, FrameHeader, HEADER_BYTES, KIND_MESSAGE, KIND_SEAL, SegmentSeed},
    group::{GroupCommit, LaneStart, Record, SyncMethod},
    layout::Layout,
    limits::{
        BLOCK_BYTES, FRAME_ALIGN_BYTES, LANES_MAX, NUMBER_END, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
        SEGMENT_HEADER_BYTES, record_bytes_max,
    },
    log::{self, LogOptions},
    position::Position,
    scan::{Extent, Item, Scan},
    segment::{self, FORMAT_VERSION, HeaderError, MAGIC, SegmentHeader},
    storage::Disk,
};
use page::{ByteTable, Field, Page, Vector};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

const SEGMENT_TABLE: &str = "## Segment header";
const FRAME_TABLE: &str = "## Frame";

fn seed_bytes(place: &Vector) -> Vec<u8> {
    let (lane, segment): (u16, u64) = (place.number("lane"), place.number("segment"));
    [&place.uuid("log_id")[..], &lane.to_le_bytes(), &segment.to_le_bytes()].concat()
}

fn seed(place: &Vector) -> SegmentSeed {
    SegmentSeed::new(place.uuid("log_id"), place.number("lane"), place.number("segment"))
}

/// The value of a seed: the checksum of an empty payload.
fn seed_number(seed: SegmentSeed, table: &ByteTable) -> u64 {
    let header = frame_header();
    table.integer(&frame::encode_header(seed, &header, &[]), "payload_crc")
}

fn frame_header() -> FrameHeader {
    FrameHeader { number: 1, ordinal: 1, payload_len: 1, kind: 1, flags: 0, batch_remaining: 0, group_block: 1 }
}

fn segment_header(vector: &Vector) -> SegmentHeader {
    SegmentHeader {
        log_id: vector.uuid("log_id"),
        lane: vector.number("lane"),
        segment: vector.number("segment"),
        segment_bytes: vector.number("segment_bytes"),
        base_number: vector.number("base_number"),
        base_ordinal: vector.number("base_ordinal"),
        previous_unfinished_block: vector.number("previous_unfinished_block"),
        zeroed: vector.number::<u8>("zeroed") == 1,
    }
}

/// The ranges `a..b` in a field's meaning, in order.
fn ranges(field: &Field) -> Vec<Range<usize>> {
    let ranges = field.meaning.split('`').filter_map(|part| part.split_once(".."));
    ranges.map(|(from, to)| from.parse().unwrap()..to.parse().unwrap()).collect()
}

/// Asserts that a table has exactly the expected fields, each once.
fn assert_fields(table: &ByteTable, expected: impl IntoIterator<Item = &'static str>) {
    let names = table.names();
    let expected: BTreeSet<_> = expected.into_iter().collect();
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), expected);
    assert_eq!(names.len(), expected.len());
}

#[test]
fn the_page_has_the_vectors_that_are_tested_and_no_others() {
    let expected = [
        "names",
        "log-id",
        "crc-32",
        "seed",
        "segment-header",
        "frame",
        "batch",
        "seal",
        "position",
        "message",
        "message-least",
        "message-producer",
    ];
    assert_eq!(Page::read().vector_names(), expected);
}

#[test]
fn every_limit_is_the_codes() {
    let expected: BTreeMap<&str, u64> = BTreeMap::from([
        ("BLOCK_BYTES", BLOCK_BYTES as u64),
        ("SEGMENT_HEADER_BYTES", SEGMENT_HEADER_BYTES as u64),
        ("HEADER_BYTES", HEADER_BYTES as u64),
        ("FRAME_ALIGN_BYTES", FRAME_ALIGN_BYTES as u64),
        ("FORMAT_VERSION", u64::from(FORMAT_VERSION)),
        ("KIND_MESSAGE", u64::from(KIND_MESSAGE)),
        ("KIND_SEAL", u64::from(KIND_SEAL)),
        ("NUMBER_END", NUMBER_END),
        ("FLAG_BATCH_START", u64::from(FLAG_BATCH_START)),
        ("SEGMENT_BYTES_MIN", SEGMENT_BYTES_MIN),
        ("SEGMENT_BYTES_MAX", SEGMENT_BYTES_MAX),
        ("SEGMENT_MAX", Position::SEGMENT_MAX),
        ("LANES_MAX", u64::from(LANES_MAX)),
        ("record_bytes_max(SEGMENT_BYTES_MIN)", record_bytes_max(SEGMENT_BYTES_MIN) as u64),
    ]);
    let rows = Page::read().rows("## Limits", &["name", "value", "what"]);
    let stated: BTreeMap<_, _> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1].parse().unwrap())).collect();
    assert_eq!(stated, expected);
    assert_eq!(rows.len(), expected.len());
}

#[test]
fn files_have_the_names_that_the_page_gives_them() {
    let names = Page::read().vector("names");
    let layout = Layout::new("");
    for (what, name) in &names.fields {
        let words: Vec<&str> = what.split(' ').collect();
        match words[..] {
            ["lane", lane] => {
                assert_eq!(segment::lane_dir_name(lane.parse().unwrap()), *name);
                assert_eq!(segment::parse_lane_dir_name(name), Some(lane.parse().unwrap()));
            }
            ["segment", number] => {
                assert_eq!(segment::file_name(number.parse().unwrap()), *name);
                assert_eq!(segment::parse_file_name(name), Some(number.parse().unwrap()));
            }
            ["file", lane, number] => {
                assert_eq!(layout.segment(lane.parse().unwrap(), number.parse().unwrap()).to_str(), Some(&**name));
            }
            ["end", lane, number] => {
                assert_eq!(layout.segment_end(lane.parse().unwrap(), number.parse().unwrap()).to_str(), Some(&**name));
            }
            ["free"] => assert_eq!(layout.free().to_str(), Some(&**name)),
            ["set-aside"] => assert_eq!(layout.set_aside().to_str(), Some(&**name)),
            ["set-aside", "0", "1"] => assert_eq!(damaged_segment_is_set_aside_as(), *name),
            _ => panic!("the page names {what}"),
        }
    }
    assert_eq!(names.fields.len(), 9);
}

fn new_log(dir: &std::path::Path) -> log::Log {
    let (segment_bytes, quota_bytes) = (SEGMENT_BYTES_MIN, 8 * SEGMENT_BYTES_MIN);
    log::open(&LogOptions { dir: dir.into(), lanes: 1, sync: SyncMethod::None, segment_bytes, quota_bytes }).unwrap()
}

fn damaged_segment_is_set_aside_as() -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut log = new_log(dir.path());
    // It requests a second segment, for a lane's last segment stays.
    let lane = log.lanes.remove(0).start().unwrap();
    drop(lane);
    log.keeper().mark_damaged(0, 1);
    log.keeper().release(0, 2);
    log.keeper.stop();
    let mut names = std::fs::read_dir(log.layout.set_aside()).unwrap();
    names.next().unwrap().unwrap().file_name().into_string().unwrap()
}

#[test]
fn the_log_id_line_is_read_and_its_like_is_written() {
    let page = Page::read();
    let vector = page.vector("log-id");
    let dir = tempfile::tempdir().unwrap();
    let (layout, path) = (Layout::new(dir.path()), dir.path().join("log-id"));
    let disk = Disk::at(dir.path()).unwrap();
    std::fs::write(&path, &vector.bytes).unwrap();
    assert_eq!(layout.read_log_id(&disk).unwrap(), vector.uuid("log_id"));
    for at in 0..vector.bytes.len() {
        let mut damaged = vector.bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert!(layout.read_log_id(&disk).is_err(), "byte {at}");
    }

    // The line of another log differs from the vector only in its id and checksum.
    let dir = tempfile::tempdir().unwrap();
    let log = new_log(dir.path());
    let written = std::fs::read_to_string(dir.path().join("log-id")).unwrap();
    let line = String::from_utf8(vector.bytes.clone()).unwrap();
    let (line, _) = line.rsplit_once(' ').unwrap();
    let hex = format!("{:032x}", u128::from_be_bytes(log.id));
    let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    let line = line.replace(vector.text("log_id"), &id);
    assert_eq!(written, format!("{line} {:08x}\n", Crc::of(&page).plain(line.as_bytes())));
    log.keeper.stop();
}

#[test]
fn seeds_and_seeded_checksums_follow_from_the_parameters() {
    let page = Page::read();
    let (crc, table) = (Crc::of(&page), page.byte_table(FRAME_TABLE));
    let vector = page.vector("seed");
    let number: u32 = vector.number("seed");
    assert_eq!(crc.plain(&seed_bytes(&vector)), number);
    assert_eq!(seed_number(seed(&vector), &table), u64::from(number));
    let check: u32 = vector.number("seeded_check");
    assert_eq!(crc.seeded(number, b"123456789"), check, "by going on from the seed");
    assert_eq!(crc.plain(&[&seed_bytes(&vector)[..], b"123456789"].concat()), check, "by the bytes before");
    let header = frame::encode_header(seed(&vector), &frame_header(), &[b"1234", b"56789"]);
    assert_eq!(table.integer(&header, "payload_crc"), u64::from(check));
}

#[test]
fn every_field_of_a_segment_header_is_where_its_table_says() {
    let page = Page::read();
    let table = page.byte_table(SEGMENT_TABLE);
    let base = segment_header(&page.vector("segment-header"));
    type Set = fn(&mut SegmentHeader, u64);
    let integers: [(&str, u64, Set); 7] = [
        ("lane", 0xa1b2, |header, value| header.lane = value as u16),
        ("segment", 0x1112_1314_1516_1718, |header, value| header.segment = value),
        ("segment_bytes", 0x3132_3334, |header, value| header.segment_bytes = value),
        ("previous_unfinished_block", 0xc1c2_c3c4, |header, value| header.previous_unfinished_block = value as u32),
        ("base_number", 0x2122_2324_2526_2728, |header, value| header.base_number = value),
        ("base_ordinal", 0x3132_3334_3536_3738, |header, value| header.base_ordinal = value),
        ("zeroed", 0, |header, value| header.zeroed = value == 1),
    ];
    let block = base.encode();
    for (name, value, set) in integers {
        let mut header = base;
        set(&mut header, value);
        let changed = header.encode();
        table.assert_only_changed(name, &block, &changed, &["header_crc"]);
        assert_eq!(table.integer(&changed, name), value, "{name}");
        assert_eq!(SegmentHeader::decode(&changed), Ok(header), "{name}");
    }
    let other_log = SegmentHeader { log_id: std::array::from_fn(|index| 0x80 + index as u8), ..base }.encode();
    table.assert_only_changed("log_id", &block, &other_log, &["header_crc"]);
    assert_eq!(
        other_log[table.field("log_id").at.clone()],
        std::array::from_fn::<u8, 16, _>(|index| 0x80 + index as u8)
    );

    let magic: Vec<u8> =
        table.field("magic").quoted().split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    assert_eq!((&magic[..], &block[table.field("magic").at.clone()]), (&MAGIC[..], &MAGIC[..]));
    for (name, value) in [("version", u64::from(FORMAT_VERSION)), ("block_bytes", BLOCK_BYTES as u64), ("reserved", 0)]
    {
        assert_eq!(table.field(name).quoted().parse(), Ok(value), "{name}");
        assert_eq!(table.integer(&block, name), value, "{name}");
    }
    let constant = ["magic", "version", "header_crc", "log_id", "block_bytes", "reserved"];
    assert_fields(&table, integers.map(|(name, ..)| name).into_iter().chain(constant));
}

#[test]
fn the_segment_header_vector_is_what_is_written_and_read() {
    let page = Page::read();
    let (crc, table) = (Crc::of(&page), page.byte_table(SEGMENT_TABLE));
    let vector = page.vector("segment-header");
    let header = segment_header(&vector);
    let mut block = header.encode();
    assert_eq!(block[..table.len()], vector.bytes);
    assert!(block[table.len()..].iter().all(|byte| *byte == 0), "the rest of the block is zero");
    assert_eq!(SegmentHeader::decode(&vector.bytes), Ok(header));

    let covered = ranges(table.field("header_crc"));
    let sum =
        |block: &[u8]| crc.plain(&covered.iter().flat_map(|range| block[range.clone()].to_vec()).collect::<Vec<u8>>());
    assert_eq!(table.integer(&block, "header_crc"), u64::from(sum(&block)));
    block[table.len()] = 1;
    assert_eq!(SegmentHeader::decode(&block), Ok(header), "nothing verifies the rest of the block");
    for at in 0..table.len() {
        let mut damaged = block;
        damaged[at] ^= 0x40;
        assert_eq!(SegmentHeader::decode(&damaged), Err(HeaderError::Invalid), "byte {at}");
    }
    let with = |name: &str, value: u64| {
        let mut block = block;
        let at = table.field(name).at.clone();
        block[at.clone()].copy_from_slice(&value.to_le_bytes()[..at.len()]);
        let sum = sum(&block);
        block[table.field("header_crc").at.clone()].copy_from_slice(&sum.to_le_bytes());
        SegmentHeader::decode(&block)
    };
    assert_eq!(with("version", 2), Err(HeaderError::FormatTooNew { version: 2 }));
    assert_eq!(with("reserved", 7), Ok(header), "reserved bytes are not looked at");
    for (name, value) in [
        ("lane", 0x1_0000),
        ("block_bytes", 512),
        ("segment_bytes", SEGMENT_BYTES_MIN - 1),
        ("segment_bytes", SEGMENT_BYTES_MAX + 1),
    ] {
        assert_eq!(with(name, value), Err(HeaderError::Invalid), "{name} {value}");
    }
}

#[test]
fn every_field_of_a_frame_header_is_where_its_table_says() {
    let page = Page::read();
    let table = page.byte_table(FRAME_TABLE);
    let seed = seed(&page.vector("frame"));
    type Set = fn(&mut FrameHeader, u64);
    let integers: [(&str, u64, Set); 7] = [
        ("payload_len", 0xa1a2_a3a4, |header, value| header.payload_len = value as u32),
        ("kind", 0xb1b2, |header, value| header.kind = value as u16),
        ("flags", 0xc1c2, |header, value| header.flags = value as u16),
        ("number", 0x1112_1314_1516_1718, |header, value| header.number = value),
        ("ordinal", 0x2122_2324_2526_2728, |header, value| header.ordinal = value),
        ("batch_remaining", 0xd1d2_d3d4, |header, value| header.batch_remaining = value as u32),
        ("group_block", 0xe1e2_e3e4, |header, value| header.group_block = value as u32),
    ];
    let encode = |header: &FrameHeader, payload: &[u8]| frame::encode_header(seed, header, &[payload]);
    let bytes = encode(&frame_header(), b"x");
    for (name, value, set) in integers {
        let mut header = frame_header();
        set(&mut header, value);
        let changed = encode(&header, b"x");
        table.assert_only_changed(name, &bytes, &changed, &["header_crc"]);
        assert_eq!(table.integer(&changed, name), value, "{name}");
        assert_eq!(frame::decode_header(seed, &changed), Ok(header), "{name}");
    }
    table.assert_only_changed("payload_crc", &bytes, &encode(&frame_header(), b"y"), &["header_crc"]);
    assert_fields(&table, integers.map(|(name, ..)| name).into_iter().chain(["header_crc", "payload_crc"]));
    assert_eq!(table.len(), HEADER_BYTES);
    let kindless = encode(&FrameHeader { kind: 0, ..frame_header() }, b"x");
    assert_eq!(frame::decode_header(seed, &kindless), Err(FrameError::Header), "a kind of 0 is no record");
    let (bit, rest) = table.field("flags").meaning.strip_prefix("bit ").unwrap().split_once(':').unwrap();
    let flag: u16 = 1 << bit.parse::<u16>().unwrap();
    assert!(rest.starts_with(" first record of its batch"), "{rest}");
    let starts = |flags| FrameHeader { flags, ..frame_header() }.starts_batch();
    assert!(starts(flag) && !starts(!flag));
}

#[test]
fn the_frame_vector_is_what_is_written_and_read() {
    let page = Page::read();
    let (crc, table) = (Crc::of(&page), page.byte_table(FRAME_TABLE));
    let vector = page.vector("frame");
    let payload = vector.text("payload").as_bytes();
    let header = FrameHeader {
        number: vector.number("number"),
        ordinal: vector.number("ordinal"),
        payload_len: payload.len() as u32,
        kind: vector.number("kind"),
        flags: vector.number("flags"),
        batch_remaining: vector.number("batch_remaining"),
        group_block: vector.number("group_block"),
    };
    let mut bytes = frame::encode_header(seed(&vector), &header, &[payload]).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(FRAME_ALIGN_BYTES), 0);
    assert_eq!(bytes, vector.bytes);
    let decoded = frame::decode(seed(&vector), &vector.bytes).unwrap();
    assert_eq!((decoded.header, decoded.payload, decoded.frame_len), (header, payload, vector.bytes.len()));

    let number: u32 = vector.number("seed");
    assert_eq!(crc.plain(&seed_bytes(&vector)), number);
    assert_eq!(table.integer(&bytes, "payload_crc"), u64::from(crc.seeded(number, payload)));
    let covered = &bytes[ranges(table.field("header_crc"))[0].clone()];
    assert_eq!(table.integer(&bytes, "header_crc"), u64::from(crc.seeded(number, covered)));
}

/// A lane that continues at the group of a vector. `ordinal` names the field with the lane's next ordinal.
fn commit_before(vector: &Vector, ordinal: &str) -> GroupCommit {
    let group_block: u32 = vector.number("group_block");
    GroupCommit::new(LaneStart {
        log_id: vector.uuid("log_id"),
        lane: vector.number("lane"),
        segment_bytes: SEGMENT_BYTES_MIN,
        tail: Position { segment: vector.number("segment"), offset: group_block * BLOCK_BYTES as u32 },
        next_ordinal: vector.number(ordinal),
        pending_tail: None,
        is_sealed: false,
    })
}

#[test]
fn group_commit_writes_the_batch_vector() {
    let vector = Page::read().vector("batch");
    let payloads = ["payload 0", "payload 1"].map(|name| vector.text(name).as_bytes());
    let records = payloads.map(|payload| {
        let (head, body) = payload.split_at(3);
        Record { kind: vector.number("kind"), head, body }
    });
    let mut commit = commit_before(&vector, "first_ordinal");
    commit.append(&records, |_| vector.number("first_number")).unwrap();
    let mut expected = vector.bytes.clone();
    expected.resize(BLOCK_BYTES, 0);
    let group = commit.take_next_group().unwrap();
    assert_eq!(group.unwritten().flatten().copied().collect::<Vec<u8>>(), expected);
}

#[test]
fn group_commit_writes_the_seal_vector() {
    let vector = Page::read().vector("seal");
    let mut commit = commit_before(&vector, "ordinal");
    assert!(commit.seal(vector.number("number")));
    let mut expected = vector.bytes.clone();
    expected.resize(BLOCK_BYTES, 0);
    let group = commit.take_next_group().unwrap();
    assert_eq!(group.unwritten().flatten().copied().collect::<Vec<u8>>(), expected);
}

/// The segment that the vectors form, and its payloads.
fn segment_of_vectors(page: &Page) -> (Vec<u8>, Vec<String>) {
    let (header, frame, batch) = (page.vector("segment-header"), page.vector("frame"), page.vector("batch"));
    let seal = page.vector("seal");
    let mut segment = vec![0; SEGMENT_BYTES_MIN as usize];
    let block = |vector: &Vector| vector.number("group_block");
    for (vector, block) in [(&header, 0), (&frame, block(&frame)), (&batch, block(&batch)), (&seal, block(&seal))] {
        assert_eq!(seed_bytes(vector), seed_bytes(&header), "one segment");
        let at: usize = block * BLOCK_BYTES;
        segment[at..at + vector.bytes.len()].copy_from_slice(&vector.bytes);
    }
    let payloads = [&frame.fields["payload"], &batch.fields["payload 0"], &batch.fields["payload 1"]];
    (segment, payloads.map(Clone::clone).to_vec())
}

#[test]
fn the_vectors_make_a_segment_that_scans_clean() {
    let page = Page::read();
    let (segment, payloads) = segment_of_vectors(&page);
    let seed = SegmentHeader::decode(&segment).unwrap().seed();
    let (from, to) = (SEGMENT_HEADER_BYTES as u32, segment.len() as u32);
    let mut scan = Scan::new(&segment[..], Extent { seed, from, to, unfinished_block: 0, zeroed: true });
    for (index, expected) in payloads.iter().enumerate() {
        let Item::Record { header, .. } = scan.next_item().unwrap() else { panic!("record {index}") };
        assert_eq!((header.ordinal, scan.payload()), (500 + index as u64, expected.as_bytes()));
        assert_eq!((header.starts_batch(), header.batch_remaining), [(true, 0), (true, 1), (false, 0)][index]);
    }
    let Item::Seal { header, .. } = scan.next_item().unwrap() else { panic!("the seal") };
    assert_eq!((header.ordinal, header.number), (503, 1_000_012));
    let seal_block: u32 = page.vector("seal").number("group_block");
    let at = (seal_block + 1) * BLOCK_BYTES as u32;
    assert_eq!(scan.next_item().unwrap(), Item::End { at, unfinished_at: None });
}

#[test]
fn a_reader_made_of_the_page_alone_reads_the_same() {
    let page = Page::read();
    let (crc, table) = (Crc::of(&page), page.byte_table(FRAME_TABLE));
    let (segment, payloads) = segment_of_vectors(&page);
    let seed = crc.plain(&seed_bytes(&page.vector("segment-header")));
    let (mut at, mut group, mut read) = (4096, 0, Vec::new());
    while let Some(header) = segment.get(at..at + table.len()) {
        let field = |name: &str| table.integer(header, name);
        let verifies = field("header_crc") == u64::from(crc.seeded(seed, &header[4..])) && field("kind") != 0;
        let starts = at % 4096 == 0 && field("group_block") == at as u64 / 4096;
        if !verifies || !(starts || field("group_block") == group) {
            // The vectors are not damaged: bytes that are not zero are a frame.
            let next_block = (at + 1).next_multiple_of(4096);
            assert!(segment[at..next_block].iter().all(|byte| *byte == 0));
            at = next_block;
            continue;
        }
        group = field("group_block");
        let end = at + table.len() + field("payload_len") as usize;
        let payload = &segment[at + table.len()..end];
        assert_eq!(field("payload_crc"), u64::from(crc.seeded(seed, payload)));
        // A seal is no record.
        if field("kind") == 1 {
            read.push(String::from_utf8(payload.to_vec()).unwrap());
        }
        at = end.next_multiple_of(8);
    }
    assert_eq!(read, payloads);
}

#[test]
fn the_position_vector_is_how_positions_are_packed() {
    let vector = Page::read().vector("position");
    let position = Position { segment: vector.number("segment"), offset: vector.number("offset") };
    assert_eq!(position.pack(), vector.number::<u64>("packed"));
    assert_eq!(Position::unpack(vector.number("packed")), position);
}
