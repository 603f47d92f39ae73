//! Which partitions of the log are one drainer's.

use crate::message::CheckedMessage;

/// The records of the log that one drainer delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionShare {
    /// The drainer's number, from 0 on.
    pub(crate) drainer: usize,
    /// Number of drainers, at least 1.
    pub(crate) drainers: usize,
}

impl PartitionShare {
    /// All records.
    pub(crate) const WHOLE: Self = Self { drainer: 0, drainers: 1 };

    /// Whether this drainer delivers a record. All messages of a partition have the same drainer. A record without a message
    /// is the first drainer's.
    ///
    /// Checkpoints rely on this, so it is the same in all releases: CRC-32 (IEEE 802.3) of queue, a zero byte and partition,
    /// modulo the number of drainers.
    pub(crate) fn has(self, message: Option<CheckedMessage<'_>>) -> bool {
        if self.drainers == 1 {
            return true;
        }
        let owner = message.map_or(0, |message| {
            let mut crc = crc32fast::Hasher::new();
            crc.update(message.queue());
            crc.update(&[0]);
            crc.update(message.partition());
            crc.finalize() as usize % self.drainers
        });
        owner == self.drainer
    }

    /// Whether this drainer logs what all drainers meet when they read the log.
    pub(crate) fn reports(self) -> bool {
        self.drainer == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use uuid::Uuid;

    fn record(queue: &str, partition: &str) -> Vec<u8> {
        let message = Message {
            id: Uuid::nil(),
            accepted_us: 0,
            queue,
            partition,
            transaction_id: None,
            trace_id: None,
            namespace: "",
            task: "",
            producer_sub: "",
            awaited: false,
            payload: b"1",
        };
        let mut bytes = Vec::new();
        message.encode_head(&mut bytes);
        bytes.extend_from_slice(message.payload);
        bytes
    }

    fn owners(drainers: usize, record: &[u8]) -> Vec<usize> {
        let message = CheckedMessage::check(record).ok();
        (0..drainers).filter(|drainer| PartitionShare { drainer: *drainer, drainers }.has(message)).collect()
    }

    #[test]
    fn each_record_has_one_drainer_and_the_same_one_in_all_releases() {
        for drainers in [1, 2, 3, 16] {
            let mut counts = vec![0; drainers];
            for partition in 0..1000 {
                let owners = owners(drainers, &record("orders", &partition.to_string()));
                assert_eq!(owners.len(), 1);
                counts[owners[0]] += 1;
            }
            assert!(counts.iter().all(|count| *count > 600 / drainers), "{counts:?}");
        }
        // Constants, since later releases go on with the logs of earlier ones.
        let owner = |queue, partition| owners(16, &record(queue, partition))[0];
        assert_eq!([owner("orders", "Default"), owner("orders", "eu"), owner("a", "b"), owner("ab", "")], [2, 5, 1, 0]);
    }

    #[test]
    fn a_record_without_a_message_is_the_first_drainer_s() {
        assert!(PartitionShare { drainer: 0, drainers: 3 }.has(None));
        assert!(!PartitionShare { drainer: 2, drainers: 3 }.has(None));
    }
}
