//! Strings: finding their ends, decoding and writing escapes.

use std::borrow::Cow;

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH_BITS: u64 = ONES << 7;

/// Words of eight bytes of a string that are searched before blocks are.
const WORDS_BEFORE_BLOCKS: u32 = 2;

/// Bytes of a block: two SSE2 registers, which every x86-64 has.
const BLOCK_BYTES: usize = 32;

/// The first position from `from` on of a quotation mark, a backslash or a byte below 0x20; the length of `bytes` if there is
/// none.
#[inline(always)]
pub(super) fn next_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut words = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let hits = special_bytes(u64::from_le_bytes(*chunk));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
        words += 1;
        // Names end within a few words. A longer string is text, and most of that is plain.
        if words == WORDS_BEFORE_BLOCKS {
            at = skip_plain_blocks(bytes, at);
        }
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            return at;
        }
        at += 1;
    }
    at
}

/// Steps over whole blocks without a special byte.
#[inline]
fn skip_plain_blocks(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK_BYTES>()) {
        // There is no branch, so that the compiler compares all bytes at once in the widest registers.
        let is_special = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
        if block.iter().fold(false, |any, byte| any | is_special(byte)) {
            break;
        }
        at += BLOCK_BYTES;
    }
    at
}

/// Sets the top bit of each special byte. Borrows run towards the higher bytes only, so the lowest bit that is set is right.
/// Those above it may be wrong.
#[inline(always)]
fn special_bytes(word: u64) -> u64 {
    // `x ^ 2` maps the quotation mark (0x22) to 0x20 and keeps bytes below 0x20 there, so that one comparison finds both.
    let low_or_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    // Bytes from 0x80 on are never special, and neither XOR changes the top bit.
    (low_or_quote | backslash) & !word & HIGH_BITS
}

/// Decodes `raw`, the text between the quotation marks. The scanner must have accepted it.
pub(super) fn decode(raw: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'\\', raw.as_bytes()) else {
        return Cow::Borrowed(raw);
    };
    let mut decoded = String::with_capacity(raw.len());
    let (plain, mut rest) = raw.split_at(first);
    decoded.push_str(plain);
    while let Some((character, length)) = decode_escape(rest.as_bytes()) {
        decoded.push(character);
        let tail = rest.get(length..).unwrap_or_default();
        let end = memchr::memchr(b'\\', tail.as_bytes()).unwrap_or(tail.len());
        let (plain, next) = tail.split_at(end);
        decoded.push_str(plain);
        rest = next;
    }
    assert!(!rest.starts_with('\\'), "the scanner accepts valid escapes only");
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// The character of the escape at the start of `bytes`, and the escape's length.
fn decode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let character = match bytes.get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return decode_unicode_escape(bytes),
        other => char::from(*other),
    };
    Some((character, 2))
}

fn decode_unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = u32::from(hex4(bytes.get(2..6)?)?);
    if let Some(character) = char::from_u32(unit) {
        return Some((character, 6));
    }
    let low = u32::from(hex4(bytes.get(8..12)?)?);
    let character = char::from_u32(0x10000 + ((unit & 0x3ff) << 10) + (low & 0x3ff))?;
    Some((character, 12))
}

/// The value of four hexadecimal digits; `None` if they are no digits.
#[inline]
pub(super) fn hex4(digits: &[u8]) -> Option<u16> {
    let mut value = 0;
    for digit in digits {
        value = (value << 4) | char::from(*digit).to_digit(16)?;
    }
    u16::try_from(value).ok()
}

/// Appends `text` as a JSON string with its quotation marks. Only the quotation mark, the backslash and bytes below 0x20 are
/// escaped.
pub fn json_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut from = 0;
    loop {
        let stop = next_special(bytes, from);
        out.extend_from_slice(&bytes[from..stop]);
        let Some(byte) = bytes.get(stop) else {
            break;
        };
        let short = match byte {
            b'"' | b'\\' => *byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => 0,
        };
        if short != 0 {
            out.extend_from_slice(&[b'\\', short]);
        } else {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        from = stop + 1;
    }
    out.push(b'"');
}
