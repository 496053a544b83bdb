//! The files of an image: where each goes, and where it comes from. Programs bring their libraries.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    failure::{Outcome, Trying},
    program::run,
};

/// What is at one place of an image.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A directory, with its mode and owner.
    Directory(u32, u32),
    /// A file of this machine's.
    File(PathBuf),
    /// A file of our own, with its mode.
    Text(String, u32),
    /// A symbolic link.
    Link(String),
}

/// All files of an image, by their place without the leading slash.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
    /// Whose libraries are not here yet.
    unlinked: Vec<PathBuf>,
}

/// Debian's merged directories: links in every image.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

impl Tree {
    /// What every image has: the merged directories, accounts, and a place for temporary files.
    pub fn base() -> Self {
        let mut tree = Self::default();
        for directory in MERGED {
            tree.directory(&format!("usr/{directory}"), 0o755, 0);
            tree.entries.insert(PathBuf::from(directory), Entry::Link(format!("usr/{directory}")));
        }
        tree.directory("tmp", 0o1777, 0);
        tree.text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\n\
             postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh\n\
             understudy:x:65532:65532:Understudy:/tmp:/bin/sh\n",
            0o644,
        );
        tree.text("etc/group", "root:x:0:\npostgres:x:999:\nunderstudy:x:65532:\n", 0o644);
        tree.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644);
        tree
    }

    /// The entries, parents first.
    pub fn entries(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(place, entry)| (place.as_path(), entry))
    }

    /// Adds a directory.
    pub fn directory(&mut self, place: &str, mode: u32, owner: u32) {
        self.parents(Path::new(place));
        self.entries.insert(PathBuf::from(place), Entry::Directory(mode, owner));
    }

    /// Adds a file of our own.
    pub fn text(&mut self, place: &str, text: &str, mode: u32) {
        self.parents(Path::new(place));
        self.entries.insert(PathBuf::from(place), Entry::Text(text.to_owned(), mode));
    }

    /// Adds a link.
    pub fn symlink(&mut self, place: &str, target: &str) {
        self.parents(Path::new(place));
        self.entries.insert(PathBuf::from(place), Entry::Link(target.to_owned()));
    }

    /// Adds a file of this machine's at a place of its own.
    pub fn file(&mut self, place: &str, source: &Path) {
        self.parents(Path::new(place));
        self.entries.insert(PathBuf::from(place), Entry::File(source.to_owned()));
    }

    /// Adds a program of this machine's; `link` brings its libraries.
    pub fn program(&mut self, place: &str, source: &Path) {
        self.file(place, source);
        self.unlinked.push(source.to_owned());
    }

    /// Adds a directory of this machine's at the same place; `wanted` says which of its files.
    pub fn copy(&mut self, directory: &Path, wanted: &dyn Fn(&Path) -> bool) -> Outcome<()> {
        let list = fs::read_dir(directory).trying(|| format!("read {}", directory.display()))?;
        for path in list.flatten().map(|entry| entry.path()).filter(|path| wanted(path)) {
            // A link that leads nowhere leads nowhere in an image, too.
            let Ok(kind) = fs::metadata(&path) else { continue };
            if kind.is_dir() {
                self.copy(&path, wanted)?;
            } else if kind.permissions().mode() & 0o111 != 0 || path.extension().is_some_and(|end| end == "so") {
                self.program(&inside(&path), &path);
            } else {
                self.file(&inside(&path), &path);
            }
        }
        Ok(())
    }

    /// Adds the libraries that programs are linked with, at the places where the loader looks for them.
    pub fn link(&mut self) -> Outcome<()> {
        let mut needed = BTreeSet::new();
        for some in std::mem::take(&mut self.unlinked).chunks(200) {
            // Scripts and static programs make ldd fail after it has told of the others.
            let tolerant = ["-c", "ldd \"$@\" 2>/dev/null || true", "sh"].map(OsStr::new);
            let told = run("sh", tolerant.into_iter().chain(some.iter().map(|object| object.as_os_str())))?;
            needed.extend(linked(&told));
        }
        for library in needed {
            self.file(&inside(&library), &library);
        }
        Ok(())
    }

    fn parents(&mut self, place: &Path) {
        for parent in place.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory(0o755, 0));
        }
    }

    /// What tells two trees apart, without reading their files.
    pub fn fingerprint(&self, hash: &mut Sha256) -> Outcome<()> {
        for (place, entry) in &self.entries {
            hash.update(place.as_os_str().as_encoded_bytes());
            if let Entry::File(source) = entry {
                let data = fs::metadata(source).trying(|| format!("read {}", source.display()))?;
                hash.update(format!("{} {} {} {}", source.display(), data.len(), data.mtime(), data.mtime_nsec()));
            } else {
                hash.update(format!("{entry:?}"));
            }
        }
        Ok(())
    }
}

/// Where a path of this machine's is in an image: below `usr` if its directory is one of the merged.
fn inside(path: &Path) -> String {
    let text = path.to_string_lossy();
    let text = text.trim_start_matches('/');
    let first = text.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) { format!("usr/{text}") } else { text.to_owned() }
}

/// The libraries in what `ldd` printed.
fn linked(told: &str) -> Vec<PathBuf> {
    told.lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let told = "/bin/a:\n\tlinux-vdso.so.1 (0x7ffc)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n\tstatically linked\n";
        assert_eq!(linked(told), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
    }

    #[test]
    fn merged_directories_are_below_usr() {
        assert_eq!(inside(Path::new("/lib/x/libc.so.6")), "usr/lib/x/libc.so.6");
        assert_eq!(inside(Path::new("/usr/share/a")), "usr/share/a");
    }
}
