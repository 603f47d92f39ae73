//! The frame decoder against bytes that nobody wrote and frames that were damaged.
//!
//! What must hold:
//! - any bytes are decoded or refused, without a panic;
//! - what decodes is the one encoding of what was decoded, and lies within the bytes it was read from;
//! - what was encoded decodes to the same, and not under another segment's seed;
//! - with any one bit flipped it never decodes to the same again, and with a bit of header or payload flipped, to nothing.
#![no_main]

use arbitrary::Arbitrary;
use forebay_wal::frame::{self, Decoded, FrameError, FrameHeader, HEADER_BYTES, SegmentSeed};
use forebay_wal::limits::NUMBER_END;
use libfuzzer_sys::fuzz_target;

/// Which segment a frame is read as part of.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
struct Place {
    log_id: [u8; 16],
    lane: u16,
    segment: u64,
}

impl Place {
    fn seed(self) -> SegmentSeed {
        SegmentSeed::new(self.log_id, self.lane, self.segment)
    }
}

/// A frame to encode, and what is done to it then.
#[derive(Arbitrary, Debug)]
struct Structured<'a> {
    number: u64,
    ordinal: u64,
    kind: u16,
    flags: u16,
    batch_remaining: u32,
    group_block: u32,
    elsewhere: Place,
    flip: u32,
    split: u32,
    behind: [u8; 3],
    payload: &'a [u8],
}

/// One input: the same place for raw bytes and for a frame of its own.
#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// Bytes as they come.
    Raw(Place, &'a [u8]),
    /// Bytes behind a header that verifies, as only a collision or a fault of the writer would leave them.
    Sealed(Place, Structured<'a>),
    /// A whole frame.
    Frame(Place, Structured<'a>),
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Raw(place, bytes) => check_raw(place, bytes),
    Input::Sealed(place, parts) => check_sealed(place, &parts),
    Input::Frame(place, parts) => check_frame(place, &parts),
});

/// Decodes anything; what decodes must be its own encoding.
fn check_raw(place: Place, bytes: &[u8]) {
    let Ok(decoded) = frame::decode(place.seed(), bytes) else { return };
    check_decoded(place, bytes, &decoded);
}

fn check_decoded(place: Place, bytes: &[u8], decoded: &Decoded<'_>) {
    let Decoded { header, payload, frame_len } = *decoded;
    assert!(frame_len <= bytes.len());
    // The last frame of a buffer may lack some of its padding.
    assert_eq!(frame_len, frame::frame_len(payload.len()).min(bytes.len()));
    assert_eq!(payload.len(), header.payload_len as usize);
    assert_eq!(payload, &bytes[HEADER_BYTES..HEADER_BYTES + payload.len()]);
    assert_eq!(frame::encode_header(place.seed(), &header, &[payload]), bytes[..HEADER_BYTES]);
}

/// A header that verifies before bytes that need not be its payload: too few, too many, or others.
fn check_sealed(place: Place, parts: &Structured<'_>) {
    let split = parts.split as usize % (parts.payload.len() + 1);
    let (claimed, present) = parts.payload.split_at(split);
    let header = header_of(parts, claimed.len());
    let mut bytes = frame::encode_header(place.seed(), &header, &[claimed]).to_vec();
    bytes.extend_from_slice(present);
    check_raw(place, &bytes);
    // And with a length that no buffer here can hold.
    let huge = FrameHeader { payload_len: parts.flip, ..header };
    let mut bytes = frame::encode_header(place.seed(), &huge, &[claimed]).to_vec();
    bytes.extend_from_slice(claimed);
    check_raw(place, &bytes);
}

/// Encodes, decodes, damages.
fn check_frame(place: Place, parts: &Structured<'_>) {
    let seed = place.seed();
    let header = header_of(parts, parts.payload.len());
    let (left, right) = parts.payload.split_at(parts.split as usize % (parts.payload.len() + 1));
    let mut bytes = frame::encode_header(seed, &header, &[left, right]).to_vec();
    bytes.extend_from_slice(parts.payload);
    let covered_bytes = bytes.len();
    let frame_len = frame::frame_len(parts.payload.len());
    bytes.resize(frame_len, 0);
    bytes.extend_from_slice(&parts.behind);

    let Ok(decoded) = frame::decode(seed, &bytes) else { panic!("a frame that was just encoded does not decode") };
    assert_eq!(decoded.header, header);
    assert_eq!(decoded.payload, parts.payload);
    assert_eq!(decoded.frame_len, frame_len);
    let short = parts.flip as usize % covered_bytes;
    assert!(
        matches!(frame::decode(seed, &bytes[..short]), Err(FrameError::Incomplete { needed }) if needed > short && needed <= frame_len),
        "cut to {short} bytes"
    );
    // Two places share a seed once in 2^32, and then their frames cannot be told apart.
    let elsewhere = parts.elsewhere.seed();
    if elsewhere != seed {
        assert!(frame::decode(elsewhere, &bytes).is_err(), "decodes in another segment");
    }

    let bit = parts.flip as usize % (frame_len * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    match frame::decode(seed, &bytes) {
        Err(_) => {}
        // Padding is under no checksum: its bits may flip without changing what the frame says.
        Ok(damaged) => {
            assert!(bit / 8 >= covered_bytes, "bit {bit} flipped and it still decodes");
            check_decoded(place, &bytes, &damaged);
        }
    }
}

fn header_of(parts: &Structured<'_>, payload_bytes: usize) -> FrameHeader {
    FrameHeader {
        // From 2^62 on they belong to no record.
        number: parts.number % NUMBER_END,
        ordinal: parts.ordinal % NUMBER_END,
        payload_len: u32::try_from(payload_bytes).expect("libFuzzer's inputs are far below 4 GiB"),
        // 0 is never written.
        kind: parts.kind.max(1),
        flags: parts.flags,
        batch_remaining: parts.batch_remaining,
        group_block: parts.group_block,
    }
}
