//! A disk whose power can go off before any operation: what it would hold then, as a folder that a
//! test can go on with.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use patchtui::disk::{Disk, Operation};

/// What becomes of bytes and names that nobody has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// The process was killed, and the system wrote everything later.
    Kept,
    /// Nothing of them is there.
    Gone,
    /// Half of the bytes are there, and all names.
    Torn,
    /// As many zeros as there were bytes, as file systems leave that write sizes before content.
    Zeros,
}

impl Unsynced {
    pub(crate) const ALL: [Self; 4] = [Self::Kept, Self::Gone, Self::Torn, Self::Zeros];
}

/// A watched folder, and an image of it for every operation.
pub(crate) struct PowerCuts {
    _images: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

/// What a power cut would leave.
pub(crate) struct Image {
    /// Before which operation.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

/// Whether an operation is one to begin with.
type Begins = dyn FnMut(Operation, &Path) -> bool + Send;

struct State {
    watched: PathBuf,
    images: PathBuf,
    unsynced: Unsynced,
    taken: Vec<Image>,
    /// Bytes that are safe of files that have more, by inode.
    safe_bytes: HashMap<u64, u64>,
    /// Files and folders whose name is not safe, by inode.
    unnamed: HashSet<u64>,
    /// Files with their content of the last image, so that no two images in a row are the same.
    last: Vec<(PathBuf, blake3::Hash)>,
    /// Whether images are taken before this operation and those that follow.
    begins: Box<Begins>,
    /// Paths that the last operations may have made.
    new: Vec<PathBuf>,
}

impl PowerCuts {
    /// Watches `folder`, and the disk to write to. There are images from the first operation on
    /// that `begins` is true for.
    pub(crate) fn of(
        folder: &Path,
        unsynced: Unsynced,
        begins: impl FnMut(Operation, &Path) -> bool + Send + 'static,
    ) -> (Self, Disk) {
        let images = tempfile::tempdir().unwrap();
        let state = State {
            watched: folder.to_owned(),
            images: images.path().to_owned(),
            unsynced,
            taken: Vec::new(),
            safe_bytes: HashMap::new(),
            unnamed: HashSet::new(),
            last: Vec::new(),
            begins: Box::new(begins),
            new: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let seen = state.clone();
        let disk = Disk::with_gate(move |operation, path| {
            seen.lock().unwrap().see(operation, path);
            Ok(())
        });
        (Self { _images: images, state }, disk)
    }

    /// All images that differ, with one of what is there when everything is done.
    pub(crate) fn images(&self) -> Vec<Image> {
        let mut state = self.state.lock().unwrap();
        state.take("the end".into());
        std::mem::take(&mut state.taken)
    }
}

impl State {
    fn see(&mut self, operation: Operation, path: &Path) {
        self.find_new();
        if !self.taken.is_empty() || (self.begins)(operation, path) {
            self.take(format!(
                "{operation:?} {}",
                path.strip_prefix(&self.watched).unwrap_or(path).display()
            ));
        }
        match operation {
            Operation::Write if path.exists() => {
                self.safe_bytes.entry(inode(path)).or_insert(0);
            }
            Operation::CreateFolder | Operation::Write => self.new.push(path.to_owned()),
            Operation::Append => drop(
                self.safe_bytes.entry(inode(path)).or_insert(fs::metadata(path).unwrap().len()),
            ),
            Operation::Sync if path.is_dir() => {
                for entry in fs::read_dir(path).unwrap().flatten() {
                    self.unnamed.remove(&entry.metadata().unwrap().ino());
                }
            }
            Operation::Sync => drop(self.safe_bytes.remove(&inode(path))),
            // Two names change places; then both are there whether or not that is on the disk.
            Operation::Rename if path.exists() => {
                for entry in fs::read_dir(path.parent().unwrap()).unwrap().flatten() {
                    self.unnamed.remove(&entry.metadata().unwrap().ino());
                }
            }
            Operation::Rename | Operation::Remove => {}
        }
    }

    /// Learns the inodes of what the last operations have made.
    fn find_new(&mut self) {
        for path in std::mem::take(&mut self.new) {
            if let Ok(metadata) = fs::metadata(&path) {
                self.unnamed.insert(metadata.ino());
                if metadata.is_file() {
                    self.safe_bytes.entry(metadata.ino()).or_insert(0);
                }
            }
        }
    }

    fn take(&mut self, name: String) {
        self.find_new();
        let folder = self.images.join(self.taken.len().to_string());
        if self.watched.is_dir() {
            self.copy_folder(&self.watched, &folder);
        } else {
            fs::create_dir(&folder).unwrap();
        }
        let mut content = Vec::new();
        hash_below(&folder, &folder, &mut content);
        if self.taken.is_empty() || content != self.last {
            self.last = content;
            self.taken.push(Image { name, folder });
        } else {
            fs::remove_dir_all(folder).unwrap();
        }
    }

    fn copy_folder(&self, from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            // Another thread may remove it in this moment.
            let Ok(metadata) = entry.metadata() else { continue };
            let (path, to) = (entry.path(), to.join(entry.file_name()));
            if self.unsynced == Unsynced::Gone && self.unnamed.contains(&metadata.ino()) {
                continue;
            }
            if metadata.is_dir() {
                self.copy_folder(&path, &to);
            } else if metadata.is_file() {
                self.copy_file(&path, &to, metadata.ino());
            }
        }
    }

    fn copy_file(&self, from: &Path, to: &Path, inode: u64) {
        if fs::copy(from, to).is_err() {
            return;
        }
        let Some(safe) = self.safe_bytes.get(&inode) else { return };
        let file = File::options().write(true).open(to).unwrap();
        let length = file.metadata().unwrap().len();
        match self.unsynced {
            Unsynced::Kept => {}
            Unsynced::Gone => file.set_len(*safe).unwrap(),
            Unsynced::Torn => file.set_len(safe + (length - safe) / 2).unwrap(),
            Unsynced::Zeros => {
                file.write_all_at(&vec![0; (length - safe) as usize], *safe).unwrap();
            }
        }
    }
}

/// All files and folders below `folder`, relative to `root`, with hashes of their content.
fn hash_below(root: &Path, folder: &Path, found: &mut Vec<(PathBuf, blake3::Hash)>) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let content = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
        found.push((path.strip_prefix(root).unwrap().to_owned(), blake3::hash(&content)));
        if path.is_dir() {
            hash_below(root, &path, found);
        }
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// A disk that is gone from the `nth` operation on that `counts`, and the number of those that were
/// asked for.
pub(crate) fn dead_from(
    nth: usize,
    error: io::ErrorKind,
    counts: impl Fn(&Path) -> bool + Send + Sync + 'static,
) -> (Disk, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let disk = Disk::with_gate(move |operation, path| {
        let number = if counts(path) {
            seen.fetch_add(1, Ordering::Relaxed)
        } else {
            seen.load(Ordering::Relaxed)
        };
        // What does not count works as long as nothing has failed.
        if number < nth || (number == nth && !counts(path)) {
            return Ok(());
        }
        if number == nth && operation == Operation::Write && !path.exists() {
            // What reached the disk of a file whose writing never ended.
            fs::write(path, "ha").unwrap();
        }
        Err(error.into())
    });
    (disk, count)
}

/// All files below `folder` with their content, by path.
pub(crate) fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
        .into_iter()
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
        })
        .collect()
}
