//! Users and groups, as `/etc/passwd` and `/etc/group` have them.

use super::source::Disk;

/// A user, with the groups that he is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub name: String,
    pub gid: u32,
}

impl Account {
    /// The user with that number; where no file names him, his number is his name.
    pub(crate) fn read(disk: Disk<'_>, uid: u32) -> Self {
        let text = |path| disk.read(path).map(|source| source.text).unwrap_or_default();
        Self::find(uid, &text("/etc/passwd"), &text("/etc/group"))
    }

    /// Finds a user in the texts of `passwd` and `group`.
    #[must_use]
    pub(super) fn find(uid: u32, passwd: &str, group: &str) -> Self {
        // passwd(5): name:password:uid:gid:gecos:directory:shell
        let found = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let number: u32 = fields.nth(1)?.parse().ok()?;
            let gid: u32 = fields.next()?.parse().ok()?;
            (number == uid).then(|| (name.to_owned(), gid))
        });
        let default = || if uid == 0 { "root".to_owned() } else { uid.to_string() };
        let (name, gid) = found.unwrap_or_else(|| (default(), uid));
        let groups = groups_of(&name, gid, group);
        Self { name, uid, gid, groups }
    }

    /// Whether he is in the group of that name.
    #[must_use]
    pub(super) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|each| each.name == group)
    }

    /// Whether he is in the group of that number.
    #[must_use]
    pub(super) fn is_in_number(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.iter().any(|each| each.gid == gid)
    }
}

fn groups_of(user: &str, primary: u32, group: &str) -> Vec<Group> {
    // group(5): name:password:gid:user,user
    let parsed = group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid: u32 = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or_default();
        let is_in = gid == primary || members.split(',').any(|member| member.trim() == user);
        is_in.then(|| Group { name: name.to_owned(), gid })
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_with_the_groups_that_name_him_and_his_own() {
        let passwd = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/bash\n";
        let group = "root:x:0:\nalice:x:1000:\nstaff:x:50:bob,alice\nwheel:x:10:bob\n";
        let alice = Account::find(1000, passwd, group);
        assert_eq!((alice.name.as_str(), alice.gid), ("alice", 1000));
        assert!(alice.is_in("staff") && alice.is_in("alice") && !alice.is_in("wheel"));
        assert!(alice.is_in_number(50));
        let stranger = Account::find(77, "broken\n::::\n", group);
        assert_eq!((stranger.name.as_str(), stranger.groups.len()), ("77", 0));
        assert_eq!(Account::find(0, "", "").name, "root");
    }
}
