//! File systems of their own, small enough to be filled: mounted by root, or in a mount namespace that needs no rights.

use super::{Daemon, data_dir};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// Bytes that every small disk has.
pub const DISK_BYTES: u64 = 64 << 20;

/// A mounted file system; gone when dropped. Daemons on it must have ended by then.
pub struct SmallDisk {
    mount_point: PathBuf,
    /// Lives in the namespace that the mount is in; none if all see it.
    holder: Option<Child>,
    launcher: Vec<String>,
    _dir: TempDir,
}

impl SmallDisk {
    /// A tmpfs of [`DISK_BYTES`], with these further options.
    ///
    /// # Errors
    /// Why there is none.
    pub fn tmpfs(options: &str) -> Result<Self, String> {
        let dir = data_dir();
        let mount_point = dir.path().join("disk");
        std::fs::create_dir(&mount_point).unwrap();
        let target = mount_point.to_str().unwrap();
        let options = format!("mode=700,size={DISK_BYTES}{options}");
        let mount = ["mount", "-t", "tmpfs", "-o", &options, "tmpfs", target];
        let as_root = match run(&mount) {
            Ok(()) => return Ok(Self { mount_point, holder: None, launcher: Vec::new(), _dir: dir }),
            // In a namespace it would not reach PostgreSQL, which runs under another account than root's.
            Err(error) if rustix::process::geteuid().is_root() => return Err(error),
            Err(error) => error,
        };
        match hold_namespace(&mount) {
            Ok(holder) => {
                let pid = holder.id().to_string();
                let launcher = ["nsenter", "--preserve-credentials", "-U", "-m", "-t", &pid, "--"].map(str::to_owned);
                Ok(Self { mount_point, holder: Some(holder), launcher: launcher.into(), _dir: dir })
            }
            Err(error) => Err(format!("{as_root}; in a namespace: {error}")),
        }
    }

    /// An ext4 in an image of [`DISK_BYTES`]: for root with loop devices only.
    ///
    /// # Errors
    /// Why there is none.
    pub fn ext4() -> Result<Self, String> {
        let dir = data_dir();
        let (mount_point, image) = (dir.path().join("disk"), dir.path().join("image"));
        std::fs::create_dir(&mount_point).unwrap();
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let image = image.to_str().unwrap();
        run(&["mkfs.ext4", "-q", "-F", "-m", "0", image])?;
        run(&["mount", "-o", "loop", image, mount_point.to_str().unwrap()])?;
        Ok(Self { mount_point, holder: None, launcher: Vec::new(), _dir: dir })
    }

    /// Where a daemon on it finds it.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Where the test finds it.
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

    /// Writes a file until nothing more fits; returns its path, as the test finds it.
    pub fn fill(&self) -> PathBuf {
        let path = self.outside().join("filler");
        let mut file = File::create(&path).unwrap();
        for piece_bytes in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; piece_bytes]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match &mut self.holder {
            Some(holder) => {
                // Its namespace, and the mount in it, end with the last process there.
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

/// Says on standard error that something was not tested. The test harness keeps to itself what `eprintln!` prints.
pub fn say_not_run(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}: {}", why.lines().next().unwrap_or_default());
}

fn run(command: &[&str]) -> Result<(), String> {
    let output = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", command[0]))?;
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}: {}", command[0], error.trim())) }
}

/// Mounts in a namespace of its own, and returns the process that keeps it.
fn hold_namespace(mount: &[&str]) -> Result<Child, String> {
    // It ends when its standard input does, so with the test however that ends.
    let script = r#""$@" && echo mounted && exec cat"#;
    let mut command = Command::new("unshare");
    command.args(["-r", "-m", "sh", "-c", script, "sh"]).args(mount);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("unshare: {error}"))?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line == "mounted\n" {
        return Ok(child);
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
