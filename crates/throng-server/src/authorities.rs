//! The certificate authorities that this machine trusts.

use std::path::{Path, PathBuf};

/// Where systems keep them: Debian and its like, Fedora and its like, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The file of them, in PEM: what `SSL_CERT_FILE` names, or the system's own. None: there is none.
pub fn bundle() -> Option<PathBuf> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
    let bundles = BUNDLES.iter().map(Path::new);
    let mut all = chosen.as_deref().map(Path::new).into_iter().chain(bundles);
    all.find(|path| path.exists()).map(Path::to_owned)
}
