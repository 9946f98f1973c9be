use std::fs;
use std::path::Path;

use super::*;

fn tree(name: &str, files: &[(&str, &str)]) -> Tree {
    let at = std::env::temp_dir().join(format!("throng-cgroup-{name}-{}", std::process::id()));
    for (path, text) in files {
        let path = at.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, text).unwrap();
    }
    Tree::at(at.join("proc"), at.join("root"))
}

#[test]
fn the_group_that_leaves_least_is_the_limit() {
    let tree = tree(
        "v2",
        &[
            ("proc/7/cgroup", "0::/system.slice/push.service\n"),
            ("root/sys/fs/cgroup/system.slice/push.service/memory.max", "max\n"),
            ("root/sys/fs/cgroup/system.slice/push.service/memory.current", "5\n"),
            ("root/sys/fs/cgroup/system.slice/memory.max", "31457280\n"),
            ("root/sys/fs/cgroup/system.slice/memory.current", "1048576\n"),
            ("root/sys/fs/cgroup/system.slice/push.service/pids.max", "64\n"),
            ("root/sys/fs/cgroup/system.slice/push.service/pids.current", "3\n"),
        ],
    );
    let group = Cgroup::read(&tree, 7);
    assert_eq!(group.path, "/system.slice/push.service");
    let memory = group.memory.unwrap();
    assert_eq!((memory.limit, memory.used), (31_457_280, 1_048_576));
    assert_eq!(memory.at, "/sys/fs/cgroup/system.slice/memory.max");
    assert_eq!(group.tasks.map(|tasks| (tasks.limit, tasks.used)), Some((64, 3)));
}

#[test]
fn version_one_has_other_names_and_another_unlimited() {
    let tree = tree(
        "v1",
        &[
            ("proc/7/cgroup", "5:cpu,memory:/docker/ab\n3:pids:/docker/ab\n0::/\n"),
            ("root/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes", "31457280\n"),
            ("root/sys/fs/cgroup/memory/docker/ab/memory.usage_in_bytes", "100\n"),
            ("root/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("root/sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n"),
        ],
    );
    let group = Cgroup::read(&tree, 7);
    assert_eq!(group.memory.map(|memory| memory.limit), Some(31_457_280));
    assert_eq!(group.tasks, None);
}

#[test]
fn a_process_without_groups_has_no_limits() {
    let group = Cgroup::read(&tree("none", &[("proc/7/cgroup", "garbage\n")]), 7);
    assert_eq!((group.memory, group.tasks, group.path.as_str()), (None, None, "/"));
}
