//! Who may ask.

use std::fmt;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::UnixStream;

/// Who has connected, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Process, when the kernel knows it.
    pub pid: Option<i32>,
    gid: u32,
}

impl Caller {
    pub(super) fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), pid: credentials.pid(), gid: credentials.gid() })
    }

    /// Whether it is root, this process's own user, or a member of `group`. May look into the system's database of users,
    /// which may take time.
    pub(super) fn may_ask(self, group: Option<Gid>) -> bool {
        let uid = Uid::from_raw(self.uid);
        if uid.is_root() || uid == Uid::effective() {
            return true;
        }
        let Some(group) = group else { return false };
        if Gid::from_raw(self.gid) == group {
            return true;
        }
        let Ok(Some(user)) = User::from_uid(uid) else { return false };
        let Ok(name) = std::ffi::CString::new(user.name) else { return false };
        getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, ", process {pid}"))
    }
}

/// The group of this name; `None` when the system does not know it.
pub(super) fn group(name: &str) -> Option<Gid> {
    Group::from_name(name).ok().flatten().map(|group| group.gid)
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Uid};

    use super::Caller;

    #[test]
    fn only_root_the_own_user_and_the_group_may_ask() {
        let caller = |uid, gid| Caller { uid, pid: None, gid };
        let own = Uid::effective().as_raw();
        assert!(caller(0, 0).may_ask(None) && caller(own, 12_345).may_ask(None));
        let stranger = caller(own.wrapping_add(54_321), 777);
        assert!(!stranger.may_ask(None));
        assert!(!stranger.may_ask(Some(Gid::from_raw(778))));
        assert!(stranger.may_ask(Some(Gid::from_raw(777))));
    }
}
