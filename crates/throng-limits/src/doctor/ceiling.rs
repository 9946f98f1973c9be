//! What stops a crowd at a number that somebody saw: the signatures of known limits.

use super::words::grouped;

/// A limit that shows itself at some numbers of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    pub from: u64,
    pub to: u64,
    pub what: &'static str,
    /// How to make sure.
    pub look: &'static str,
}

/// Known plateaus, the narrow before the wide.
const SUSPECTS: [Suspect; 24] = [
    Suspect::at(
        128,
        129,
        "an accept queue of 128 (Tornado's default, and old kernels' somaxconn), and nobody accepts",
        "ss -tln: Recv-Q above Send-Q",
    ),
    Suspect::at(
        200,
        200,
        "Firefox: 200 WebSockets in one browser",
        "the browser, not the server: try a second one",
    ),
    Suspect::at(
        255,
        256,
        "Chrome: 255 WebSockets to one host; or macOS's limit of 256 open files",
        "the client: throng load names its own ceiling",
    ),
    Suspect::at(
        380,
        384,
        "nginx: worker_connections 768 (Debian's default), two for each user",
        "grep worker_connections /etc/nginx/nginx.conf; throng doctor --port 80",
    ),
    Suspect::at(
        250,
        256,
        "nginx: worker_connections 512 (its own default), two for each user",
        "grep worker_connections /etc/nginx/nginx.conf",
    ),
    Suspect::at(
        500,
        511,
        "a proxy with 1024 descriptors: two for each user (nginx 508)",
        "throng doctor --name nginx",
    ),
    Suspect::at(
        511,
        513,
        "an accept queue of 511 or 512 (nginx's, Redis's and Node's default), and nobody accepts",
        "ss -tln: Recv-Q above Send-Q",
    ),
    Suspect::at(
        1000,
        1000,
        "gunicorn: worker_connections 1000; PostgreSQL: max_files_per_process 1000",
        "the application's configuration",
    ),
    Suspect::at(
        1005,
        1023,
        "a limit of 1024 open files, less what the server has open itself (Tornado 7: 1017; Node 19: 1005)",
        "throng doctor PID: grep 'open files' /proc/PID/limits",
    ),
    Suspect::at(
        1013,
        1013,
        "the load generator's own limit of 1024 open files",
        "ulimit -n where the clients run",
    ),
    Suspect::at(
        1024,
        1025,
        "select(): FD_SETSIZE; or an accept queue or cap of 1024",
        "throng doctor PID says whether it waits with select()",
    ),
    Suspect::at(
        2030,
        2048,
        "a proxy with 4096 descriptors: two for each user",
        "throng doctor --name nginx",
    ),
    Suspect::at(
        4070,
        4096,
        "a hard limit of 4096 (the kernel's own) in a program that raises its soft limit: Go, Node, Java",
        "throng doctor PID: soft equals hard",
    ),
    Suspect::at(
        4096,
        4097,
        "an accept queue of 4096 (somaxconn), and nobody accepts",
        "ss -tln: Recv-Q above Send-Q",
    ),
    Suspect::at(8192, 8192, "Tomcat: maxConnections 8192", "server.xml"),
    Suspect::at(
        9980,
        9991,
        "HAProxy's automatic maxconn at a hard limit of 20000",
        "echo 'show info' | socat stdio /run/haproxy/admin.sock",
    ),
    Suspect::at(9968, 10_000, "Redis: maxclients 10000", "redis-cli config get maxclients"),
    Suspect::at(
        28_200,
        28_232,
        "ephemeral ports of one source address for one target: 32768-60999",
        "cat /proc/sys/net/ipv4/ip_local_port_range",
    ),
    Suspect::at(
        32_000,
        32_768,
        "threads: kernel.pid_max 32768, or vm.max_map_count with two maps a stack",
        "cat /proc/sys/kernel/pid_max /proc/sys/vm/max_map_count",
    ),
    Suspect::at(
        64_000,
        64_511,
        "ephemeral ports of one source address, with the range at 1024-65535",
        "cat /proc/sys/net/ipv4/ip_local_port_range",
    ),
    Suspect::at(
        65_400,
        65_536,
        "LimitNOFILE=65535 or 65536, less what the server has open itself; or nf_conntrack_max 65536",
        "throng doctor PID; cat /proc/sys/net/netfilter/nf_conntrack_max",
    ),
    Suspect::at(
        262_000,
        262_144,
        "nf_conntrack_max 262144",
        "cat /proc/sys/net/netfilter/nf_conntrack_max",
    ),
    Suspect::at(
        524_000,
        524_288,
        "systemd's hard limit of 524288 open files",
        "throng doctor PID: soft equals hard",
    ),
    Suspect::at(
        1_048_000,
        1_048_576,
        "fs.nr_open 1048576: no process has more descriptors",
        "cat /proc/sys/fs/nr_open",
    ),
];
/// Powers of two are limits more often than chance.
const POWER_FROM: u64 = 256;

impl Suspect {
    const fn at(from: u64, to: u64, what: &'static str, look: &'static str) -> Self {
        Self { from, to, what, look }
    }
}

/// What may be behind a plateau, the closest first.
#[must_use]
pub fn suspects(seen: u64) -> Vec<Suspect> {
    let mut found: Vec<Suspect> = SUSPECTS
        .into_iter()
        .filter(|suspect| (suspect.from..=suspect.to).contains(&seen))
        .collect();
    found.sort_by_key(|suspect| suspect.to - suspect.from);
    found
}

/// A sentence for a number that is nobody's signature.
#[must_use]
pub fn unknown(seen: u64) -> String {
    let above = seen.checked_next_power_of_two().unwrap_or(u64::MAX);
    let near = above.saturating_sub(seen);
    let seen = grouped(seen);
    if above >= POWER_FROM && near <= 24 && near < above / 16 {
        let above = grouped(above);
        return format!(
            "{seen} is {near} below {above}: a limit of {above} open files, less what the server has open itself, would look like this"
        );
    }
    format!("{seen} is no limit's signature that is known here")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The suspects for a plateau, in a line.
    fn named(seen: u64) -> String {
        suspects(seen).iter().map(|suspect| suspect.what).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn plateaus_that_people_saw_are_explained() {
        for (seen, word) in [
            (129, "accept queue of 128"),
            (255, "Chrome"),
            (384, "768"),
            (508, "two for each user"),
            (512, "accept queue of 511"),
            (1005, "Node 19"),
            (1012, "1024 open files"),
            (1013, "load generator"),
            (1017, "Tornado 7"),
            (1022, "1024 open files"),
            (4084, "hard limit of 4096"),
            (4097, "accept queue of 4096"),
            (8192, "Tomcat"),
            (9984, "Redis"),
            (9991, "HAProxy"),
            (10_000, "Redis"),
            (28_231, "ephemeral"),
            (28_232, "ephemeral"),
            (64_511, "ephemeral"),
            (65_529, "65535"),
            (1000, "gunicorn"),
            (200, "Firefox"),
            (32_700, "pid_max"),
        ] {
            assert!(named(seen).contains(word), "{seen}: {}", named(seen));
        }
    }

    #[test]
    fn a_number_that_is_nobodys_is_said_to_be() {
        assert_eq!(suspects(777), []);
        assert!(unknown(777).contains("no limit's signature"));
        assert!(unknown(16_370).contains("14 below 16,384"));
    }
}
