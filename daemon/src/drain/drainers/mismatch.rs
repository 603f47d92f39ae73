//! Log and database do not fit: how that is told, and what there is to decide.

use super::hold_up::{HoldUp, WaitFor};
use crate::{
    limits::MISMATCH_REMINDER_INTERVAL,
    state::{drain_point::DrainPoint, log_view::LogView, place::Place},
};
use std::{fmt::Display, path::Path, time::Instant};

/// What does not fit, as a session has found it.
pub(super) struct Mismatch {
    /// The code of its log line.
    code: &'static str,
    /// What does not fit.
    what: String,
    /// Where the drain should continue if neither log nor database can be brought back; `None`: the log needs an id of its own.
    choice: Option<Place>,
}

impl Mismatch {
    /// `what` does not fit; it is logged with `code`. `choice` is where the drain should continue if neither log nor database can
    /// be brought back.
    pub(super) fn new(code: &'static str, what: &dyn Display, choice: Option<Place>) -> Self {
        Self { code, what: what.to_string(), choice }
    }

    /// The hold-up: what does not fit, how far the drain was, and the command that decides. `point` is how far the drain was.
    pub(super) fn hold_up(&self, log: &LogView, point: &DrainPoint, data_dir: &Path) -> HoldUp {
        let Self { code, what, choice } = self;
        let lanes = log.lanes.iter().zip(point.least());
        let lanes = lanes.map(|(progress, mark)| {
            format!("lane {} {} (record {})", progress.lane.lane(), mark.position, mark.ordinal)
        });
        let lanes = lanes.collect::<Vec<_>>().join(", ");
        let flag = DataDirFlag(data_dir);
        let reason = match choice {
            Some(choice) => format!(
                "{what}. The drain was at {lanes}. `forebay checkpoint set --to {} --yes{flag}` {}. `forebay checkpoint show` \
                 lists all choices",
                choice.name(),
                consequence(*choice),
            ),
            None => format!(
                "{what}. If this directory was copied by mistake and took no push, stop its daemon and delete it. Else `forebay \
                 wal fork{flag}` gives its log an id of its own and delivers what only this directory has"
            ),
        };
        HoldUp::new(code, &reason, WaitFor::Person)
    }
}

/// What a decision leads to.
fn consequence(choice: Place) -> &'static str {
    match choice {
        Place::Database => "goes on at the checkpoint of this database: right where all that it had was moved",
        Place::Mismatch => {
            "goes on there, or where the checkpoint proves that more was delivered, and delivers what is not delivered yet: right \
             once the database has what was delivered before (load a dump first)"
        }
        Place::LogOldest => "delivers all that the log still has",
        Place::LogEnd => "delivers nothing that the log has now",
    }
}

/// The flag of the command line that names the data directory.
struct DataDirFlag<'a>(&'a Path);

impl Display for DataDirFlag<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.0.display().to_string();
        let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte));
        match is_plain {
            true => write!(f, " --data-dir {path}"),
            false => write!(f, " --data-dir '{}'", path.replace('\'', r"'\''")),
        }
    }
}

/// Logs mismatches: one that is not the last one at once, the same one again after a while.
#[derive(Default)]
pub(super) struct MismatchLog {
    last: Option<(HoldUp, Instant)>,
}

impl MismatchLog {
    /// Logs that `drainer` has found log and database not to fit.
    pub(super) fn report(&mut self, drainer: usize, hold_up: &HoldUp) {
        let HoldUp { code, reason, .. } = hold_up;
        let is_told = |(last, at): &(HoldUp, Instant)| last == hold_up && at.elapsed() < MISMATCH_REMINDER_INTERVAL;
        if self.last.as_ref().is_some_and(is_told) {
            tracing::debug!(code, drainer, error = reason, "delivery is still paused");
            return;
        }
        tracing::error!(code, drainer, error = reason, "delivery is paused; pushes are kept in the log");
        self.last = Some((hold_up.clone(), Instant::now()));
    }

    /// A mismatch after this is another one.
    pub(super) fn clear(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_can_be_pasted_into_a_shell() {
        let flag = |path: &str| DataDirFlag(Path::new(path)).to_string();
        assert_eq!(flag("/var/lib/forebay"), " --data-dir /var/lib/forebay");
        assert_eq!(flag("/a dir/it's"), r" --data-dir '/a dir/it'\''s'");
    }
}
