//! What queues, groups and partitions are called, as far as the queue's thread has met them.

use super::directory::{FoundGroup, QueueOptions};
use std::{
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
};

/// A group that is known.
#[derive(Clone, Debug)]
pub(super) struct KnownGroup {
    pub(super) queue: i64,
    pub(super) group: i64,
    pub(super) queue_name: Rc<str>,
    pub(super) group_name: Rc<str>,
    pub(super) options: QueueOptions,
}

/// All names.
#[derive(Default)]
pub(super) struct Names {
    queues: HashMap<Rc<str>, i64>,
    groups: HashMap<i64, KnownGroup>,
    partitions: HashMap<i64, Rc<str>>,
    partition_ids: HashMap<i64, HashMap<Rc<str>, i64>>,
}

impl Names {
    /// A group was opened.
    pub(super) fn add_group(&mut self, found: &FoundGroup, queue_name: &Rc<str>, group_name: &Rc<str>) -> KnownGroup {
        let FoundGroup { queue, group, options } = *found;
        let (queue_name, group_name) = (Rc::clone(queue_name), Rc::clone(group_name));
        self.queues.insert(Rc::clone(&queue_name), queue);
        let known = KnownGroup { queue, group, queue_name, group_name, options };
        self.groups.insert(group, known.clone());
        known
    }

    /// A partition was met.
    pub(super) fn add_partition(&mut self, queue: i64, id: i64, name: &str) {
        if let Entry::Vacant(vacant) = self.partitions.entry(id) {
            let name: Rc<str> = name.into();
            vacant.insert(Rc::clone(&name));
            self.partition_ids.entry(queue).or_default().insert(name, id);
        }
    }

    /// A queue was configured: all its groups have other options.
    pub(super) fn set_options(&mut self, queue: i64, options: QueueOptions) {
        let groups = self.groups.values_mut().filter(|group| group.queue == queue);
        groups.for_each(|group| group.options = options);
    }

    /// The id of a queue of which a group is known.
    pub(super) fn queue(&self, name: &str) -> Option<i64> {
        self.queues.get(name).copied()
    }

    /// A group.
    pub(super) fn group(&self, group: i64) -> Option<&KnownGroup> {
        self.groups.get(&group)
    }

    /// The name of a partition.
    pub(super) fn partition(&self, id: i64) -> Option<&Rc<str>> {
        self.partitions.get(&id)
    }

    /// The id of a queue's partition.
    pub(super) fn partition_id(&self, queue: i64, name: &str) -> Option<i64> {
        self.partition_ids.get(&queue)?.get(name).copied()
    }
}
