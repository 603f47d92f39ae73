//! Tests in namespaces of their own. There they may do what otherwise needs root, and they cannot harm the system.
//! Without root, the namespaces are created inside a user namespace.

use crate::common::small_disk::say_not_run;
use rustix::process::{getegid, geteuid};
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set for the test that runs inside.
const INSIDE: &str = "FOREBAY_TEST_INSIDE";

/// Enters a network namespace that has only a loopback device, which is down. Returns true inside it. Outside, it runs
/// the test inside or reports that it cannot, and returns false.
pub(crate) fn enter_network(test: &str) -> bool {
    let mut launcher = vec!["unshare".to_owned(), "-n".to_owned()];
    if !geteuid().is_root() {
        // PostgreSQL does not run as root, so the user is not mapped to root.
        launcher.extend(["-U", "--map-current-user", "--keep-caps"].map(str::to_owned));
    }
    enter(test, &launcher, &["ip", "link", "set", "lo", "up"], Path::new("/"))
}

/// Enters a mount namespace with a memory disk of this size. Returns the disk's path inside it. Outside, it behaves
/// like [`enter_network`] and returns none.
pub(crate) fn enter_disk(test: &str, bytes: u64) -> Option<PathBuf> {
    let place = tempfile::tempdir().unwrap();
    // The server's account needs access as well.
    let options = format!("size={bytes},mode=0777");
    let script = r#"mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@""#;
    let mut launcher: Vec<String> = ["unshare", "-m", "sh", "-c", script, "sh", &options].map(str::to_owned).to_vec();
    if !geteuid().is_root() {
        launcher.insert(1, "-r".to_owned());
    }
    launcher.push(place.path().to_str().unwrap().to_owned());
    if !geteuid().is_root() {
        // Mounting needed root in the namespace, but PostgreSQL does not run as root.
        let back = ["--map-user", &geteuid().to_string(), "--map-group", &getegid().to_string()].map(str::to_owned);
        launcher.extend(["unshare".to_owned(), "-U".to_owned()]);
        launcher.extend(back);
    }
    enter(test, &launcher, &["true"], place.path()).then(|| env::var_os(INSIDE).unwrap().into())
}

/// Runs this program's `test` through `launcher`, if `probe` succeeds through it.
fn enter(test: &str, launcher: &[String], probe: &[&str], place: &Path) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let command = |args: &[&str]| {
        let mut command = Command::new(&launcher[0]);
        command.args(&launcher[1..]).args(args).stdin(Stdio::null());
        command
    };
    let why = match command(probe).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("{}: {error}", launcher[0])),
    };
    if let Some(why) = why {
        say_not_run(test, &why);
        return false;
    }
    let program = env::current_exe().unwrap();
    let args = [program.to_str().unwrap(), "--exact", test, "--nocapture"];
    let output = command(&args).env(INSIDE, place).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{stdout}{stderr}");
    assert!(output.status.success() && stdout.contains("1 passed"), "{test} fails inside");
    false
}
