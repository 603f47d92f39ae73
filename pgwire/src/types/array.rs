//! Arrays of one dimension in binary format.
//!
//! Layout, all big-endian: number of dimensions i32 (0 for an empty array), has-NULL i32, element type u32; then for
//! the one dimension its length i32 and lower bound i32; then for each element its length i32 (-1 for NULL) and its
//! bytes. Source: `array_recv` of PostgreSQL.

use std::io;

use bytes::{Buf, BufMut, BytesMut};

use super::oid::Oid;

/// The size of the header of an array with one dimension, in bytes.
const HEADER_BYTES: usize = 20;

/// Appends an array. `put` appends the bytes of one element.
pub(super) fn put_array<T>(
    out: &mut BytesMut,
    element: Oid,
    elements: impl ExactSizeIterator<Item = Option<T>>,
    mut put: impl FnMut(T, &mut BytesMut),
) -> io::Result<()> {
    let count = length_word(elements.len())?;
    out.reserve(HEADER_BYTES);
    out.put_i32(i32::from(count != 0));
    let has_null_at = out.len();
    out.put_i32(0);
    out.put_u32(element);
    if count == 0 {
        return Ok(());
    }
    out.put_i32(count);
    out.put_i32(1);
    for value in elements {
        let length_at = out.len();
        out.put_i32(-1);
        match value {
            Some(value) => {
                put(value, out);
                let length = length_word(out.len() - length_at - 4)?;
                out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
            }
            None => out[has_null_at..has_null_at + 4].copy_from_slice(&1_i32.to_be_bytes()),
        }
    }
    Ok(())
}

fn length_word(length: usize) -> io::Result<i32> {
    i32::try_from(length).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "longer than 2 GiB"))
}

/// Reads an array. `take` reads one element, and returns `None` if its bytes are not a value of the type.
///
/// `None` if the array has another element type, has more than one dimension, or is malformed.
pub(super) fn read_array<'a, T>(
    mut bytes: &'a [u8],
    element: Oid,
    take: impl Fn(Option<&'a [u8]>) -> Option<T>,
) -> Option<Vec<T>> {
    let dimensions = take_i32(&mut bytes)?;
    let _has_null = take_i32(&mut bytes)?;
    if bytes.try_get_u32().ok()? != element {
        return None;
    }
    match dimensions {
        0 if bytes.is_empty() => return Some(Vec::new()),
        1 => {}
        _ => return None,
    }
    let count = usize::try_from(take_i32(&mut bytes)?).ok()?;
    let _lower_bound = take_i32(&mut bytes)?;
    // Each element has at least a length word. This check keeps a wrong count from reserving memory.
    if count > bytes.len() / 4 {
        return None;
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let value = match take_i32(&mut bytes)? {
            -1 => None,
            length => Some(bytes.split_off(..usize::try_from(length).ok()?)?),
        };
        values.push(take(value)?);
    }
    bytes.is_empty().then_some(values)
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    bytes.try_get_i32().ok()
}
