//! `USER` and `--group-add` to numbers, by the container's own passwd and group files.
//!
//! The files come from the image and are hostile input: they are opened inside the root
//! (openat2 `RESOLVE_IN_ROOT`), read up to a bound, and digits are never looked up by name
//! (CVE-2016-3697, CVE-2024-40635).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

/// More of a passwd or group file than this is not read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Who the first process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The passwd and group files of a root, as text; empty if they are missing.
#[derive(Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads both files below `root` without leaving it.
    ///
    /// # Errors
    /// The root itself cannot be opened.
    pub fn read(root: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|errno| Error::host("open", root, errno))?;
        let text = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let file = rustix::fs::openat2(&dir, name, flags, Mode::empty(), resolve).ok()?;
            let file = File::from(file);
            // A fifo or device would block or never end.
            file.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let mut bytes = Vec::new();
            file.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self {
            passwd: text("etc/passwd").unwrap_or_default(),
            group: text("etc/group").unwrap_or_default(),
        })
    }

    /// `USER[:GROUP]` and additional groups; an empty user is root.
    ///
    /// # Errors
    /// `unable to find user X: no matching entries in passwd file`, and the like for groups and
    /// numbers out of range.
    pub fn resolve(&self, user: &str, more_groups: &[String]) -> Result<Identity> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let entry = match number(user)? {
            Some(uid) => self.passwd_entry(|fields| fields[2].parse() == Ok(uid)),
            None => self.passwd_entry(|fields| fields[0] == user),
        };
        let uid = match (&entry, number(user)?) {
            (_, Some(uid)) => uid,
            (Some((_, uid, _)), None) => *uid,
            (None, None) => {
                return Err(Error::Invalid(format!(
                    "unable to find user {user}: no matching entries in passwd file"
                )));
            }
        };
        let mut identity = Identity {
            uid,
            gid: 0,
            groups: Vec::new(),
        };
        match group.filter(|group| !group.is_empty()) {
            Some(group) => identity.gid = self.group_id(group)?,
            None => {
                if let Some((name, _, gid)) = &entry {
                    identity.gid = *gid;
                    identity.groups = self.groups_of(name);
                }
            }
        }
        for group in more_groups {
            let gid = self.group_id(group)?;
            if !identity.groups.contains(&gid) {
                identity.groups.push(gid);
            }
        }
        Ok(identity)
    }

    /// The name of a user id.
    pub fn name_of(&self, uid: u32) -> Option<String> {
        let entry = self.passwd_entry(|fields| fields[2].parse() == Ok(uid));
        entry.map(|(name, ..)| name)
    }

    fn passwd_entry(&self, wanted: impl Fn(&[&str]) -> bool) -> Option<(String, u32, u32)> {
        self.passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            if fields.len() < 4 || !wanted(&fields) {
                return None;
            }
            let (uid, gid) = (fields[2].parse().ok()?, fields[3].parse().ok()?);
            Some((fields[0].to_owned(), uid, gid))
        })
    }

    fn group_id(&self, group: &str) -> Result<u32> {
        if let Some(gid) = number(group)? {
            return Ok(gid);
        }
        let found = self.group.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.len() >= 3 && fields[0] == group).then(|| fields[2].parse().ok())?
        });
        found.ok_or_else(|| {
            Error::Invalid(format!(
                "unable to find group {group}: no matching entries in group file"
            ))
        })
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let member = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let named = fields.len() >= 4 && fields[3].split(',').any(|name| name == user);
            named.then(|| fields[2].parse().ok())?
        };
        self.group.lines().filter_map(member).collect()
    }
}

/// The id if `text` is all digits; a number that is no id is an error, never a name.
fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        // 2³²-1 is the kernel's "no id"; Docker stops at 2³¹-1.
        Ok(id) if id <= i32::MAX.unsigned_abs() => Ok(Some(id)),
        _ => Err(Error::Invalid(format!(
            "uids and gids must be in range 0-2147483647: {text}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/x\n77:x:5:5::/:/x\n".into(),
            group: "root:x:0:\nweb:x:34:\nextra:x:50:web,other\n".into(),
        }
    }

    /// user, `--group-add`, wanted uid, gid and groups
    type Case<'a> = (&'a str, &'a [&'a str], Option<(u32, u32, &'a [u32])>);

    #[test]
    fn users_and_groups_become_numbers() {
        let cases: &[Case<'_>] = &[
            ("", &[], Some((0, 0, &[]))),
            ("web", &[], Some((33, 34, &[50]))),
            ("33", &[], Some((33, 34, &[50]))),
            ("web:root", &[], Some((33, 0, &[]))),
            ("web:77", &["extra"], Some((33, 77, &[50]))),
            ("1000", &["5"], Some((1000, 0, &[5]))),
            (":34", &[], Some((0, 34, &[]))),
            // A user *named* 77 must not catch the number 77.
            ("77", &[], Some((77, 0, &[]))),
            ("nobody", &[], None),
            ("web:nogroup", &[], None),
            ("4294967295", &[], None),
            ("4294967296", &[], None),
            ("-1", &[], None),
            ("+1", &[], None),
        ];
        for (user, more, want) in cases {
            let more: Vec<String> = more.iter().map(|group| (*group).to_owned()).collect();
            let got = accounts().resolve(user, &more).ok();
            let got = got
                .as_ref()
                .map(|id| (id.uid, id.gid, id.groups.as_slice()));
            assert_eq!(got, *want, "{user:?}");
        }
    }

    #[test]
    fn a_passwd_symlink_out_of_the_root_stays_inside() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("passwd"), "evil:x:1:1::/:/x\n").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let target = outside.path().join("passwd");
        std::os::unix::fs::symlink(target, root.path().join("etc/passwd")).unwrap();
        let accounts = Accounts::read(root.path()).unwrap();
        assert!(accounts.resolve("evil", &[]).is_err());
    }
}
