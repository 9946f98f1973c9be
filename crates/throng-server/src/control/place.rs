//! Where control sockets are: one directory per user, one file per process.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Sockets of one directory that are looked at.
const SOCKETS_MAX: usize = 256;
/// Directories of other users that root looks into.
const USERS_MAX: usize = 256;

/// A server that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub pid: u32,
    pub socket: PathBuf,
}

/// The user this process acts as.
pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Where this user's sockets may be, the best first.
fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        found.push(Path::new(&runtime).join("throng"));
    }
    found.push(PathBuf::from("/run/throng"));
    found.push(PathBuf::from(format!("/tmp/throng-{}", own_uid())));
    found
}

/// The first directory that is, or can be made, this user's alone to write in.
///
/// # Errors
/// Says of every candidate what is wrong with it.
pub(super) fn own_directory() -> Result<PathBuf, String> {
    let mut wrong = Vec::new();
    for directory in candidates() {
        match claim(&directory) {
            Ok(()) => return Ok(directory),
            Err(why) => wrong.push(format!("{}: {why}", directory.display())),
        }
    }
    Err(wrong.join("; "))
}

fn claim(directory: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.to_string()),
    }
    // Not through a link: in /tmp anybody may have put one there.
    let is = fs::symlink_metadata(directory).map_err(|error| error.to_string())?;
    if !is.is_dir() {
        return Err("is not a directory".to_owned());
    }
    if is.uid() != own_uid() {
        return Err(format!("belongs to the user {}", is.uid()));
    }
    // Who may write there may put another socket in the place of ours.
    if is.mode() & 0o022 != 0 {
        return Err("others may write there".to_owned());
    }
    Ok(())
}

/// Removes the sockets of processes that are gone without having done so.
pub(super) fn sweep(directory: &Path) {
    for Found { pid, socket } in sockets(directory) {
        let own = pid == std::process::id();
        if (own || !is_alive(pid)) && is_deaf(&socket) {
            fs::remove_file(&socket).ok(); // the next start tries again
        }
    }
}

/// The servers whose sockets this user can see.
pub(super) fn servers() -> Vec<Found> {
    let mut directories = candidates();
    let own = own_uid();
    // As from cron, where nothing says so.
    directories.push(PathBuf::from(format!("/run/user/{own}/throng")));
    if own == 0 {
        // Root is answered by everybody's.
        directories.extend(entries(Path::new("/run/user")).map(|user| user.join("throng")));
        let in_tmp = entries(Path::new("/tmp")).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_prefix("throng-"))
                .is_some_and(|uid| uid.parse::<u32>().is_ok())
        });
        directories.extend(in_tmp.take(USERS_MAX));
    }
    let mut found: Vec<Found> = directories.iter().flat_map(|dir| sockets(dir)).collect();
    found.retain(|server| is_alive(server.pid) && answers(own, &server.socket));
    found.sort();
    found.dedup();
    found
}

fn sockets(directory: &Path) -> Vec<Found> {
    let named = entries(directory).filter_map(|path| {
        let pid = path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok()?;
        Some(Found { pid, socket: path })
    });
    named.take(SOCKETS_MAX).collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Whether whoever owns a socket answers this user.
fn answers(own: u32, socket: &Path) -> bool {
    own == 0 || fs::symlink_metadata(socket).is_ok_and(|is| is.uid() == own)
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Whether nobody listens on it any more.
pub(super) fn is_deaf(socket: &Path) -> bool {
    UnixStream::connect(socket).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("throng-place-{}-{name}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_directory_that_others_may_write_in_or_that_is_a_link_is_refused() {
        let base = directory("claim");
        let own = base.join("own");
        claim(&own).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        claim(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(claim(&own).unwrap_err(), "others may write there");
        let link = base.join("link");
        symlink("own", &link).unwrap();
        assert_eq!(claim(&link).unwrap_err(), "is not a directory");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn only_sockets_of_dead_processes_are_swept() {
        let base = directory("sweep");
        // No process has this number: it is above the kernel's largest.
        let dead = base.join("4194999.sock");
        drop(UnixListener::bind(&dead).unwrap());
        let listening = base.join(format!("{}.sock", std::process::id()));
        let _listener = UnixListener::bind(&listening).unwrap();
        fs::write(base.join("other"), "").unwrap();
        sweep(&base);
        assert!(!dead.exists() && listening.exists() && base.join("other").exists());
        fs::remove_dir_all(base).unwrap();
    }
}
