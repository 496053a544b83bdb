//! Images made by ourselves: no daemon, no registry, no base image. `recipes` says what is in each,
//! `tree` collects the files from this machine, `archive` writes them, `store` unpacks them once for all
//! nodes. Nothing that a pod could not be shown is copied: files of packages, and our own programs.

mod archive;
mod recipes;
pub mod store;
mod tree;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    failure::{Outcome, Trying},
    layout::Layout,
};

/// Bytes as people write digests.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What all images are called before the slash.
pub const PREFIX: &str = "localhost/understudy";

/// An image that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its name with the tag.
    pub name: String,
    /// Its archive.
    pub archive: PathBuf,
    /// Whether it differs from the one that was there.
    pub new: bool,
}

/// Makes all images, those again whose files changed.
pub fn make(layout: &Layout, binaries: &Path) -> Outcome<Vec<Made>> {
    let directory = layout.images();
    fs::create_dir_all(&directory).trying(|| format!("make {}", directory.display()))?;
    let mut all = Vec::new();
    for image in recipes::all(layout, binaries)? {
        let name = format!("{PREFIX}/{}:{}", image.name, image.tag);
        let archive = directory.join(format!("{}-{}.tar", image.name, image.tag));
        let stamp = directory.join(format!("{}-{}.stamp", image.name, image.tag));
        let fingerprint = image.fingerprint()?;
        let new = !archive.exists() || fs::read_to_string(&stamp).ok().as_deref() != Some(fingerprint.as_str());
        if new {
            let also = image.also.iter().map(|tag| format!("{PREFIX}/{}:{tag}", image.name));
            let names: Vec<String> = std::iter::once(name.clone()).chain(also).collect();
            archive::write(&image, &names, &archive)?;
            fs::write(&stamp, fingerprint).trying(|| format!("write {}", stamp.display()))?;
        }
        all.push(Made { name, archive, new });
    }
    Ok(all)
}
