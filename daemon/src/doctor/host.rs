//! The host that is looked at, and the user that the daemon runs as there.

use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// A host, whose files lie below a folder.
#[derive(Clone, Debug)]
pub(super) struct Host {
    root: PathBuf,
    pub(super) user: Account,
}

impl Host {
    pub(super) fn new(root: &Path, user: Account) -> Self {
        Self { root: root.to_owned(), user }
    }

    /// Whether it is this host, and not one that a test has staged.
    pub(super) fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path of the host lies.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if path.starts_with(&self.root) {
            return path.to_owned();
        }
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// A user, with all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    name: String,
    pub(super) uid: u32,
    gids: Vec<u32>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.name)
    }
}

impl Account {
    /// A user by name or number; `None`: the user `qkd` where root asks and there is one, otherwise whoever asks.
    ///
    /// # Errors
    /// In words, when there is no such user.
    pub(super) fn find(name: Option<&str>) -> Result<Self, String> {
        let known = |name: &str| User::from_name(name).ok().flatten();
        let user = match name {
            None if Uid::effective().is_root() => {
                known("qkd").or_else(|| User::from_uid(Uid::effective()).ok().flatten())
            }
            None => User::from_uid(Uid::effective()).ok().flatten(),
            Some(name) => match name.parse::<u32>() {
                Ok(number) => return Ok(Self { name: name.to_owned(), uid: number, gids: vec![number] }),
                Err(_) => return known(name).map(Self::of).ok_or_else(|| format!("there is no user {name}")),
            },
        };
        Ok(user.map_or_else(
            || Self {
                name: Uid::effective().to_string(),
                uid: Uid::effective().as_raw(),
                gids: vec![Gid::effective().as_raw()],
            },
            Self::of,
        ))
    }

    fn of(user: User) -> Self {
        let groups = CString::new(user.name.clone()).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
        let gids = groups.unwrap_or_else(|| vec![user.gid]).into_iter().map(Gid::as_raw).collect();
        Self { name: user.name, uid: user.uid.as_raw(), gids }
    }

    /// Whether a file with this mode and owner lets this user read and write it. What root may beyond that does not count: the
    /// units give the daemon nothing of it.
    pub(super) fn may_read_and_write(&self, mode: u32, uid: u32, gid: u32) -> bool {
        self.may(mode, uid, gid, 0o6)
    }

    /// The same for reading alone.
    pub(super) fn may_read(&self, mode: u32, uid: u32, gid: u32) -> bool {
        self.may(mode, uid, gid, 0o4)
    }

    fn may(&self, mode: u32, uid: u32, gid: u32, bits: u32) -> bool {
        let shift = if uid == self.uid {
            6
        } else if self.gids.contains(&gid) {
            3
        } else {
            0
        };
        (mode >> shift) & bits == bits
    }
}

/// Whether the system knows a group.
pub(super) fn knows_group(name: &str) -> bool {
    Group::from_name(name).is_ok_and(|group| group.is_some())
}

#[cfg(test)]
mod tests {
    use super::Account;

    #[test]
    fn the_first_of_owner_group_and_others_that_fits_decides() {
        let user = Account { name: "x".into(), uid: 7, gids: vec![8, 9] };
        assert!(user.may_read_and_write(0o600, 7, 1) && user.may_read_and_write(0o660, 1, 9));
        assert!(user.may_read_and_write(0o006, 1, 1) && user.may_read(0o640, 1, 8));
        // An owner without rights is not helped by the group's or others'.
        assert!(!user.may_read_and_write(0o066, 7, 8) && !user.may_read_and_write(0o606, 1, 8));
        assert!(!user.may_read_and_write(0o640, 1, 8) && !user.may_read(0o660, 1, 1));
    }
}
