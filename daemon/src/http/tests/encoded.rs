//! Bodies as they come: encoded, cut anywhere, damaged, and such that become huge.

use crate::http::{
    Body, ErrorCode, Refusal,
    coding::Coding,
    incoming::{Bound, Incoming, Next},
};
use crate::memory::{Buffer, Grow};
use std::io::Write;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new()
        .filename("name")
        .comment("comment")
        .extra(vec![1, 2, 3])
        .write(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; zstd_safe::compress_bound(plain.len())];
    let written = zstd_safe::compress(&mut out[..], plain, 3).unwrap();
    out.truncate(written);
    out
}

/// Room for what the next step brings, and not much more.
fn make_room(incoming: &Incoming, wire_bytes: usize, out: &mut Buffer) {
    let needed = out.len() + incoming.room_bytes(wire_bytes);
    if out.capacity() < needed {
        out.grow_to(needed + (48 << 10), Grow::unbounded());
    }
}

/// Takes a body that comes in pieces; returns its content and the most that was appended at once.
fn take(wire: &[u8], framing: Body, coding: Coding, bound: Bound, piece: usize) -> Result<(Vec<u8>, usize), Refusal> {
    let mut incoming = Incoming::new(framing, coding, bound, Grow::unbounded())?;
    let (mut out, mut at, mut most) = (Buffer::default(), 0, 0);
    let mut end = piece.min(wire.len());
    loop {
        let before = out.len();
        make_room(&incoming, end - at, &mut out);
        let fed = incoming.feed(&wire[at..end], &mut out)?;
        most = most.max(out.len() - before);
        at += fed.consumed;
        match fed.next {
            Next::Done => return Ok((out.to_vec(), most)),
            Next::Step => {}
            Next::Wire if end == wire.len() => panic!("it waits for what does not come"),
            Next::Wire => end = (end + piece).min(wire.len()),
        }
    }
}

fn length(wire: &[u8]) -> Body {
    Body::Length(wire.len() as u64)
}

fn chunks(wire: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in wire.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn document() -> Vec<u8> {
    (0..20_000).flat_map(|n| format!("{{\"n\":{n},\"square\":{}}}\n", n * n).into_bytes()).collect()
}

#[test]
fn an_encoded_body_comes_out_as_it_went_in_however_it_is_cut_and_framed() {
    let plain = document();
    let (first, second) = plain.split_at(plain.len() / 3);
    for (coding, wire) in [
        (Coding::Identity, plain.clone()),
        (Coding::Gzip, gzip(&plain)),
        (Coding::Gzip, [gzip(first), gzip(b""), gzip(second)].concat()),
        (Coding::Zstd, zstd(&plain)),
        (Coding::Zstd, [zstd(first), zstd(b""), zstd(second)].concat()),
    ] {
        for piece in [1, 7, 1000, 16 << 10, usize::MAX / 2] {
            let (out, most) = take(&wire, length(&wire), coding, Bound::Expansion, piece).unwrap();
            assert!(out == plain, "{coding:?} in pieces of {piece}");
            assert!(most <= 64 << 10, "{most} bytes at once");
            let framed = chunks(&wire, 999);
            let (out, _) = take(&framed, Body::Chunked, coding, Bound::Expansion, piece).unwrap();
            assert!(out == plain, "{coding:?} in chunks, in pieces of {piece}");
        }
    }
}

#[test]
fn what_is_cut_damaged_or_followed_by_something_else_is_refused() {
    let plain = document();
    for (coding, wire) in [(Coding::Gzip, gzip(&plain)), (Coding::Zstd, zstd(&plain))] {
        let refused = |wire: &[u8]| match take(wire, length(wire), coding, Bound::Expansion, 1000) {
            Err(refusal) => {
                assert_eq!((refusal.status, refusal.code), (400, ErrorCode::MalformedEncoding), "{coding:?}")
            }
            Ok(_) => panic!("{coding:?} of {} bytes was taken", wire.len()),
        };
        for cut in (0..wire.len()).step_by(wire.len() / 50) {
            refused(&wire[..cut]);
        }
        refused(&wire[..wire.len() - 1]);
        refused(&[&wire[..], b"garbage"].concat());
        refused(&[&wire[..], b"\0"].concat());
        refused(b"{\"not\": \"encoded\"}");
    }
    let mut wire = gzip(&plain);
    let sum = wire.len() - 8;
    wire[sum] ^= 1;
    assert_eq!(
        take(&wire, length(&wire), Coding::Gzip, Bound::Expansion, 1000).unwrap_err().code,
        ErrorCode::MalformedEncoding
    );
}

#[test]
fn case_69_a_small_body_that_becomes_a_huge_one_is_refused_before_it_is_one() {
    let plain = vec![b' '; 64 << 20];
    for (coding, wire) in [(Coding::Gzip, gzip(&plain)), (Coding::Zstd, zstd(&plain))] {
        for bound in [Bound::Bytes(1 << 20), Bound::Expansion] {
            let mut incoming = Incoming::new(length(&wire), coding, bound, Grow::unbounded()).unwrap();
            let (mut out, mut at, mut most) = (Buffer::default(), 0, 0);
            let refusal = loop {
                // What comes out is taken away at once, as lines are.
                out.clear();
                make_room(&incoming, wire.len() - at, &mut out);
                match incoming.feed(&wire[at..], &mut out) {
                    Ok(fed) => at += fed.consumed,
                    Err(refusal) => break refusal,
                }
                most = most.max(out.len());
            };
            assert_eq!(
                (refusal.status, refusal.code, refusal.close),
                (413, ErrorCode::BodyTooLarge, true),
                "{coding:?}"
            );
            assert!(most <= 64 << 10 && out.capacity() <= 256 << 10, "{coding:?}: {most}, {}", out.capacity());
            assert!(incoming.memory_bytes() < 9 << 20, "{coding:?}");
        }
    }
}

#[test]
fn a_zstd_window_beyond_8_mib_is_refused() {
    let plain = document();
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::WindowLog(27)).unwrap();
    context.set_parameter(zstd_safe::CParameter::ContentSizeFlag(false)).unwrap();
    let mut wire = vec![0; 4 << 20];
    let mut to = zstd_safe::OutBuffer::around(&mut wire[..]);
    let mut from = zstd_safe::InBuffer::around(&plain);
    context.compress_stream(&mut to, &mut from).unwrap();
    assert_eq!(context.end_stream(&mut to).unwrap(), 0);
    let written = to.pos();
    let refusal =
        take(&wire[..written], Body::Length(written as u64), Coding::Zstd, Bound::Expansion, 1000).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (413, ErrorCode::BodyTooLarge));
}

#[test]
fn codings_are_known_by_their_names_one_at_a_time() {
    let of = |name| Coding::of(Some(name)).map_err(|refusal| (refusal.status, refusal.code));
    assert_eq!(Coding::of(None), Ok(Coding::Identity));
    assert_eq!((of("GZIP"), of("x-gzip")), (Ok(Coding::Gzip), Ok(Coding::Gzip)));
    assert_eq!((of("zstd"), of("Identity")), (Ok(Coding::Zstd), Ok(Coding::Identity)));
    for name in ["br", "deflate", "gzip, zstd", "gzip,gzip", ""] {
        assert_eq!(of(name), Err((415, ErrorCode::EncodingNotSupported)), "{name}");
    }
}
