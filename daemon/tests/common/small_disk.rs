//! Small file systems that tests can fill. Root mounts them; without root they are mounted in a mount namespace, which
//! needs no privileges.

use super::{Daemon, data_dir};
use std::{
    fmt::Display,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;

/// The size of every small disk.
pub const DISK_BYTES: u64 = 64 << 20;

/// The size of a small btrfs: it takes none that is much smaller.
pub const BTRFS_BYTES: u64 = 128 << 20;

/// Why a small disk could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{program}: {source}")]
    Run { program: String, source: io::Error },
    #[error("{program}: {stderr}")]
    Failed { program: String, stderr: String },
    #[error("{as_root}; in a namespace: {in_namespace}")]
    BothWays { as_root: Box<Self>, in_namespace: Box<Self> },
}

/// A mounted file system; it is unmounted when dropped. Daemons on it must have exited by then.
pub struct SmallDisk {
    mount_point: PathBuf,
    /// The process that keeps the mount namespace alive; none if the mount is visible to all.
    holder: Option<Child>,
    launcher: Vec<String>,
    _dir: TempDir,
}

impl SmallDisk {
    /// A tmpfs of [`DISK_BYTES`] with these additional options.
    ///
    /// # Errors
    /// The reason why none can be mounted.
    pub fn tmpfs(options: &str) -> Result<Self, MountError> {
        let dir = data_dir();
        let mount_point = dir.path().join("disk");
        std::fs::create_dir(&mount_point).unwrap();
        let target = mount_point.to_str().unwrap();
        let options = format!("mode=700,size={DISK_BYTES}{options}");
        let mount = ["mount", "-t", "tmpfs", "-o", &options, "tmpfs", target];
        let as_root = match run(&mount) {
            Ok(()) => return Ok(Self { mount_point, holder: None, launcher: Vec::new(), _dir: dir }),
            // A namespace would not help root: PostgreSQL runs under another account and would not see the mount.
            Err(error) if rustix::process::geteuid().is_root() => return Err(error),
            Err(error) => error,
        };
        match hold_namespace(&mount) {
            Ok(holder) => {
                let pid = holder.id().to_string();
                let launcher = ["nsenter", "--preserve-credentials", "-U", "-m", "-t", &pid, "--"].map(str::to_owned);
                Ok(Self { mount_point, holder: Some(holder), launcher: launcher.into(), _dir: dir })
            }
            Err(in_namespace) => {
                Err(MountError::BothWays { as_root: Box::new(as_root), in_namespace: Box::new(in_namespace) })
            }
        }
    }

    /// An ext4 in an image of [`DISK_BYTES`]; needs root and loop devices.
    ///
    /// # Errors
    /// The reason why none can be mounted.
    pub fn ext4() -> Result<Self, MountError> {
        Self::image(DISK_BYTES, &["mkfs.ext4", "-q", "-F", "-m", "0"])
    }

    /// A file system that `mkfs` makes in an image of so many bytes.
    fn image(bytes: u64, mkfs: &[&str]) -> Result<Self, MountError> {
        let dir = data_dir();
        let (mount_point, image) = (dir.path().join("disk"), dir.path().join("image"));
        std::fs::create_dir(&mount_point).unwrap();
        File::create(&image).unwrap().set_len(bytes).unwrap();
        let image = image.to_str().unwrap();
        run(&[mkfs, &[image]].concat())?;
        run(&["mount", "-o", "loop", image, mount_point.to_str().unwrap()])?;
        Ok(Self { mount_point, holder: None, launcher: Vec::new(), _dir: dir })
    }

    /// A btrfs, which copies on write, in an image of [`BTRFS_BYTES`]; needs root, loop devices and `mkfs.btrfs`.
    ///
    /// # Errors
    /// The reason why none can be mounted.
    pub fn btrfs() -> Result<Self, MountError> {
        Self::image(BTRFS_BYTES, &["mkfs.btrfs", "-q"])
    }

    /// The path for a daemon on the disk.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// The path for the test.
    pub fn outside(&self) -> PathBuf {
        match &self.holder {
            None => self.mount_point.clone(),
            Some(holder) => {
                let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
                root.join(self.mount_point.strip_prefix("/").unwrap())
            }
        }
    }

    /// Starts a daemon that sees the disk.
    pub fn start(&self, data_dir: &Path, postgres: &str, args: &[&str]) -> Daemon {
        let launcher: Vec<&str> = self.launcher.iter().map(String::as_str).collect();
        Daemon::start_by(&launcher, data_dir, postgres, args)
    }

    /// Writes a file until the disk is full, behind what it has already. Returns its path for the test.
    pub fn fill(&self) -> PathBuf {
        let path = self.outside().join("filler");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        // Where the disk reserves more for a write than it takes, a sync makes room again.
        for piece_bytes in [1 << 20, 1 << 20, 4096, 4096, 4096, 1] {
            while file.write_all(&vec![1; piece_bytes]).is_ok() {}
            if let Err(error) = file.sync_all() {
                eprintln!("{}: {error}", path.display());
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.holder {
            Some(holder) => {
                // The namespace and its mount end with their last process.
                let _ = holder.kill();
                let _ = holder.wait();
            }
            None => {
                let target = self.mount_point.to_str().unwrap();
                if let Err(error) = run(&["umount", target]).or_else(|_| run(&["umount", "-l", target])) {
                    eprintln!("{target} stays mounted: {error}");
                }
            }
        }
    }
}

/// Reports on standard error that a test did not run. The test harness hides the output of `eprintln!`.
pub fn say_not_run(what: &str, why: &dyn Display) {
    let why = why.to_string();
    let mut standard_error = io::stderr();
    writeln!(standard_error, "NOT RUN: {what}: {}", why.lines().next().unwrap_or("no reason")).unwrap();
}

fn run(command: &[&str]) -> Result<(), MountError> {
    let program = command[0];
    let output = Command::new(program).args(&command[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|source| MountError::Run { program: program.to_owned(), source })?;
    if output.status.success() { Ok(()) } else { Err(failed(program, &output)) }
}

fn failed(program: &str, output: &Output) -> MountError {
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    MountError::Failed { program: program.to_owned(), stderr }
}

/// Mounts in a new namespace and returns the process that keeps it alive.
fn hold_namespace(mount: &[&str]) -> Result<Child, MountError> {
    const PROGRAM: &str = "unshare";
    // `cat` exits at the end of its standard input, which is when the test exits for any reason.
    let script = r#""$@" && echo mounted && exec cat"#;
    let mut command = Command::new(PROGRAM);
    command.args(["-r", "-m", "sh", "-c", script, "sh"]).args(mount);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let error = |source| MountError::Run { program: PROGRAM.to_owned(), source };
    let mut child = child.map_err(error)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line == "mounted\n" {
        return Ok(child);
    }
    let output = child.wait_with_output().map_err(error)?;
    Err(failed(PROGRAM, &output))
}
