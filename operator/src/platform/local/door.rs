//! The one way into a clone over the network: from the mirror's address, over TLS on which both sides show a
//! certificate of the experiment's own authority. What the server's configuration says about it, and the
//! files that it names.
//!
//! Where mirror and clones share a machine there is no such door: a private socket is enough.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    account::Account,
    arm::write_private,
    binaries::Binaries,
    parameters::{ask_in, refusal},
    place::private_directory,
};
use crate::{
    error::{ErrorKind, Side, UserError},
    peer::identity::Identity,
};

const AUTHORITY: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How the mirror gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The one address from which it comes.
    pub mirror: IpAddr,
    /// Where the server's certificate, its key and the authority are.
    pub certificates: PathBuf,
}

impl Door {
    /// Writes the certificates as the server wants them: its own, the key closed to everybody else.
    pub fn make(mirror: IpAddr, identity: &Identity, directory: &Path, account: &Account) -> Result<Self, UserError> {
        private_directory(directory, account)?;
        for (name, text) in
            [(AUTHORITY, identity.authority()), (CERTIFICATE, identity.certificate()), (KEY, identity.key())]
        {
            write_private(&directory.join(name), text, account)?;
        }
        Ok(Self { mirror, certificates: directory.to_owned() })
    }

    /// The line of `pg_hba.conf`. There is no other for the network, so plain text is refused.
    pub fn hba_line(&self) -> String {
        let bits = if self.mirror.is_ipv4() { 32 } else { 128 };
        format!("hostssl all all {}/{bits} trust clientcert=verify-ca", self.mirror)
    }

    /// Settings of the server, with `ssl = on`.
    pub fn settings(&self) -> [(&'static str, String); 3] {
        let file = |name: &str| self.certificates.join(name).display().to_string();
        [("ssl_ca_file", file(AUTHORITY)), ("ssl_cert_file", file(CERTIFICATE)), ("ssl_key_file", file(KEY))]
    }
}

/// Whether a clone that is run by these programs can have a door at all: not where they were built without
/// TLS. Asked before anything is copied. `scratch` is a directory that is made for this and removed again.
pub async fn check_tls(binaries: &Binaries, account: &Account, scratch: &Path) -> Result<(), UserError> {
    let asked = ask_in(scratch, account, refusal("ssl", "on", binaries, account, scratch)).await?;
    match asked {
        None => Ok(()),
        Some(reason) => Err(UserError::new(ErrorKind::Missing, Side::Arm, "the clone's PostgreSQL can't speak TLS")
            .fact("program", binaries.program("postgres").display())
            .fact("reason", reason)
            .remedy(
                "use an image whose PostgreSQL is built with OpenSSL (SHOW ssl_library says so): \
                 the mirror says nothing to a clone in plain text",
            )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_and_it_wants_a_certificate() {
        for (mirror, expected) in [
            ("10.1.2.3", "hostssl all all 10.1.2.3/32 trust clientcert=verify-ca"),
            ("fd00::17", "hostssl all all fd00::17/128 trust clientcert=verify-ca"),
        ] {
            let door = Door { mirror: mirror.parse().expect("an address"), certificates: "/x".into() };
            assert_eq!(door.hba_line(), expected);
        }
    }
}
