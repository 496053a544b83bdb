//! The account that servers run under: PostgreSQL refuses to run as root.
//!
//! It decides who, and makes the `setpriv` command line; it must not start anything itself.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    fs::{Gid, Uid, chown},
    process::geteuid,
};

use crate::error::{ErrorKind, Side, UserError};

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// The one that we run under ourselves.
    Own,
    /// Another one; only root can use it.
    Other {
        /// Login name.
        name: String,
        /// User id.
        uid: u32,
        /// Primary group.
        gid: u32,
    },
}

/// Accounts that servers run under when we are root, the best one first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

impl Account {
    /// The account that servers run under: ours, or an unprivileged one when we are root.
    pub fn detect() -> Result<Self, UserError> {
        if !geteuid().is_root() {
            return Ok(Self::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        unprivileged(&passwd).ok_or_else(|| {
            UserError::new(ErrorKind::Missing, Side::Host, "there is no account to run servers under")
                .fact("looked for", UNPRIVILEGED.join(", "))
                .fact("reason", "PostgreSQL refuses to run as root")
                .remedy("useradd --system postgres, or start Understudy as an ordinary user")
                .nothing_changed()
        })
    }

    /// The login name, for messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Own => "the user who runs this",
            Self::Other { name, .. } => name,
        }
    }

    /// Arguments of `setpriv` that switch to this account and let the kernel signal the program
    /// when the thread that started it ends.
    pub fn setpriv_arguments(&self, death_signal: &str) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Self::Other { uid, gid, .. } = self {
            arguments.extend(["--reuid".into(), uid.to_string(), "--regid".into(), gid.to_string()]);
            arguments.push("--init-groups".into());
        }
        arguments.extend(["--pdeathsig".into(), death_signal.into(), "--".into()]);
        arguments
    }

    /// Makes the account the owner of `path` (of the file itself, not of what is below it).
    pub fn take(&self, path: &Path) -> Result<(), UserError> {
        let Self::Other { uid, gid, .. } = self else { return Ok(()) };
        chown(path, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))
            .map_err(|e| UserError::file("hand a file to the server's account", path, &e.into()))
    }

    /// The directory on the way to `path` that keeps this account out, as far as the permission bits
    /// show it.
    pub fn blocked_at<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let Self::Other { uid, gid, .. } = self else { return None };
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        way.into_iter()
            .find(|directory| fs::metadata(directory).is_ok_and(|m| !may_enter(*uid, *gid, m.uid(), m.gid(), m.mode())))
    }
}

fn may_enter(uid: u32, gid: u32, owner: u32, group: u32, mode: u32) -> bool {
    let bit = if uid == owner {
        0o100
    } else if gid == group {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

fn unprivileged(passwd: &str) -> Option<Account> {
    UNPRIVILEGED.iter().find_map(|wanted| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| name == wanted)?;
            let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account::Other { name: name.to_owned(), uid, gid })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(name: &str, uid: u32, gid: u32) -> Account {
        Account::Other { name: name.into(), uid, gid }
    }

    #[test]
    fn postgres_is_preferred_to_nobody_and_root_is_never_taken() {
        let root = "root:x:0:0:root:/root:/bin/bash\n";
        let nobody = "nobody:x:65534:65534::/:/usr/sbin/nologin\n";
        let postgres = "postgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        let cases = [
            (format!("{root}{nobody}{postgres}"), Some(other("postgres", 101, 104))),
            (format!("{root}{nobody}"), Some(other("nobody", 65534, 65534))),
            (root.to_owned(), None),
            (format!("postgres:x:0:0::/:/bin/sh\n{nobody}"), Some(other("nobody", 65534, 65534))),
            ("postgres:x:abc\n".to_owned(), None),
        ];
        for (passwd, expected) in cases {
            assert_eq!(unprivileged(&passwd), expected, "{passwd}");
        }
    }

    #[test]
    fn setpriv_switches_only_where_it_has_to() {
        assert_eq!(Account::Own.setpriv_arguments("QUIT"), ["--pdeathsig", "QUIT", "--"]);
        assert_eq!(
            other("postgres", 101, 104).setpriv_arguments("TERM"),
            ["--reuid", "101", "--regid", "104", "--init-groups", "--pdeathsig", "TERM", "--"]
        );
    }

    #[test]
    fn permission_bits_decide_who_may_enter() {
        let cases = [
            ((1, 1), (0, 0, 0o755), true),
            ((1, 1), (0, 0, 0o700), false),
            ((1, 1), (1, 0, 0o700), true),
            ((1, 1), (0, 1, 0o710), true),
            ((1, 1), (0, 1, 0o701), false),
            ((1, 1), (1, 1, 0o077), false),
        ];
        for ((uid, gid), (owner, group, mode), expected) in cases {
            assert_eq!(may_enter(uid, gid, owner, group, mode), expected, "{mode:o}");
        }
    }
}
