//! Who listens on a TCP port, in a word.

use crate::sockets::holders_of_port;
use crate::tree::Tree;

/// The process that listens on a port of this machine, such as `nginx (pid 71)`; none when there
/// is none, or when it is another user's and cannot be seen.
pub fn listener_holder(port: u16) -> Option<String> {
    let tree = Tree::live();
    let pid = holders_of_port(&tree, port).found.first()?.pid;
    let name = tree.read_proc(&format!("{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_our_own_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = listener_holder(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    }
}
