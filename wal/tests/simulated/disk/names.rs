//! Names of files. A sync of their directory makes them durable; a crash keeps the first of the later changes, however many.

use super::FileId;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A change of names that is not durable yet: the name that is removed, and the one that is added.
#[derive(Clone)]
struct Change {
    gone: Option<PathBuf>,
    came: Option<(PathBuf, FileId)>,
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        let parent_is = |path: &PathBuf| path.parent() == Some(dir);
        self.gone.as_ref().is_some_and(parent_is) || self.came.as_ref().is_some_and(|(path, _)| parent_is(path))
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, FileId>) {
        if let Some(gone) = self.gone {
            names.remove(&gone);
        }
        if let Some((path, id)) = self.came {
            names.insert(path, id);
        }
    }
}

#[derive(Default)]
pub struct Names {
    durable: BTreeMap<PathBuf, FileId>,
    now: BTreeMap<PathBuf, FileId>,
    changes: Vec<Change>,
}

impl Names {
    pub fn get(&self, path: &Path) -> Option<FileId> {
        self.now.get(path).copied()
    }

    pub fn now(&self) -> &BTreeMap<PathBuf, FileId> {
        &self.now
    }

    pub fn change(&mut self, gone: Option<PathBuf>, came: Option<(PathBuf, FileId)>) {
        let change = Change { gone, came };
        change.clone().apply(&mut self.now);
        self.changes.push(change);
    }

    /// Syncs a directory. A journal commits in order, so all changes before the last one in `dir` become durable too.
    pub fn sync(&mut self, dir: &Path) {
        if let Some(last) = self.changes.iter().rposition(|change| change.touches(dir)) {
            for change in self.changes.drain(..=last) {
                change.apply(&mut self.durable);
            }
        }
    }

    /// How many changes a crash may lose.
    pub fn pending(&self) -> usize {
        self.changes.len()
    }

    /// Loses all changes but the first `kept`.
    pub fn crash(&mut self, kept: usize) {
        for change in self.changes.drain(..).take(kept) {
            change.apply(&mut self.durable);
        }
        self.now = self.durable.clone();
    }

    /// Files that have a name, or get one in a crash.
    pub fn files(&self) -> BTreeSet<FileId> {
        let coming = self.changes.iter().filter_map(|change| change.came.as_ref().map(|(_, id)| *id));
        self.now.values().chain(self.durable.values()).copied().chain(coming).collect()
    }
}
