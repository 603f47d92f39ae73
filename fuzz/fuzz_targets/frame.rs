//! Tests the frame decoder with arbitrary bytes and with damaged frames.
//!
//! What must hold:
//! - No input makes the decoder panic.
//! - A decoded frame lies within the input, and encoding it again gives the same bytes.
//! - An encoded frame decodes to the same frame, but not with another segment's seed.
//! - A frame with a flipped bit in header or payload does not decode. A flipped bit in the padding changes nothing that is
//!   decoded.
#![no_main]

use arbitrary::Arbitrary;
use forebay_wal::frame::{self, Decoded, FrameError, FrameHeader, HEADER_BYTES, SegmentSeed};
use forebay_wal::limits::NUMBER_END;
use libfuzzer_sys::fuzz_target;

/// The segment that a frame is decoded as a part of.
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

/// A frame to encode, and the changes to it.
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

/// One input.
#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// Arbitrary bytes.
    Raw(Place, &'a [u8]),
    /// Arbitrary bytes after a header with a valid checksum, as only a collision or a fault of the writer would produce.
    Sealed(Place, Structured<'a>),
    /// A complete frame.
    Frame(Place, Structured<'a>),
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Raw(place, bytes) => check_raw(place, bytes),
    Input::Sealed(place, parts) => check_sealed(place, &parts),
    Input::Frame(place, parts) => check_frame(place, &parts),
});

/// Decodes arbitrary bytes, and checks what is decoded.
fn check_raw(place: Place, bytes: &[u8]) {
    let Ok(decoded) = frame::decode(place.seed(), bytes) else { return };
    check_decoded(place, bytes, &decoded);
}

fn check_decoded(place: Place, bytes: &[u8], decoded: &Decoded<'_>) {
    let Decoded { header, payload, frame_len } = *decoded;
    assert!(frame_len <= bytes.len());
    // The last frame of a buffer may lack a part of its padding.
    assert_eq!(frame_len, frame::frame_len(payload.len()).min(bytes.len()));
    assert_eq!(payload.len(), header.payload_len as usize);
    assert_eq!(payload, &bytes[HEADER_BYTES..HEADER_BYTES + payload.len()]);
    assert_eq!(frame::encode_header(place.seed(), &header, &[payload]), bytes[..HEADER_BYTES]);
}

/// Puts a header with a valid checksum before bytes that differ from its payload in length or content.
fn check_sealed(place: Place, parts: &Structured<'_>) {
    let split = parts.split as usize % (parts.payload.len() + 1);
    let (claimed, present) = parts.payload.split_at(split);
    let header = header_of(parts, claimed.len());
    let mut bytes = frame::encode_header(place.seed(), &header, &[claimed]).to_vec();
    bytes.extend_from_slice(present);
    check_raw(place, &bytes);
    // The same with a length that exceeds every buffer here.
    let huge = FrameHeader { payload_len: parts.flip, ..header };
    let mut bytes = frame::encode_header(place.seed(), &huge, &[claimed]).to_vec();
    bytes.extend_from_slice(claimed);
    check_raw(place, &bytes);
}

/// Encodes a frame, decodes it, and decodes it again after damage.
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

    let Ok(decoded) = frame::decode(seed, &bytes) else { panic!("an encoded frame does not decode") };
    assert_eq!(decoded.header, header);
    assert_eq!(decoded.payload, parts.payload);
    assert_eq!(decoded.frame_len, frame_len);
    let short = parts.flip as usize % covered_bytes;
    assert!(
        matches!(frame::decode(seed, &bytes[..short]), Err(FrameError::Incomplete { needed_bytes }) if needed_bytes > short && needed_bytes <= frame_len),
        "cut to {short} bytes"
    );
    // With probability 2^-32 two segments have the same seed. Their frames cannot be distinguished.
    let elsewhere = parts.elsewhere.seed();
    if elsewhere != seed {
        assert!(frame::decode(elsewhere, &bytes).is_err(), "a frame decodes in another segment");
    }

    let bit = parts.flip as usize % (frame_len * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    match frame::decode(seed, &bytes) {
        Err(_) => {}
        // No checksum covers the padding.
        Ok(damaged) => {
            assert!(bit / 8 >= covered_bytes, "the frame decodes although bit {bit} is flipped");
            check_decoded(place, &bytes, &damaged);
        }
    }
}

fn header_of(parts: &Structured<'_>, payload_bytes: usize) -> FrameHeader {
    FrameHeader {
        // Numbers from 2^62 on are not used for records.
        number: parts.number % NUMBER_END,
        ordinal: parts.ordinal % NUMBER_END,
        payload_len: u32::try_from(payload_bytes).expect("libFuzzer's inputs are far below 4 GiB"),
        // Kind 0 is not used.
        kind: parts.kind.max(1),
        flags: parts.flags,
        batch_remaining: parts.batch_remaining,
        group_block: parts.group_block,
    }
}
