//! What is made of certificates, keys and authorities, and made again when their files change, so that they can be
//! renewed while sessions are connected; new ones that can't be used leave the old ones in their place.
//!
//! Private keys are neither logged nor shown.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::SystemTime,
};

use super::client_tls::CertificateError;

/// When a file was changed, and how long it is; nothing where there is none.
type Stamp = Option<(SystemTime, u64)>;

/// Something that is made of files.
pub struct Renewed<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, CertificateError> + Send + Sync>,
    // Held for a clone of the pointer alone.
    current: RwLock<Arc<T>>,
    seen: Mutex<Vec<Stamp>>,
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
        let seen = Mutex::new(stamps(&paths));
        let current = RwLock::new(Arc::new(load()?));
        Ok(Self { paths, load: Box::new(load), current, seen })
    }

    /// What was made of them last.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads them again when they have changed. Whether there is something new; why not.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        let now = stamps(&self.paths);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        let renewed = Arc::new((self.load)()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(true)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len()))).ok();
    paths.iter().map(stamp).collect()
}
