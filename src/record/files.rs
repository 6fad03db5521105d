//! Opens and replaces the files of a run: regular files only, replaced atomically.
//!
//! A run directory can be copied, mounted or tampered with. Opening a pipe waits for its other end
//! and reading a device may never end, so anything but a regular file is an error at once.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Maximum size of a manifest or another JSON file, checked before anything is allocated.
const SMALL_FILE: u64 = 4 * 1024 * 1024;
/// Maximum size of a tokenizer; the largest known ones have tens of megabytes.
const TOKENIZER_FILE: u64 = 256 * 1024 * 1024;

/// Opens `path` for reading.
///
/// # Errors
/// When it is not a regular file, or cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_with(File::options().read(true), path)
}

/// Opens `path` for reading and appending; creates it if missing.
///
/// # Errors
/// When it is not a regular file, or cannot be opened.
pub fn append_regular(path: &Path) -> io::Result<File> {
    open_with(File::options().create(true).read(true).append(true), path)
}

/// All bytes of a small file.
///
/// # Errors
/// When it is not a regular file, is larger than any such file, or cannot be read.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, SMALL_FILE)
}

/// All bytes of a tokenizer, or of another file of that size.
///
/// # Errors
/// As [`read_small`].
pub fn read_tokenizer(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, TOKENIZER_FILE)
}

fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has {length} bytes, too many for this kind of file"),
        ));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Replaces the file at `path` by `bytes`: a reader sees either the old or the new content, even
/// after a power cut.
///
/// # Errors
/// When the file system refuses; the old content is then intact.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    let written = write_and_sync(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Removes only the new partial file; if that fails too, the caller's error is the same.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_directory(folder_of(path))
}

/// The folder of `path`; for a bare name the current one.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates `path` and its missing parents, and syncs each new name to disk.
///
/// # Errors
/// When the file system refuses.
pub fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = folder_of(path);
    create_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory(parent),
    }
}

/// Removes temporary files of dead writers from `folder`. The caller must be the only writer there.
pub(crate) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let is_leftover = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tmp");
    for path in entries.flatten().map(|entry| entry.path()).filter(is_leftover) {
        // A folder of that name was not made by patchtui, and is not removed.
        let _ = fs::remove_file(path);
    }
}

/// Whether `path` still refers to the file or folder opened as `opened`, whose inode cannot be
/// reused while it is open.
pub(crate) fn is_same(opened: Option<&File>, path: &Path) -> io::Result<bool> {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let there = identity(fs::metadata(path)?);
    Ok(opened.and_then(|file| file.metadata().ok()).map(identity) == Some(there))
}

/// Syncs the names in `folder` to disk.
///
/// # Errors
/// When the file system refuses.
pub fn sync_directory(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // NONBLOCK has no effect on regular files; it keeps the opening of a pipe from waiting for its
    // other end.
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

fn write_and_sync(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.json");
        replace_file(&path, b"old").unwrap();
        replace_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(folder_of(Path::new("samples.jsonl")), Path::new("."));
        assert_eq!(folder_of(Path::new("runs/plan.json")), Path::new("runs"));
    }

    #[test]
    fn a_file_that_cannot_be_replaced_keeps_its_place_clean() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        replace_file(&path, b"new").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn pipes_devices_and_endless_links_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        for name in ["pipe", "device", "loop"] {
            open_regular(&at(name)).unwrap_err();
            read_small(&at(name)).unwrap_err();
            append_regular(&at(name)).unwrap_err();
        }
    }

    #[test]
    fn what_a_dead_writer_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.toml.123.tmp", "config.toml"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("kept.tmp")).unwrap();
        remove_leftovers(folder.path());
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["config.toml", "kept.tmp"]);
    }
}
