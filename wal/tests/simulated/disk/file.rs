//! One file: its durable sectors, the written and unsynced ones, and those that the kernel wrongly considers clean.

use super::SECTOR_BYTES;
use std::collections::BTreeMap;

type Sector = [u8; SECTOR_BYTES];

/// The fate of a written and unsynced sector in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It became durable.
    Kept,
    /// It did not: the sector has its durable content.
    Lost,
    /// It reads as zeros.
    Zero,
    /// The write before it, which was not synced either, became durable. Without one it is lost.
    Old,
}

/// The content of a file. Sectors of zeros take no memory, so that ten thousand empty segments are cheap.
#[derive(Clone, Default)]
pub struct FileData {
    length: usize,
    /// Durable sectors.
    durable: BTreeMap<usize, Sector>,
    /// Sectors that a failed sync left in memory and the kernel considers clean. Readers see them until a crash.
    cached: BTreeMap<usize, Sector>,
    /// Sectors written since the last sync, with all their versions in order.
    pending: BTreeMap<usize, Vec<Sector>>,
}

impl FileData {
    pub fn new(content: &[u8], length: usize) -> Self {
        let mut file = Self { length, ..Self::default() };
        file.put(content, 0);
        file
    }

    pub fn len(&self) -> usize {
        self.length
    }

    /// Reads as a reader sees the file.
    pub fn read(&self, buf: &mut [u8], offset: usize) -> usize {
        let length = buf.len().min(self.length.saturating_sub(offset));
        let buf = &mut buf[..length];
        buf.fill(0);
        let sectors = offset / SECTOR_BYTES..(offset + length).div_ceil(SECTOR_BYTES);
        let layers = self.durable.range(sectors.clone()).chain(self.cached.range(sectors.clone()));
        layers.for_each(|(sector, bytes)| overlay(buf, offset, *sector, bytes));
        for (sector, versions) in self.pending.range(sectors) {
            if let Some(bytes) = versions.last() {
                overlay(buf, offset, *sector, bytes);
            }
        }
        length
    }

    pub fn write(&mut self, bytes: &[u8], offset: usize) {
        assert!(offset.is_multiple_of(SECTOR_BYTES) && bytes.len().is_multiple_of(SECTOR_BYTES), "whole sectors");
        assert!(offset + bytes.len() <= self.length, "within the segment");
        for (index, bytes) in bytes.as_chunks().0.iter().enumerate() {
            self.pending.entry(offset / SECTOR_BYTES + index).or_default().push(*bytes);
        }
    }

    pub fn sync(&mut self) {
        for (sector, mut versions) in std::mem::take(&mut self.pending) {
            if let Some(bytes) = versions.pop() {
                self.set(sector, bytes);
            }
        }
    }

    /// Fails a sync: nothing is dirty afterwards, and nothing became durable. `cached` says whether readers still see it.
    pub fn fail_sync(&mut self, cached: bool) {
        for (sector, mut versions) in std::mem::take(&mut self.pending) {
            if let Some(bytes) = versions.pop().filter(|_| cached) {
                self.cached.insert(sector, bytes);
            }
        }
    }

    pub fn crash(&mut self, mut fate: impl FnMut(usize) -> Fate) {
        self.cached.clear();
        for (sector, mut versions) in std::mem::take(&mut self.pending) {
            let newest = versions.pop();
            let becomes = match fate(sector) {
                Fate::Kept => newest,
                Fate::Lost => None,
                Fate::Zero => Some([0; SECTOR_BYTES]),
                Fate::Old => versions.pop(),
            };
            if let Some(bytes) = becomes {
                self.set(sector, bytes);
            }
        }
    }

    /// Overwrites bytes durably. Drops those beyond the end of the file.
    pub fn put(&mut self, bytes: &[u8], offset: usize) {
        let length = bytes.len().min(self.length.saturating_sub(offset));
        let mut at = 0;
        while at < length {
            let (sector, within) = ((offset + at) / SECTOR_BYTES, (offset + at) % SECTOR_BYTES);
            let now = (SECTOR_BYTES - within).min(length - at);
            let mut content = self.durable.get(&sector).copied().unwrap_or([0; SECTOR_BYTES]);
            content[within..within + now].copy_from_slice(&bytes[at..at + now]);
            self.set(sector, content);
            at += now;
        }
    }

    pub fn truncate(&mut self, length: usize) {
        self.length = length;
        self.durable.split_off(&length.div_ceil(SECTOR_BYTES));
    }

    fn set(&mut self, sector: usize, bytes: Sector) {
        self.cached.remove(&sector);
        if bytes == [0; SECTOR_BYTES] {
            self.durable.remove(&sector);
        } else {
            self.durable.insert(sector, bytes);
        }
    }
}

/// Copies the part of a sector that lies within `buf`, which starts at `offset` of the file.
fn overlay(buf: &mut [u8], offset: usize, sector: usize, bytes: &Sector) {
    let start = sector * SECTOR_BYTES;
    let from = start.max(offset);
    let to = (start + SECTOR_BYTES).min(offset + buf.len());
    if from < to {
        buf[from - offset..to - offset].copy_from_slice(&bytes[from - start..to - start]);
    }
}
