//! The version of this program: the one place that knows it.

/// Stands in the file of the program as it is here, so that a file tells its version without being
/// run (`grep -a`), and is read from nowhere else.
static MARKED: &str = concat!("throng version ", env!("CARGO_PKG_VERSION"), " throng");
const BEFORE: &str = "throng version ";
const BEHIND: &str = " throng";

/// As in `0.1.0`.
#[must_use]
pub fn version() -> &'static str {
    said().strip_suffix(BEHIND).unwrap_or_default()
}

/// What the version field of connect replies says: the version and the name.
pub(crate) fn said() -> &'static str {
    MARKED.strip_prefix(BEFORE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_the_version_of_its_package() {
        assert_eq!(version(), env!("CARGO_PKG_VERSION"));
        assert_eq!(said(), concat!(env!("CARGO_PKG_VERSION"), " throng"));
    }
}
