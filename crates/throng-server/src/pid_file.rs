//! The file with the number of the process that serves, for scripts (`pid_file`).

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::front::Front;
use crate::log::line;

/// Writes the number of this process down, in place of that of the process before it.
pub(crate) fn write(front: &Front) {
    let Some(path) = &front.settings().pid_file else { return };
    if let Err(error) = put(path, std::process::id()) {
        line!(
            front.common.log,
            Warn,
            "pid_file",
            "pid_file {} does not tell that pid {} serves: {}",
            path.display(),
            std::process::id(),
            error
        );
    }
}

/// Removes the file, if it is this process that it names.
pub(crate) fn remove(front: &Front) {
    let Some(path) = &front.settings().pid_file else { return };
    if fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string()) {
        fs::remove_file(path).ok(); // whoever reads it finds nobody of that number
    }
}

/// Whoever reads it finds the one number or the other, and never a part.
fn put(path: &Path, pid: u32) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{pid}"));
    fs::remove_file(&draft).ok(); // left by a process of this number that was killed
    // Not through a link that somebody may have put there.
    let written = fs::File::create_new(&draft)
        .and_then(|mut file| writeln!(file, "{pid}"))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        fs::remove_file(&draft).ok(); // it may not be there
    }
    written
}
