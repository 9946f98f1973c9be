//! Whose Linux it is, as far as its PAM differs.

use super::limits_conf::Variant;
use super::source::Disk;

/// Reads whose `pam_limits` is installed.
pub(crate) fn variant(disk: Disk<'_>) -> Variant {
    let read = |path| disk.read(path).map(|source| source.text);
    let release = read("/etc/os-release").or_else(|| read("/usr/lib/os-release"));
    if let Some(release) = release {
        return variant_of(&release);
    }
    // Debian's own list of packages tells it too, where only that was captured.
    let debian = disk.has("/etc/debian_version") == Some(true);
    if debian { Variant::Debian } else { Variant::Upstream }
}

/// Tells it by the text of `os-release`.
#[must_use]
pub(super) fn variant_of(release: &str) -> Variant {
    let value = |key: &str| {
        release.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_matches(['"', '\''])))
    };
    let words = [value("ID="), value("ID_LIKE=")];
    let is = |name| words.iter().flatten().any(|words| words.split(' ').any(|word| word == name));
    if is("debian") || is("ubuntu") { Variant::Debian } else { Variant::Upstream }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_what_is_made_of_it_are_told_from_the_rest() {
        let check = |text, wanted| assert_eq!(variant_of(text), wanted, "{text}");
        check("NAME=x\nID=debian\n", Variant::Debian);
        check("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Variant::Debian);
        check("ID=\"rhel\"\nID_LIKE=\"fedora\"\n", Variant::Upstream);
        check("ID=arch\n", Variant::Upstream);
        check("", Variant::Upstream);
    }
}
