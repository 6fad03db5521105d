//! Result files named by the user. Start at [`ResultFile::open`].
//!
//! Only a regular file is replaced as a whole; devices and pipes are written through, and links are
//! followed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::record::files::{folder_of, sync_directory, temporary_name};

/// Maximum number of links followed, as in Linux.
const MOST_LINKS: usize = 40;

/// A result file, written in complete parts.
#[derive(Debug)]
pub struct ResultFile(Target);

#[derive(Debug)]
enum Target {
    /// A regular file, existing or not, with its links followed; it keeps its old content until the
    /// first part is written.
    Untouched { path: PathBuf },
    /// The new file, and the length of its complete parts.
    Begun { file: File, length: u64 },
    /// A pipe, opened with the first part: opening waits for a reader.
    Pipe { path: PathBuf },
    /// A device, or the file that standard output is already redirected to.
    Stream { file: File },
}

impl ResultFile {
    /// Checks whether a result can be written at `path`, before it is computed. Existing content is
    /// not changed.
    ///
    /// # Errors
    /// When `path` is a folder, its folder does not exist, or nothing can be written there.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(there) if there.file_type().is_fifo() => {
                Ok(Self(Target::Pipe { path: path.to_owned() }))
            }
            Ok(there) if !there.is_file() || is_standard_stream(&there) => {
                Ok(Self(Target::Stream { file: OpenOptions::new().append(true).open(path)? }))
            }
            Ok(_) => Self::regular(fs::canonicalize(path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::regular(end_of_links(path)?)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Self::open`], for a file that must not replace another one.
    ///
    /// # Errors
    /// As [`Self::open`], and when a regular file exists there.
    pub fn open_new(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|there| there.is_file() && !is_standard_stream(&there)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Self::open(path)
    }

    /// Tries to create a file in the folder, where a regular file is first written under another
    /// name.
    fn regular(path: PathBuf) -> io::Result<Self> {
        let trial = temporary_name(&path);
        File::create(&trial)?;
        fs::remove_file(&trial)?;
        Ok(Self(Target::Untouched { path }))
    }

    /// Appends a part and syncs it. The first part of a regular file replaces the old content.
    ///
    /// # Errors
    /// When it cannot be written; a regular file then contains the complete parts before it.
    pub fn append(&mut self, part: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Target::Untouched { path } => {
                let file = replace_keeping_mode(path, part)?;
                self.0 = Target::Begun { file, length: part.len() as u64 };
                Ok(())
            }
            Target::Begun { file, length } => {
                if let Err(error) = file.write_all(part).and_then(|()| file.sync_all()) {
                    // Complete parts only; if that fails too, the caller's error is the same.
                    let _ = file.set_len(*length);
                    return Err(error);
                }
                *length += part.len() as u64;
                Ok(())
            }
            Target::Pipe { path } => {
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.write_all(part)?;
                self.0 = Target::Stream { file };
                Ok(())
            }
            Target::Stream { file } => file.write_all(part),
        }
    }
}

/// Writes a result of one part to `path`.
///
/// # Errors
/// As [`ResultFile::open`] and [`ResultFile::append`].
pub fn write_result(path: &Path, bytes: &[u8]) -> io::Result<()> {
    ResultFile::open(path)?.append(bytes)
}

/// The same as [`super::replace_file`], with the permissions of the old file; returns the new one,
/// open at its end.
fn replace_keeping_mode(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let temporary = temporary_name(path);
    let write = || {
        let mut file = File::create(&temporary)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory(folder_of(path))?;
        Ok(file)
    };
    write().inspect_err(|_| {
        // Removes only the new partial file; if that fails too, the caller's error is the same.
        let _ = fs::remove_file(&temporary);
    })
}

/// Whether `there` is the file that standard output or standard error is redirected to: replacing
/// it would lose what is printed.
fn is_standard_stream(there: &Metadata) -> bool {
    let is_it = |stream: io::Result<std::os::fd::OwnedFd>| {
        stream
            .and_then(|fd| File::from(fd).metadata())
            .is_ok_and(|stream| (stream.dev(), stream.ino()) == (there.dev(), there.ino()))
    };
    is_it(io::stdout().as_fd().try_clone_to_owned())
        || is_it(io::stderr().as_fd().try_clone_to_owned())
}

/// The target of `path` after all links, which need not exist.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = folder_of(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::thread;

    use super::*;

    #[test]
    fn a_regular_file_is_replaced_by_the_first_part_and_grows_by_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut file = ResultFile::open(&path).unwrap();
        assert_eq!(
            fs::read(&path).unwrap(),
            b"old",
            "nothing is lost before there is something new"
        );
        file.append(b"one\n").unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(ResultFile::open_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn links_are_followed_whether_or_not_they_lead_to_something() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("real"), "old").unwrap();
        symlink("real", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        symlink("none", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for (name, target) in [("second", "real"), ("dangling", "none")] {
            write_result(&at(name), b"new").unwrap();
            assert!(at(name).is_symlink() && fs::read(at(target)).unwrap() == b"new", "{name}");
        }
        ResultFile::open(&at("loop")).unwrap_err();
    }

    #[test]
    fn pipes_and_devices_are_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let mut file = ResultFile::open(&pipe).unwrap();
        let reader = thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        file.append(b"one ").unwrap();
        file.append(b"two").unwrap();
        drop(file);
        assert_eq!(reader.join().unwrap(), "one two");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        // Through a link, so that a bug in this code cannot replace the machine's own device.
        let full = folder.path().join("full");
        symlink("/dev/full", &full).unwrap();
        assert_eq!(write_result(&full, b"text").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(full.is_symlink());
    }

    #[test]
    fn a_place_where_nothing_can_be_written_is_found_out_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        assert_eq!(
            ResultFile::open(folder.path()).unwrap_err().kind(),
            io::ErrorKind::IsADirectory
        );
        assert_eq!(
            ResultFile::open(&folder.path().join("none/file")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(
            ResultFile::open(&path.join("file")).unwrap_err().kind(),
            io::ErrorKind::NotADirectory
        );
        // The kernel refuses new names here to everyone, including root.
        ResultFile::open(Path::new("/proc/self/samples.jsonl")).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
