//! What is made of certificates, keys and authorities, and made again when their files change, so that they can be
//! renewed while sessions are connected; new ones that can't be used leave the old ones in their place.
//!
//! Private keys are neither logged nor shown.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::client_tls::CertificateError;

/// Which file it is, when it was changed (s, ns) and how long it is; nothing where there is none. That the file is another
/// one tells more than its time: what is copied or put into an image keeps that, or has none.
type Stamp = Option<(u64, i64, i64, u64)>;

/// Something that is made of files.
pub struct Renewed<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, CertificateError> + Send + Sync>,
    // Held for a clone of the pointers alone.
    current: RwLock<Two<T>>,
    seen: Mutex<Seen>,
}

/// What was made of the files last, and what before that.
struct Two<T> {
    last: Arc<T>,
    before: Option<Arc<T>>,
}

/// What was seen of the files last.
#[derive(Debug, Default)]
struct Seen {
    /// As they were when something could be made of them.
    used: Vec<Stamp>,
    /// As they were when nothing could, and why: told once. They are tried again all the same: what was in the way need
    /// not be seen on them.
    refused: Option<(Vec<Stamp>, String)>,
}

impl<T> fmt::Debug for Renewed<T> {
    // Not what is made of them: it holds a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<T> Renewed<T> {
    /// Reads these files with `load` for the first time.
    pub fn read(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, CertificateError> + Send + Sync + 'static,
    ) -> Result<Self, CertificateError> {
        // Before they are read: what changes meanwhile is read again.
        let seen = Mutex::new(Seen { used: stamps(&paths), refused: None });
        let current = RwLock::new(Two { last: Arc::new(load()?), before: None });
        Ok(Self { paths, load: Box::new(load), current, seen })
    }

    /// What was made of them last.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).last)
    }

    /// What was made of them before that, where they have changed.
    pub fn before(&self) -> Option<Arc<T>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).before.clone()
    }

    /// Reads them again when they have changed. Whether there is something new; why not, where that is not what it was the
    /// last time.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        let now = stamps(&self.paths);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.used == now {
            return Ok(false);
        }
        match (self.load)() {
            Ok(renewed) => {
                *seen = Seen { used: now, refused: None };
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                let before = std::mem::replace(&mut current.last, Arc::new(renewed));
                current.before = Some(before);
                Ok(true)
            }
            Err(error) => {
                let refused = Some((now, error.to_string()));
                if seen.refused == refused {
                    return Ok(false);
                }
                seen.refused = refused;
                Err(error)
            }
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| fs::metadata(path).map(|m| (m.ino(), m.ctime(), m.ctime_nsec(), m.len())).ok();
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// As Kubernetes renews a mounted Secret: the files are links, and what they lead through is swapped at once.
    #[test]
    fn files_behind_a_link_that_is_swapped_are_read_again() {
        let mounted = tempfile::tempdir().unwrap();
        let path = |name: &str| mounted.path().join(name);
        for (version, text) in [("..1", "old"), ("..2", "new")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("tls.crt"), text).unwrap();
        }
        symlink("..1", path("..data")).unwrap();
        symlink("..data/tls.crt", path("tls.crt")).unwrap();
        let from = path("tls.crt");
        let load = move || {
            fs::read_to_string(&from).map_err(|_| CertificateError::Pem { path: from.clone(), what: "certificate" })
        };
        let renewed = Renewed::read(vec![path("tls.crt")], load).unwrap();
        assert!(matches!(renewed.renew(), Ok(false)));
        symlink("..2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert!(matches!(renewed.renew(), Ok(true)));
        assert_eq!(*renewed.current(), "new");
    }

    #[test]
    fn what_can_not_be_used_is_told_once_and_tried_until_it_can_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let in_the_way = Arc::new(AtomicBool::new(false));
        let (is_in_the_way, from) = (Arc::clone(&in_the_way), path.clone());
        let load = move || {
            let failed = is_in_the_way.load(Ordering::Relaxed);
            let text = fs::read_to_string(&from).ok().filter(|_| !failed);
            text.ok_or_else(|| CertificateError::Pem { path: from.clone(), what: "certificate" })
        };
        fs::write(&path, "old").unwrap();
        let renewed = Renewed::read(vec![path.clone()], load).unwrap();
        assert!(matches!(renewed.renew(), Ok(false)));
        fs::write(&path, "the new one").unwrap();
        in_the_way.store(true, Ordering::Relaxed);
        assert!(renewed.renew().is_err());
        assert!(matches!(renewed.renew(), Ok(false)), "told once");
        assert_eq!(*renewed.current(), "old");
        // Nothing is to be seen of it on the file.
        in_the_way.store(false, Ordering::Relaxed);
        assert!(matches!(renewed.renew(), Ok(true)));
        assert_eq!(*renewed.current(), "the new one");
    }
}
