//! Starts PostgreSQL's programs with the right account, environment and capability.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

use crate::account::Account;
use crate::error::{ClusterError, IoContext};

/// Number of the capability that the server gets if it could not enter its own directory otherwise:
/// `CAP_DAC_READ_SEARCH` (linux/capability.h), to enter any directory and read any file.
///
/// If root starts the daemon below a directory that only root may enter (mode 0700), the unprivileged account that runs
/// PostgreSQL cannot reach its files, although it owns them. The server then runs with one ambient capability, no others,
/// and a bounding set of only this one. PostgreSQL refuses to run with user id 0; it accepts capabilities.
///
/// This has a cost. A superuser of this private database can read any file of the machine through PostgreSQL's server-side
/// file functions, as if root ran the server. The daemon is no superuser there, and only root and the account may enter the
/// socket directory. To avoid the cost, let the account pass the directories above (`chmod o+x`). `CAP_DAC_OVERRIDE`, which
/// also allows to write any file, is never lent.
const LENT_BIT: u32 = 2;

/// The lent capability's name as setpriv(1) spells it.
const LENT_NAME: &str = "dac_read_search";

/// Whether this process has the capability to lend and may pass it on. `status` is the text of /proc/self/status.
fn can_lend(status: &str) -> bool {
    ["CapEff:", "CapBnd:"].iter().all(|set| capability_set(status, set) >> LENT_BIT & 1 == 1)
}

/// Number of `CAP_SETPCAP` (linux/capability.h), which is required to reduce the bounding set.
const CAP_SETPCAP_BIT: u32 = 8;

/// The text of /proc/self/status; empty, as for a process without capabilities, if it cannot be read.
fn own_status() -> String {
    let path = "/proc/self/status";
    fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::debug!(path, %error, "cannot read the capabilities of this process");
        String::new()
    })
}

/// A capability set in the text of /proc/PID/status, as a bit mask; 0 if the text does not contain the set.
fn capability_set(status: &str, set: &str) -> u64 {
    let hex = status.lines().find_map(|line| line.strip_prefix(set)).unwrap_or("0").trim();
    u64::from_str_radix(hex, 16).unwrap_or(0)
}

/// Builds the commands that run PostgreSQL's programs.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    account: Account,
    lends: bool,
    setpriv: Option<PathBuf>,
    die_with_process: bool,
}

impl Launcher {
    /// Checks whether `account` can reach `dir` and `binary`, and lends the capability to if it cannot.
    ///
    /// # Errors
    /// [`ClusterError::NotTraversable`] if it cannot, and there is no capability to lend or the capability does not help;
    /// [`ClusterError::Io`] if the check cannot be made.
    pub(crate) fn new(
        account: Account,
        dir: &Path,
        binary: &Path,
        die_with_process: bool,
    ) -> Result<Self, ClusterError> {
        let mut launcher = Self { account, lends: false, setpriv: find_setpriv(), die_with_process };
        if launcher.account.switched && !launcher.reaches(dir, binary)? {
            let refuse = |reason| ClusterError::NotTraversable {
                dir: dir.to_owned(),
                account: launcher.account.name.clone(),
                reason,
            };
            if launcher.setpriv.is_none() {
                return Err(refuse("setpriv (util-linux) is not installed"));
            }
            if !can_lend(&own_status()) {
                return Err(refuse("this process has no CAP_DAC_READ_SEARCH to lend"));
            }
            launcher.lends = true;
            if !launcher.reaches(dir, binary)? {
                return Err(refuse("it cannot be entered even with a capability"));
            }
        }
        Ok(launcher)
    }

    /// Whether the server runs with `CAP_DAC_READ_SEARCH`.
    pub(crate) fn lends(&self) -> bool {
        self.lends
    }

    /// Whether a shell that runs as the account can enter `dir` and execute `binary`. Mode bits alone would not tell:
    /// access control lists, mount options and user namespaces count as well.
    fn reaches(&self, dir: &Path, binary: &Path) -> Result<bool, ClusterError> {
        let mut command = self.command(Path::new("/bin/sh"), Path::new("/"));
        command.args(["-c", r#"cd -P -- "$1" && test -x "$2""#, "sh"]).arg(dir).arg(binary);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        Ok(status.context("checking access to", dir)?.success())
    }

    /// A command that runs `program` as the account, in `dir`, in a process group of its own, with a minimal environment
    /// and without standard input.
    ///
    /// The process group keeps a Ctrl-C at the daemon's terminal from stopping the database before the daemon has drained
    /// into it. The minimal environment keeps the daemon's secrets out of the server's environment, and variables such
    /// as `PGDATA` and `PGPORT` from changing the server's settings.
    pub(crate) fn command(&self, program: &Path, dir: &Path) -> Command {
        let setpriv_options = self.setpriv_options();
        let mut command = match &self.setpriv {
            Some(setpriv) if !setpriv_options.is_empty() => {
                let mut command = Command::new(setpriv);
                command.args(setpriv_options).arg(program);
                command
            }
            _ => {
                let mut command = Command::new(program);
                if self.account.switched {
                    // For root, the standard library's `uid` also clears the supplementary groups.
                    command.uid(self.account.uid).gid(self.account.gid);
                }
                command
            }
        };
        command.env_clear().env("LC_ALL", "C");
        for name in ["PATH", "TZ", "LD_LIBRARY_PATH"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command.current_dir(dir).process_group(0).stdin(Stdio::null());
        command
    }

    /// Options for setpriv(1); empty if the standard library can do all that is needed.
    fn setpriv_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if !self.lends && !self.die_with_process {
            return options;
        }
        if self.account.switched {
            options.push(format!("--reuid={}", self.account.uid));
            options.push(format!("--regid={}", self.account.gid));
            options.push("--clear-groups".to_owned());
        }
        if self.lends {
            let only = format!("-all,+{LENT_NAME}");
            if capability_set(&own_status(), "CapEff:") >> CAP_SETPCAP_BIT & 1 == 1 {
                options.push(format!("--bounding-set={only}"));
            }
            options.push(format!("--inh-caps={only}"));
            options.push(format!("--ambient-caps={only}"));
            options.push("--no-new-privs".to_owned());
        }
        if self.die_with_process {
            // SIGQUIT is PostgreSQL's immediate shutdown.
            options.push("--pdeathsig=QUIT".to_owned());
        }
        options.push("--".to_owned());
        options
    }

    /// Starts a command of [`Launcher::command`].
    pub(crate) fn spawn(&self, command: Command) -> io::Result<Child> {
        if self.die_with_process { spawn_from_lasting_thread(command) } else { { command }.spawn() }
    }
}

fn find_setpriv() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin"), PathBuf::from("/bin")])
        .map(|dir| dir.join("setpriv"))
        .find(|file| file.is_absolute() && file.is_file())
}

/// Starts a command from a thread that runs as long as the process.
///
/// The kernel sends the parent-death signal when the *thread* that started the child ends. The test harness runs each
/// test in a thread of its own, so a server that a test's thread started would end with that test.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Request = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Sending fails only if the requesting thread has panicked; its receiver is gone then.
                drop(reply.send(command.spawn()));
            }
        });
        sender
    });
    let (reply, answer) = channel();
    let ended = || io::Error::other("the thread that starts servers has ended");
    spawner.send((command, reply)).map_err(|_| ended())?;
    answer.recv().map_err(|_| ended())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_sets_are_read_from_the_status_file() {
        let status = "Name:\tx\nCapEff:\t0000000000000006\nCapBnd:\t0000000000000102\n";
        assert_eq!(capability_set(status, "CapEff:"), 6);
        assert_eq!(capability_set(status, "CapBnd:") >> CAP_SETPCAP_BIT & 1, 1);
        assert_eq!(capability_set(status, "CapAmb:"), 0);
    }

    #[test]
    fn a_server_runs_with_the_lent_capability_and_no_other() {
        let account = Account { uid: 7, gid: 8, name: "seven".to_owned(), switched: true };
        let launcher = Launcher {
            account,
            lends: true,
            setpriv: Some(PathBuf::from("/usr/bin/setpriv")),
            die_with_process: false,
        };
        let options = launcher.setpriv_options();
        assert!(options.contains(&"--ambient-caps=-all,+dac_read_search".to_owned()));
        assert!(options.contains(&"--inh-caps=-all,+dac_read_search".to_owned()));
        assert!(options.contains(&"--reuid=7".to_owned()) && options.contains(&"--regid=8".to_owned()));
        assert_eq!(options.last().map(String::as_str), Some("--"));
    }
}
