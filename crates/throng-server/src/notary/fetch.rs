//! Fetches a set of public keys: one request on a connection of its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use throng_limits::{Budget, Lane};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::authorities;
use crate::backend::dial;
use crate::config::KeysUrl;
use crate::token::KeySet;

/// How long all of it may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a set; those in use have a few thousand.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What fetching needs.
#[derive(Debug)]
pub(super) struct Fetcher {
    /// Pays for its connections.
    budget: Budget,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Fetcher {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, tls: OnceLock::new() }
    }

    /// Fetches a set. The error is a sentence whose subject is the place.
    pub(super) async fn fetch(&self, url: &KeysUrl) -> Result<KeySet, String> {
        let body = tokio::time::timeout(PATIENCE, Box::pin(self.body(url))).await;
        KeySet::read(&body.map_err(|_| format!("did not answer within {PATIENCE:?}"))??)
    }

    async fn body(&self, url: &KeysUrl) -> Result<Bytes, String> {
        // Invariant PAY-FIRST: it is a descriptor like that of a connection to a backend.
        let permit = self.budget.try_take(Lane::Upstream).ok_or_else(|| {
            "cannot be asked: no descriptor is left for it; raise the limit of this process"
                .to_owned()
        })?;
        let socket = dial(&url.host, url.port, &self.budget).await?;
        let body = if url.https {
            let config = self.tls()?;
            let name = url.host.trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(name)
                .map_err(|_| "has a host that no certificate can name".to_owned())?;
            let secured = TlsConnector::from(config).connect(name, socket).await;
            let secured = secured.map_err(|error| format!("is not trusted: {error}"))?;
            Box::pin(exchange(secured, url)).await
        } else {
            Box::pin(exchange(socket, url)).await
        };
        drop(permit);
        body
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        self.tls.get_or_init(|| self.trusting()).clone()
    }

    /// Read once: whoever changes the authorities of a machine restarts what runs on it.
    fn trusting(&self) -> Result<Arc<ClientConfig>, String> {
        let paid = self.budget.try_take(Lane::Files);
        if paid.is_none() {
            return Err("cannot be asked: no descriptor is left to read the authorities".to_owned());
        }
        let mut roots = RootCertStore::empty();
        if let Some(Ok(list)) = authorities::bundle().map(CertificateDer::pem_file_iter) {
            // What this library cannot read of a system's list is no reason to trust none of it.
            roots.add_parsable_certificates(list.filter_map(Result::ok));
        }
        drop(paid);
        if roots.is_empty() {
            return Err("cannot be trusted: this machine has no list of certificate authorities; \
                        install ca-certificates, or name a file of them in SSL_CERT_FILE"
                .to_owned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

async fn exchange<S>(socket: S, url: &KeysUrl) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = |_: hyper::Error| "answered what is not HTTP, or hung up".to_owned();
    let handshake =
        http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.map_err(cut)?;
    let usual = if url.https { 443 } else { 80 };
    let host =
        if url.port == usual { url.host.clone() } else { format!("{}:{}", url.host, url.port) };
    let request = Request::get(url.path.as_str())
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("cannot be asked: {error}"))?;
    let answered = async {
        let (head, body) = sender.send_request(request).await.map_err(cut)?.into_parts();
        match head.status.as_u16() {
            200 => {}
            status @ (301 | 302 | 303 | 307 | 308) => {
                return Err(format!("answered {status}, a redirect, which is not followed"));
            }
            status => return Err(format!("answered {status}")),
        }
        match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(format!("answered more than {BODY_BYTES_MAX} bytes"))
            }
            Err(_) => Err("hung up in the middle of its answer".to_owned()),
        }
    };
    // Both here, so that the socket is closed when this is done or given up, and not later.
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        _ = &mut connection => answered.await,
    }
}

#[cfg(test)]
mod tests {
    use throng_limits::Guarantees;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Fetches from a place that answers the one request that it gets with this; what was asked.
    async fn answered(answer: Vec<u8>) -> (Result<KeySet, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let place = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(socket.read_u8().await.unwrap());
            }
            // It may have heard enough before all is said.
            socket.write_all(&answer).await.ok();
            String::from_utf8(asked).unwrap()
        });
        let path = "/keys?v=1".to_owned();
        let url = KeysUrl { https: false, host: "127.0.0.1".to_owned(), port, path };
        let fetched = fetcher().fetch(&url).await;
        (fetched, place.await.unwrap())
    }

    fn fetcher() -> Fetcher {
        Fetcher::new(Budget::with(64, Guarantees::of(64)))
    }

    fn response(status: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nLocation: /x\r\n\r\n{body}")
            .into()
    }

    #[tokio::test]
    async fn a_set_is_asked_for_and_read() {
        let set = include_str!("../token/tests/set.json");
        let (fetched, asked) = answered(response("200 OK", set)).await;
        assert_eq!(fetched.unwrap().len(), 5);
        assert!(asked.starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("host: 127.0.0.1:"));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_named() {
        let huge = format!("{{\"keys\":[\"{}\"]}}", "k".repeat(BODY_BYTES_MAX));
        for (answer, said) in [
            (response("503 Service Unavailable", "{}"), "answered 503"),
            (response("302 Found", ""), "a redirect, which is not followed"),
            (response("200 OK", "<html>"), "answered what is no set of keys"),
            (response("200 OK", &huge), "more than 1048576 bytes"),
            (b"SSH-2.0-OpenSSH\r\n".to_vec(), "not HTTP"),
            (Vec::new(), "hung up"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(), "hung up in the middle"),
        ] {
            let (fetched, _) = answered(answer).await;
            let why = fetched.unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }

    #[tokio::test]
    async fn a_place_without_tls_is_not_trusted_and_a_closed_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut url =
            KeysUrl { https: true, host: "127.0.0.1".to_owned(), port, path: "/".to_owned() };
        let place = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let why = fetcher().fetch(&url).await.unwrap_err();
        assert!(why.contains("trusted"), "{why}");
        place.await.unwrap();
        url.https = false;
        let why = fetcher().fetch(&url).await.unwrap_err();
        assert!(why.contains("cannot be connected to"), "{why}");
    }

    #[tokio::test]
    async fn nothing_is_opened_that_is_not_paid_for() {
        let budget = Budget::with(64, Guarantees::of(64));
        let mut paid = Vec::new();
        while let Some(permit) = budget.try_take(Lane::Upstream) {
            paid.push(permit);
        }
        let url =
            KeysUrl { https: false, host: "127.0.0.1".to_owned(), port: 1, path: "/".to_owned() };
        let why = Fetcher::new(budget).fetch(&url).await.unwrap_err();
        assert!(why.contains("no descriptor is left"), "{why}");
    }
}
