//! The docker-archive format: a configuration, one layer, a manifest. The same files make the same bytes.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::{
    hexadecimal,
    recipes::Image,
    tree::{Entry, Tree},
};
use crate::failure::{Outcome, Trying};

/// Writes an image's archive. It is known by each of the names.
pub fn write(image: &Image, names: &[String], archive: &Path) -> Outcome<()> {
    let layer = archive.with_extension("layer");
    write_layer(&image.tree, &layer).trying(|| format!("write {}", layer.display()))?;
    let digest = digest(&layer).trying(|| format!("read {}", layer.display()))?;
    let (mut arguments, command) = (image.entrypoint.clone(), image.command.clone());
    arguments.retain(|argument| !argument.is_empty());
    let configuration = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": image.user,
            "Env": image.environment,
            "Entrypoint": arguments,
            "Cmd": command,
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    })
    .to_string();
    let config_name = format!("{}.json", hexadecimal(&Sha256::digest(configuration.as_bytes())));
    let manifest = json!([{ "Config": config_name, "RepoTags": names, "Layers": ["layer.tar"] }]).to_string();
    (|| {
        // Under another name until it is whole.
        let unfinished = archive.with_extension("unfinished");
        let mut tar = Builder::new(BufWriter::new(File::create(&unfinished)?));
        append(&mut tar, &config_name, configuration.as_bytes())?;
        append(&mut tar, "manifest.json", manifest.as_bytes())?;
        let mut header = header(EntryType::Regular, 0o644, 0, fs::metadata(&layer)?.len());
        tar.append_data(&mut header, "layer.tar", BufReader::new(File::open(&layer)?))?;
        tar.into_inner()?.flush()?;
        fs::remove_file(&layer)?;
        fs::rename(&unfinished, archive)
    })()
    .trying(|| format!("write {}", archive.display()))
}

fn write_layer(tree: &Tree, path: &Path) -> io::Result<()> {
    let mut tar = Builder::new(BufWriter::new(File::create(path)?));
    for (place, entry) in tree.entries() {
        match entry {
            Entry::Directory(mode, owner) => {
                let mut header = header(EntryType::Directory, *mode, *owner, 0);
                tar.append_data(&mut header, place, io::empty())?;
            }
            Entry::File(source) => {
                let data = fs::metadata(source)?;
                let mode = if data.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                let mut header = header(EntryType::Regular, mode, 0, data.len());
                tar.append_data(&mut header, place, BufReader::new(File::open(source)?))?;
            }
            Entry::Text(text, mode) => {
                let mut header = header(EntryType::Regular, *mode, 0, text.len() as u64);
                tar.append_data(&mut header, place, text.as_bytes())?;
            }
            Entry::Link(target) => {
                let mut header = header(EntryType::Symlink, 0o777, 0, 0);
                tar.append_link(&mut header, place, target)?;
            }
        }
    }
    tar.into_inner()?.flush()
}

fn append(tar: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, 0o644, 0, bytes.len() as u64), name, bytes)
}

fn header(kind: EntryType, mode: u32, owner: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
    }
    Ok(hexadecimal(&hash.finalize()))
}
