//! A process between two others, for a moment: so that the new one is no child of the old one.
//!
//! systemd waits for the end of a main process only where that is a child of its own. Told of one
//! that is somebody else's, it takes it for ended as soon as it has sent it SIGTERM, and kills it.
//! A process whose parent ends becomes the child of the manager.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::channel::{Channel, Deadline};
use super::message::FromNew;

/// The command of ours that is that process.
const COMMAND: &str = "orphan";
/// This program, even where another one was installed in its place.
const OWN: &str = "/proc/self/exe";
/// How long its one message may take to be sent; nothing else is on its way.
const SAY: Duration = Duration::from_secs(5);

/// What starts a program in this way; what follows are the program's arguments.
pub(super) fn of(program: &Path) -> Command {
    let mut command = Command::new(OWN);
    command.arg(COMMAND).arg(program);
    command
}

/// Is that process: starts the program and tells its number, or why it cannot be started, on the
/// channel that both have as their standard input.
///
/// # Errors
/// When standard input is no such channel, or nobody listens to it.
pub fn start(program: &Path, arguments: &[OsString]) -> io::Result<()> {
    let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    // Its standard input is this one's.
    let said = match Command::new(program).args(arguments).spawn() {
        Ok(child) => FromNew::Born { pid: child.id() },
        Err(error) => FromNew::Refused(format!("{} cannot be run: {error}", program.display())),
    };
    channel.send(&said, &[], Deadline::after(SAY)).map_err(io::Error::other)
}
