//! What the failure of a step means, in plain words, and what to do.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use throng_load::Target;
use throng_load::client::ClientError;
use throng_server::codes;

use super::{Step, Stopped, advise};
use crate::args::ProbeArgs;
use crate::text::visible;

pub(super) const NAME: &str =
    "The name has no address. Is it spelt as in the page, and does this machine ask the right DNS?";

/// nginx passes these two headers on only when it is told to, and speaks 1.0 to what is behind it.
const NGINX: [&str; 3] = [
    "proxy_http_version 1.1;",
    "proxy_set_header Upgrade $http_upgrade;",
    "proxy_set_header Connection \"upgrade\";",
];

pub(super) fn tcp(kind: ErrorKind, address: SocketAddr) -> String {
    match kind {
        ErrorKind::ConnectionRefused => advise(
            &format!(
                "Nothing listens on {address}. Is the server running (throng status), on this port \
                 and on an address that is reached from here (http_server.address)?"
            ),
            &[],
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => advise(
            &format!(
                "Nobody answered at {address}: a firewall or a security group drops what comes, or \
                 the machine is off."
            ),
            &[],
        ),
        _ => advise("The network does not lead there.", &[]),
    }
}

/// Where the server sees the client, as it says in its answer.
pub(super) fn seen(told: Option<&str>) -> String {
    match told {
        None => "not told: what answers is no throng of this version, or a proxy takes the header \
                 away"
            .to_owned(),
        Some("proxy") => {
            "your proxy's: throng takes the proxy for the client, because trusted_proxies \
                          does not name it; the server's log has the line to add"
                .to_owned()
        }
        Some("private") => {
            "a private one; if a proxy stands between, it is the proxy's: name it in \
                            trusted_proxies and let it send X-Forwarded-For (throng who, on the \
                            server, says which)"
                .to_owned()
        }
        Some(address) => format!("throng sees this client at {}", visible(address)),
    }
}

pub(super) fn upgrade(error: &ClientError, args: &ProbeArgs, target: &Target) -> Stopped {
    let why = visible(&error.why);
    let path = &target.path;
    let secure = format!("throng probe https://{}", visible(&target.authority()));
    let stop = |step, advice| Stopped { step, said: first_line(&error.why), advice };
    let speaks_tls = "This port speaks TLS, and the request came without. The page must name the \
                      wss:// address; it is probed with:";
    let Some(status) = error.code else {
        // RFC 8446 5.1: an alert of TLS, whatever its version says.
        if why.contains("\\u{15}\\u{3}") {
            return stop(Step::Upgrade, advise(speaks_tls, &[&secure]));
        }
        return stop(Step::Upgrade, advise(without_status(&error.why), &[]));
    };
    // nginx says this to plain HTTP on a port with TLS, Go's servers the second.
    let wants_tls = why.contains("HTTPS port") || why.contains("HTTP request to an HTTPS server");
    match status {
        403 if why.contains("throng serve --dev") => {
            let text = "This is throng's development mode, which answers only to this machine's own \
                names. To be reached by another name it needs a configuration:";
            stop(Step::Upgrade, advise(text, &["throng config init --origin https://your.site"]))
        }
        403 => stop(Step::Origin, origin(args)),
        _ if wants_tls => stop(Step::Upgrade, advise(speaks_tls, &[&secure])),
        200 | 400 | 426 => stop(
            Step::Upgrade,
            advise(
                "The request arrived without its Upgrade headers, or not at throng: a proxy between \
                 answered itself or dropped them. nginx needs, in the location of this path:",
                &NGINX,
            ),
        ),
        _ => stop(Step::Upgrade, advise(&of_status(status, path), &[])),
    }
}

/// A refusal without the rest of what came with it.
fn first_line(why: &str) -> String {
    visible(why.lines().next().unwrap_or_default())
}

fn without_status(why: &str) -> &'static str {
    if why.contains("speak HTTP") {
        "What listens there is no HTTP server; or it speaks TLS, which https:// in front of the \
         address tries. Check the port."
    } else if why.contains("no answer within") {
        "The connection was taken and the request not answered. The server or the proxy is \
         overloaded or stuck (throng status, on its machine), or out of descriptors: then it cannot \
         even take the connection that the kernel has completed."
    } else if why.contains("Sec-WebSocket-Accept") {
        "Something between answered in the server's place, and not as a WebSocket does: a cache, or \
         a proxy that rewrites headers."
    } else {
        "The connection was ended without an answer: by a firewall or a proxy between, or by a \
         server that has no room even for a refusal."
    }
}

fn origin(args: &ProbeArgs) -> String {
    let Some(origin) = &args.origin else {
        return advise(
            "The request was forbidden (403), and no Origin was sent: this is not throng's check of \
             origins. A proxy or a firewall for web applications refuses it.",
            &[],
        );
    };
    // In TOML a quote or a backslash would end or change the text.
    let shown = visible(origin).replace('\\', "\\\\").replace('"', "\\\"");
    let line = format!("allowed_origins = [\"{shown}\"]");
    advise(
        "Pages from this origin are not let in. If it is yours, add it in the server's \
         configuration, beside those that are there, and restart the server:",
        &["[client]", &line],
    )
}

fn of_status(status: u32, path: &str) -> String {
    let path = visible(path);
    match status {
        301 | 302 | 303 | 307 | 308 => "A redirect, mostly to https. WebSocket clients do not \
             follow it: the page must name the wss:// address itself. Probe that one: throng probe \
             https://…"
            .to_owned(),
        401 | 407 => "Something in front of throng asks for a login: throng itself never answers \
             this here. Take the path out of the proxy's auth_basic or auth_request."
            .to_owned(),
        404 => format!(
            "Nothing is at {path}. throng listens at {} unless websocket.handler_prefix says \
             otherwise; with http_server.internal_port clients use the other port; a proxy must \
             pass the path on unchanged.",
            super::PATH
        ),
        408 | 504 => "The proxy reached nobody in time: throng is overloaded or stuck, or the \
             address of the upstream (nginx: proxy_pass) leads to a machine that drops packets. On \
             throng's machine: throng status."
            .to_owned(),
        429 => "A proxy in front limits how fast clients may connect.".to_owned(),
        502 => "The proxy cannot reach throng: it is not running, or the address of the upstream \
             (nginx: proxy_pass) is not where it listens. On throng's machine: throng status, and \
             throng probe http://127.0.0.1:8000."
            .to_owned(),
        503 => {
            "The server is full, is stopping, or lets in no more per second; or the proxy knows \
             no server that is up. On throng's machine, throng status says which, and how many fit."
                .to_owned()
        }
        other => format!("The server answered HTTP {other}: throng explain {other} may help."),
    }
}

pub(super) fn connect(error: &ClientError, args: &ProbeArgs) -> Stopped {
    let said = visible(&error.why);
    let step = Step::Connect;
    let Some(code) = error.code else {
        let advice = advise(
            "It became a WebSocket, and the connect command was not answered: something between \
             swallows messages, or the server is overloaded.",
            &[],
        );
        return Stopped { step, said, advice };
    };
    let text = of_code(code, args);
    Stopped { step, said, advice: advise(&text, &[]) }
}

/// Why a connect command is refused.
fn of_code(code: u32, args: &ProbeArgs) -> String {
    let known = codes::explain(code);
    let known = known.first().map_or("The server refused the client.", |known| known.text);
    let ask = "On the server, throng backend try connect --cookie … shows what your application is \
               asked and what it answers.";
    match code {
        3501 if args.token.is_none() => {
            let cookie = if args.cookie.is_none() {
                "If your application is asked instead (client.proxy.connect), it knows nobody without \
                 a cookie: give the visitor's with --cookie."
            } else {
                "If your application is asked instead (client.proxy.connect), it knows nobody with \
                 this cookie."
            };
            format!(
                "No token was sent, and visitors without one are not let in. Give the client's with \
                 --token; in the page, set token or getToken. {cookie} {ask} To let everybody in: \
                 client.allow_anonymous_connect_without_token."
            )
        }
        109 | 110 | 3005 => "The token has run out. Make a new one: throng token --user ID makes one \
             for a try. If every token is too old, compare the clock of the machine that makes them."
            .to_owned(),
        3500 => "The token is not accepted: signed with another key than \
             client.token.hmac_secret_key, damaged, or made for something else. The server's log \
             says which. Compare with throng token --user ID -c FILE, on the server."
            .to_owned(),
        100 if args.token.is_none() => {
            format!("{known} For who comes without a token it mostly is your application, which is \
                     asked who the client is and does not answer as it should. {ask}")
        }
        // Codes that an application chooses.
        400..=1999 | 4000..=4999 if args.token.is_none() => {
            format!("Your application's login check (client.proxy.connect) says so. {ask}")
        }
        _ => known.to_owned(),
    }
}

pub(super) fn hold(error: &ClientError, after: Duration) -> Stopped {
    let said = format!("after {} s: {}", after.as_secs(), visible(&error.why));
    let text = match error.code {
        // RFC 6455 7.4.1: 1005 and 1006 stand for a close without a code; 1001 is sent by proxies
        // that go away.
        None | Some(1001 | 1005 | 1006) => {
            "The connection was cut, not closed by throng: an idle timeout of something between. It \
             must be longer than throng's client.ping_interval (25 s). In nginx, in the location of \
             this path:"
        }
        Some(code) => {
            let known = codes::explain(code);
            let text = known.first().map_or("The server closed the connection.", |one| one.text);
            return Stopped { step: Step::Hold, said, advice: advise(text, &[]) };
        }
    };
    let lines = ["proxy_read_timeout 3600s;", "proxy_send_timeout 3600s;"];
    Stopped { step: Step::Hold, said, advice: advise(text, &lines) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(origin: Option<&str>, token: Option<&str>) -> ProbeArgs {
        ProbeArgs {
            url: String::new(),
            origin: origin.map(str::to_owned),
            token: token.map(str::to_owned),
            cookie: None,
            ca: None,
            hold: 0,
            json: false,
        }
    }

    fn error(code: Option<u32>, why: &str) -> ClientError {
        ClientError { step: throng_load::client::Step::Upgrade, why: why.to_owned(), code }
    }

    fn target() -> Target {
        Target::websocket("ws://127.0.0.1:8443/push").unwrap()
    }

    fn said(code: u32, why: &str) -> (Step, String) {
        let args = args(Some("https://a.example"), None);
        let stopped = upgrade(&error(Some(code), why), &args, &target());
        (stopped.step, stopped.advice)
    }

    #[test]
    fn a_forbidden_origin_names_the_line_to_add() {
        let (step, advice) = said(403, "the server answered 403");
        assert_eq!(step, Step::Origin);
        let lines = "\n    [client]\n    allowed_origins = [\"https://a.example\"]";
        assert!(advice.ends_with(lines), "{advice}");
        let without = upgrade(&error(Some(403), ""), &args(None, None), &target()).advice;
        assert!(without.contains("no Origin was sent"), "{without}");
    }

    #[test]
    fn of_many_words_only_the_first_line_is_said() {
        assert_eq!(first_line("the server answered 403: no\nmore"), "the server answered 403: no");
    }

    #[test]
    fn each_status_has_its_fix() {
        for (status, word) in [
            (200, "proxy_set_header Upgrade"),
            (301, "wss://"),
            (400, "proxy_set_header Connection"),
            (401, "auth_basic"),
            (404, "Nothing is at /push"),
            (426, "proxy_http_version 1.1"),
            (429, "how fast"),
            (502, "proxy_pass"),
            (503, "full"),
            (504, "in time"),
            (418, "throng explain 418"),
        ] {
            let (step, advice) = said(status, "");
            assert!(step == Step::Upgrade && advice.contains(word), "{status}: {advice}");
        }
        let (_, advice) = said(400, "The plain HTTP request was sent to HTTPS port");
        assert!(advice.ends_with("\n    throng probe https://127.0.0.1:8443"), "{advice}");
        let alert = "the server does not speak HTTP: \"\\u{15}\\u{3}\\u{3}\\0\"";
        let advice = upgrade(&error(None, alert), &args(None, None), &target()).advice;
        assert!(advice.ends_with("\n    throng probe https://127.0.0.1:8443"), "{advice}");
    }

    #[test]
    fn a_refused_client_is_told_about_its_token() {
        let check = |code, token: Option<&str>, word: &str| {
            let advice = connect(&error(Some(code), ""), &args(None, token)).advice;
            assert!(advice.contains(word), "{code}: {advice}");
        };
        check(3501, None, "--token");
        check(3501, Some("x"), "broke the protocol");
        check(3500, Some("x"), "hmac_secret_key");
        check(109, Some("x"), "run out");
        check(3504, Some("x"), "client.user_connection_limit");
        check(3501, None, "--cookie");
        check(4501, None, "throng backend try connect");
        check(100, None, "throng backend try connect");
    }

    #[test]
    fn a_cut_in_silence_is_the_proxys_timeout() {
        let stopped =
            hold(&error(None, "the server ended the connection"), Duration::from_secs(60));
        assert!(stopped.said.starts_with("after 60 s: "), "{}", stopped.said);
        assert!(stopped.advice.contains("proxy_read_timeout"), "{}", stopped.advice);
        let stopped = hold(&error(Some(3012), ""), Duration::from_secs(33));
        assert!(stopped.advice.contains("client.pong_timeout"), "{}", stopped.advice);
    }
}
