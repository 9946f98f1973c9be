//! An nginx in front that has no room for one more client, and the lines that make room.

use std::net::SocketAddr;

use throng_limits::room::nginx::{Change, Nginx, usual_changes};
use throng_load::client::ClientError;

use super::{Step, Stopped, advise};
use crate::text::visible;

/// The failure of an upgrade, where it is nginx's lack of room.
pub(super) fn is_full(error: &ClientError, address: SocketAddr) -> Option<Stopped> {
    // It answers with this itself when it has no connection left to ask throng with, and throng
    // never does.
    let by_itself = error.code == Some(500) && error.why.starts_with("nginx");
    // With none left for the client it ends the connection, or lets it wait.
    if !by_itself && error.code.is_some() {
        return None;
    }
    let seen = Nginx::at(address).filter(|nginx| by_itself || nginx.is_full());
    let advice = match seen {
        Some(nginx) => of_seen(&nginx),
        None if by_itself => of_unseen(),
        None => return None,
    };
    Some(Stopped { step: Step::Upgrade, said: visible(&error.why), advice })
}

fn of_seen(nginx: &Nginx) -> String {
    let changes = nginx.changes();
    let told = if nginx.is_full() {
        format!("{nginx}.")
    } else {
        format!(
            "nginx answered this itself, and is not full at this moment: its error.log says why. If \
             it says that worker_connections are not enough: {nginx}."
        )
    };
    if changes.is_empty() {
        return advise(&format!("{told} To have room for more: {}.", nginx.fix()), &[]);
    }
    with_lines(&format!("{told} To have room for more, {RELOAD}"), &changes, &nginx.reload)
}

fn of_unseen() -> String {
    let text = format!(
        "nginx answered this itself: it could not connect to what is behind it. If its error.log \
         says that worker_connections are not enough, it is full: a client costs it two, so that \
         the 768 of Debian are 384 clients for each worker. To have room for more, {RELOAD}"
    );
    with_lines(&text, &usual_changes(), "nginx -s reload")
}

const RELOAD: &str = "write these lines where they are said to stand, and reload nginx. A reload \
    cuts nobody at once: workers from before it keep their WebSockets, and their limit, until the \
    last of those has gone. A restart of nginx cuts everybody.";

fn with_lines(text: &str, changes: &[Change], reload: &str) -> String {
    let mut lines = Vec::new();
    for Change { place, text } in changes {
        lines.push(format!("# {}", visible(place)));
        lines.push(visible(text));
    }
    lines.push("# and then run".to_owned());
    lines.push(visible(reload));
    advise(text, &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Option<u32>, why: &str) -> ClientError {
        ClientError { step: throng_load::client::Step::Upgrade, why: why.to_owned(), code }
    }

    #[test]
    fn a_500_of_nginx_is_its_lack_of_room_wherever_it_runs() {
        let nobody = SocketAddr::from(([192, 0, 2, 1], 80));
        let stopped = is_full(&error(Some(500), "nginx answered 500 with a page"), nobody).unwrap();
        assert_eq!(stopped.step, Step::Upgrade);
        let lines = "\n    # /etc/nginx/nginx.conf, within events\n    worker_connections 32768;\n    \
                     # /etc/nginx/nginx.conf, above events\n    worker_rlimit_nofile 65536;\n    # \
                     and then run\n    nginx -s reload";
        assert!(stopped.advice.ends_with(lines), "{}", stopped.advice);
    }

    #[test]
    fn what_others_answer_is_theirs() {
        let nobody = SocketAddr::from(([192, 0, 2, 1], 80));
        for (code, why) in [
            (Some(500), "the server answered 500"),
            (Some(503), "nginx/1.22.1 answered 503: full"),
            (None, "the server ended the connection"),
        ] {
            assert_eq!(is_full(&error(code, why), nobody), None, "{why}");
        }
    }
}
