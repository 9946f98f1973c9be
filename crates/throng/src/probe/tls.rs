//! The TLS of a probe: a handshake as a browser makes it, and what is wrong with a certificate in
//! plain words.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, ProtocolVersion,
    RootCertStore, StreamOwned,
};
use throng_load::client::Stream;
use throng_server::authorities::bundle;

use super::advise;
use crate::failure::Failure;
use crate::text::visible;

/// A connection within TLS.
#[derive(Debug)]
pub(super) struct Secured(StreamOwned<ClientConnection, TcpStream>);

impl Read for Secured {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Secured {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Secured {
    fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}

impl Secured {
    /// Which version was agreed upon.
    pub(super) fn version(&self) -> &'static str {
        match self.0.conn.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        }
    }
}

/// Why there is no TLS.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection ended, or nothing came in time.
    Cut(String),
    Tls(Error),
}

/// Whom to trust: this system's authorities, `SSL_CERT_FILE` as elsewhere, and the one that is named.
pub(super) fn authorities(named: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    if let Some(named) = named {
        let unusable = |why: String| {
            let file = named.display();
            Failure::could_not_run(format!("{file}: {why}; --ca wants a certificate in PEM"))
        };
        let mut certificates = Vec::new();
        let opened = File::open(named).map_err(|error| unusable(error.to_string()))?;
        for certificate in CertificateDer::pem_reader_iter(opened) {
            certificates.push(certificate.map_err(|error| unusable(error.to_string()))?);
        }
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(unusable("holds no certificate".to_owned()));
        }
    }
    if let Some(Ok(certificates)) = bundle().map(CertificateDer::pem_file_iter) {
        // What this library cannot read of a system's list is no reason to trust none of it.
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    }
    if roots.is_empty() {
        return Err(Failure::could_not_run(
            "this machine has no list of certificate authorities, so no certificate can be checked: \
             install ca-certificates, or name your own authority with --ca FILE",
        ));
    }
    Ok(roots)
}

/// The handshake, with the certificate checked for this name.
pub(super) fn handshake(
    mut socket: TcpStream,
    host: &str,
    roots: RootCertStore,
    patience: Duration,
) -> Result<Secured, Trouble> {
    let until = Instant::now() + patience;
    let mut connection = prepared(host, roots).map_err(Trouble::Tls)?;
    let cut = |error: io::Error| {
        Trouble::Cut(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer within {patience:?}"),
            _ => error.to_string(),
        })
    };
    while connection.is_handshaking() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Trouble::Cut(format!("no answer within {patience:?}")));
        }
        socket.set_read_timeout(Some(left)).map_err(cut)?;
        socket.set_write_timeout(Some(left)).map_err(cut)?;
        if connection.wants_write() {
            connection.write_tls(&mut socket).map_err(cut)?;
            continue;
        }
        if connection.read_tls(&mut socket).map_err(cut)? == 0 {
            return Err(Trouble::Cut("the server ended the connection".to_owned()));
        }
        if let Err(error) = connection.process_new_packets() {
            // It is told why; whether it hears it changes nothing.
            connection.write_tls(&mut socket).ok();
            return Err(Trouble::Tls(error));
        }
    }
    Ok(Secured(StreamOwned::new(connection, socket)))
}

fn prepared(host: &str, roots: RootCertStore) -> Result<ClientConnection, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Another version of HTTP has another way to a WebSocket.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned());
    let name =
        name.map_err(|_| Error::General(format!("{host:?} is no name for a certificate")))?;
    ClientConnection::new(Arc::new(config), name)
}

/// What is wrong, and what to do.
pub(super) fn explain(trouble: &Trouble, host: &str, port: u16) -> (String, String) {
    let error = match trouble {
        Trouble::Cut(why) => {
            let text = "The connection was taken and the TLS handshake not answered. Is this the port \
                        that speaks TLS (443), and has the proxy a certificate for this name?";
            return (why.clone(), advise(text, &[]));
        }
        Trouble::Tls(error) => error,
    };
    match error {
        Error::InvalidCertificate(why) => of_certificate(why, host),
        Error::InvalidMessage(_) => (
            "what came back is not TLS".to_owned(),
            advise(
                "This port speaks plain HTTP, or no HTTP at all. Give pages the address with ws:// \
                 and this port, or the port with TLS. What answers without TLS is seen by:",
                &[&format!("throng probe http://{host}:{port}")],
            ),
        ),
        Error::AlertReceived(AlertDescription::UnrecognisedName) => (
            "the server has no certificate for this name".to_owned(),
            advise(
                &format!(
                    "No site of the proxy is called {}. In nginx: server_name; in HAProxy: the \
                     certificates of the bind line.",
                    visible(host)
                ),
                &[],
            ),
        ),
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => (
            error.to_string(),
            advise(
                "Both sides share no version of TLS: browsers speak 1.2 and 1.3. In nginx:",
                &["ssl_protocols TLSv1.2 TLSv1.3;"],
            ),
        ),
        other => (
            visible(&other.to_string()),
            advise(
                "The TLS handshake failed; the log of what ends TLS (nginx: error_log) says more.",
                &[],
            ),
        ),
    }
}

fn of_certificate(why: &CertificateError, host: &str) -> (String, String) {
    let host = visible(host);
    let renew = "Browsers refuse it. Renew it, and let what ends TLS load it: with certbot, certbot \
                 renew and then nginx -s reload. A renewed certificate that is not loaded is the usual \
                 cause.";
    let authority = "Browsers refuse it: it is signed by itself or by an authority that this machine \
                     does not know, or the proxy does not send the certificates between (nginx: \
                     ssl_certificate must be the whole chain, fullchain.pem). Of an authority of your \
                     own, name the certificate:";
    match why {
        CertificateError::Expired => ("the certificate has expired".to_owned(), advise(renew, &[])),
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = time.as_secs().saturating_sub(not_after.as_secs());
            let ago = crate::inspect::uptime(ago);
            (format!("the certificate has expired, {ago} ago"), advise(renew, &[]))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "the certificate is not valid yet".to_owned(),
            advise("Compare the clocks of this machine and of the one that made it.", &[]),
        ),
        CertificateError::NotValidForName => {
            (format!("the certificate is not for {host}"), advise(&of_name(&host), &[]))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<String> = presented.iter().take(5).map(|name| name_in(name)).collect();
            let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            (
                format!("the certificate is for {names}, not for {host}"),
                advise(&of_name(&host), &[]),
            )
        }
        // A signature that is another's, where an authority of that name is known, is the same.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "the certificate's authority is unknown".to_owned(),
            advise(authority, &["throng probe URL --ca FILE"]),
        ),
        // As openssl makes them unless told otherwise.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => (
            "the certificate is signed by itself, and is that of an authority".to_owned(),
            advise(authority, &["throng probe URL --ca FILE"]),
        ),
        CertificateError::Revoked => ("the certificate is revoked".to_owned(), advise(renew, &[])),
        other => (
            format!("the certificate is not good: {}", visible(&other.to_string())),
            advise("Browsers may refuse it as well. Make a new one.", &[]),
        ),
    }
}

/// A name as rustls shows it: `DnsName("a.example")`.
fn name_in(shown: &str) -> String {
    let inner = shown.split('"').nth(1).unwrap_or(shown);
    visible(inner)
}

fn of_name(host: &str) -> String {
    format!(
        "Browsers refuse it. Either the page names another host than the certificate, or the proxy \
         answers with the certificate of its first site because none is called {host} (nginx: \
         server_name). Add the name to the certificate (certbot: -d {host})."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: Error, said: &str, advised: &str) {
        let (what, advice) = explain(&Trouble::Tls(error), "push.example.com", 443);
        let advice = advice.replace('\n', " ");
        assert!(what.contains(said) && advice.contains(advised), "{what}\n{advice}");
    }

    #[test]
    fn each_fault_of_a_certificate_has_its_name_and_its_fix() {
        use rustls::pki_types::UnixTime;
        let at = |s| UnixTime::since_unix_epoch(Duration::from_secs(s));
        let wrong = |why| Error::InvalidCertificate(why);
        let expired = CertificateError::ExpiredContext {
            time: at(1_000_000),
            not_after: at(1_000_000 - 7300),
        };
        check(wrong(expired), "has expired, 2 h ago", "nginx -s reload");
        check(wrong(CertificateError::UnknownIssuer), "authority is unknown", "fullchain.pem");
        let name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("push.example.com").unwrap(),
            presented: vec!["DnsName(\"www.example.com\")".to_owned()],
        };
        check(wrong(name), "for www.example.com, not for push.example.com", "server_name");
        check(wrong(CertificateError::NotValidYet), "not valid yet", "clocks");
        check(wrong(CertificateError::BadSignature), "authority is unknown", "--ca FILE");
    }

    #[test]
    fn plain_http_on_a_port_for_tls_is_named() {
        let error = Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        check(error, "is not TLS", "throng probe http://push.example.com:443");
        check(
            Error::AlertReceived(AlertDescription::UnrecognisedName),
            "no certificate",
            "server_name",
        );
    }

    #[test]
    fn a_file_that_is_no_certificate_is_refused() {
        let file = std::env::temp_dir().join(format!("throng-ca-{}", std::process::id()));
        assert_eq!(authorities(Some(&file)).unwrap_err().status, 2);
        std::fs::write(&file, "nothing").unwrap();
        let failure = authorities(Some(&file)).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(failure.message.contains("holds no certificate"), "{}", failure.message);
    }
}
