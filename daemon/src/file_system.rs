//! What kind of file system a directory is on, as far as that matters to a log.

use rustix::fs::statfs;
use std::path::Path;

/// A kind of file system that a log is not at home on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsuitable {
    /// Its files are in memory, and gone with the machine's power.
    Memory,
    /// Another machine, or another program, decides what is durable.
    Remote,
    /// It lies over others, as in a container; what was written may go with the container.
    Overlay,
    /// A write needs free space even where the file has room, and old space is given back late.
    CopyOnWrite,
}

impl Unsuitable {
    fn consequence(self) -> &'static str {
        match self {
            Self::Memory => "what is answered is gone when the machine stops, and answers say memory",
            Self::Remote => "another machine or program decides what is durable; use a local disk",
            Self::Overlay => "the log may be gone with the container; use a volume",
            Self::CopyOnWrite => "a write needs space that the log cannot set aside; leave some free",
        }
    }
}

/// Magic numbers of `statfs(2)`, with the names that people know, from the kernel's `magic.h` and the file systems' own headers.
const KNOWN: &[(u32, &str, Unsuitable)] = &[
    (0x0102_1994, "tmpfs", Unsuitable::Memory),
    (0x8584_58f6, "ramfs", Unsuitable::Memory),
    (0x6969, "NFS", Unsuitable::Remote),
    (0x517b, "SMB", Unsuitable::Remote),
    (0xff53_4d42, "CIFS", Unsuitable::Remote),
    (0xfe53_4d42, "SMB", Unsuitable::Remote),
    (0x0102_1997, "9p", Unsuitable::Remote),
    (0x6573_5546, "FUSE", Unsuitable::Remote),
    (0x00c3_6400, "Ceph", Unsuitable::Remote),
    (0x5346_414f, "AFS", Unsuitable::Remote),
    (0x6b41_4653, "AFS", Unsuitable::Remote),
    (0x7375_7245, "Coda", Unsuitable::Remote),
    (0x0bd0_0bd0, "Lustre", Unsuitable::Remote),
    (0x786f_4256, "vboxsf", Unsuitable::Remote),
    (0xbacb_acbc, "vmhgfs", Unsuitable::Remote),
    (0x794c_7630, "overlay", Unsuitable::Overlay),
    (0x6175_6673, "aufs", Unsuitable::Overlay),
    (0xf15f, "eCryptfs", Unsuitable::Overlay),
    (0x9123_683e, "btrfs", Unsuitable::CopyOnWrite),
    (0x2fc1_2fc1, "ZFS", Unsuitable::CopyOnWrite),
    (0xca45_1a4e, "bcachefs", Unsuitable::CopyOnWrite),
    (0x3434, "NILFS", Unsuitable::CopyOnWrite),
];

/// Looks at the file system of `dir`, and warns if a log is not at home on it. Returns whether it is in memory: nothing on it is
/// durable then.
pub fn warn_if_unsuitable(dir: &Path) -> bool {
    let (name, kind) = match statfs(dir) {
        Ok(stat) => match unsuitable(stat.f_type as u32) {
            Some(found) => found,
            None => return false,
        },
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "the kind of the file system is not known");
            return false;
        }
    };
    tracing::warn!(
        code = "file_system_unsuitable",
        dir = %dir.display(),
        file_system = name,
        consequence = kind.consequence(),
        "the file system does not suit a log"
    );
    kind == Unsuitable::Memory
}

fn unsuitable(magic: u32) -> Option<(&'static str, Unsuitable)> {
    KNOWN.iter().find(|(known, ..)| *known == magic).map(|(_, name, kind)| (*name, *kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_disks_are_suitable_and_the_others_are_known_by_name() {
        for magic in [0xef53, 0x5846_5342, 0xf2f5_2010] {
            assert_eq!(unsuitable(magic), None, "ext4, XFS and F2FS");
        }
        assert_eq!(unsuitable(0x0102_1994), Some(("tmpfs", Unsuitable::Memory)));
        assert_eq!(unsuitable(0x9123_683e), Some(("btrfs", Unsuitable::CopyOnWrite)));
        let mut magics: Vec<u32> = KNOWN.iter().map(|(magic, ..)| *magic).collect();
        magics.sort_unstable();
        magics.dedup();
        assert_eq!(magics.len(), KNOWN.len());
    }

    #[test]
    fn shared_memory_is_in_memory() {
        assert!(warn_if_unsuitable(Path::new("/dev/shm")));
        assert!(!warn_if_unsuitable(Path::new("/nowhere/at/all")), "an error is no verdict");
    }
}
