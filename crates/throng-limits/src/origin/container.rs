//! Containers: whose it is, and what limit its runtime was told.

use super::source::{Disk, Evidence};

/// Where runtimes keep what a container was started with; `{}` is its number.
const BUNDLES: [&str; 5] = [
    "/run/containerd/io.containerd.runtime.v2.task/moby/{}/config.json",
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json",
    "/run/containerd/io.containerd.runtime.v2.task/default/{}/config.json",
    "/var/lib/containers/storage/overlay-containers/{}/userdata/config.json",
    "/run/docker/containerd/daemon/io.containerd.runtime.v1.linux/moby/{}/config.json",
];
const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// Who runs containers on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Docker,
    Kubernetes,
    Podman,
    Containerd,
    /// Seen from within: it cannot be told.
    Unknown,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub runtime: Runtime,
    /// Empty where its cgroup does not show it.
    pub id: String,
    /// What its runtime was told, `soft` and `hard`, and where that stands.
    pub told: Option<(u64, u64, Evidence)>,
    /// `default-ulimits` of the Docker daemon.
    pub defaults: Option<Evidence>,
}

impl Runtime {
    /// The unit whose limit its containers inherit.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Docker => "docker.service",
            Self::Podman => "podman.service",
            Self::Kubernetes | Self::Containerd | Self::Unknown => "containerd.service",
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Kubernetes => "Kubernetes",
            Self::Podman => "Podman",
            Self::Containerd => "containerd",
            Self::Unknown => "a container runtime",
        }
    }
}

impl Container {
    pub(crate) fn read(disk: Disk<'_>, runtime: Runtime, id: String) -> Self {
        let told = BUNDLES.iter().find_map(|path| {
            let source = disk.read(&path.replace("{}", &id)).filter(|_| !id.is_empty())?;
            let (soft, hard) = parse_rlimit(&source.text)?;
            Some((soft, hard, source.whole(&format!("RLIMIT_NOFILE {soft}:{hard}"))))
        });
        let defaults = disk.read(DAEMON_JSON).filter(|_| runtime == Runtime::Docker);
        let defaults = defaults.and_then(|source| {
            let line = source.text.lines().position(|line| line.contains("default-ulimits"))?;
            Some(source.evidence(line + 1))
        });
        Self { runtime, id, told, defaults }
    }
}

/// Tells a container by the text of a process's `cgroup`.
#[must_use]
pub(super) fn container_of(cgroup: &str) -> Option<(Runtime, String)> {
    let paths = || cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths().find_map(|path| {
        let mut parts = path.split('/').filter(|part| !part.is_empty()).rev();
        let first = parts.clone().next()?;
        // Docker's own daemon is a unit with that name, and no container.
        if first.ends_with(".service") && !path.contains("kubepods") {
            return None;
        }
        let runtime = runtime_of(path)?;
        Some((runtime, parts.find_map(id_in).unwrap_or_default()))
    })
}

fn runtime_of(path: &str) -> Option<Runtime> {
    let marks = [
        ("kubepods", Runtime::Kubernetes),
        ("libpod", Runtime::Podman),
        ("docker", Runtime::Docker),
        ("containerd", Runtime::Containerd),
    ];
    marks.into_iter().find(|(mark, _)| path.contains(mark)).map(|(_, runtime)| runtime)
}

/// The number of a container in a part of its path: 64 hexadecimal digits, or what stands for them.
fn id_in(part: &str) -> Option<String> {
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    let id = bare.rsplit(['-', ':']).next().unwrap_or(bare);
    let hex = id.len() >= 12 && id.chars().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| id.to_owned())
}

/// The limit on files in the text of an OCI `config.json`.
// One number of one file: reading JSON as a whole would take a crate that nothing else here needs.
#[must_use]
pub(super) fn parse_rlimit(json: &str) -> Option<(u64, u64)> {
    let at = json.find("\"RLIMIT_NOFILE\"")?;
    let start = json.get(..at)?.rfind('{')?;
    let end = at + json.get(at..)?.find('}')?;
    let object = json.get(start..end)?;
    Some((number(object, "\"soft\"")?, number(object, "\"hard\"")?))
}

fn number(object: &str, key: &str) -> Option<u64> {
    let after = object.get(object.find(key)? + key.len()..)?.trim_start().strip_prefix(':')?;
    let after = after.trim_start();
    let end = after.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(after.len());
    after.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4afc0ffee4afc0ffee4afc0ffee4afc0ffee4afc0ffee4afc0ffee4afc0ffee4";

    #[test]
    fn a_container_is_told_by_its_cgroup() {
        let check = |path: &str, wanted: Option<(Runtime, &str)>| {
            let wanted = wanted.map(|(runtime, id)| (runtime, id.to_owned()));
            assert_eq!(container_of(&format!("0::{path}\n")), wanted, "{path}");
        };
        check(&format!("/system.slice/docker-{ID}.scope"), Some((Runtime::Docker, ID)));
        check(&format!("/docker/{ID}"), Some((Runtime::Docker, ID)));
        check(&format!("/kubepods/burstable/pod1/{ID}"), Some((Runtime::Kubernetes, ID)));
        let kube = format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope");
        check(&kube, Some((Runtime::Kubernetes, ID)));
        check(&format!("/machine.slice/libpod-{ID}.scope/container"), Some((Runtime::Podman, ID)));
        check("/system.slice/docker.service", None);
        check("/system.slice/containerd.service", None);
        check("/system.slice/push.service", None);
        check("/", None);
    }

    #[test]
    fn the_limit_of_a_bundle_is_read_in_any_order() {
        let json = r#"{"process":{"rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":2},
            {"type":"RLIMIT_NOFILE","hard":524288,"soft": 1024}]}}"#;
        assert_eq!(parse_rlimit(json), Some((1024, 524_288)));
        let json = r#"{"rlimits":[{"soft":5,"hard":6,"type":"RLIMIT_NOFILE"}]}"#;
        assert_eq!(parse_rlimit(json), Some((5, 6)));
        assert_eq!(parse_rlimit("{}"), None);
        assert_eq!(parse_rlimit("\"RLIMIT_NOFILE\""), None);
    }
}
