//! Prepared tokens on disk, keyed by everything they were made from.
//!
//! `<cache>/<key>/` holds a manifest, one file of ids per stream, and a table of the documents if
//! some are held out. The key hashes everything that determines the ids: options, tokenizer, and
//! path, size and times of change of each file (or grammar, seed and length), so a folder is never
//! stale, only absent or broken. It is built under a temporary name, synced and renamed;
//! a folder is used only if its manifest matches its own hash and its files have the sizes stated
//! there, and is rebuilt otherwise. The content of the files is checked against the manifest's
//! hashes when it is read (`stream.rs`).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::data::stream::StreamOutline;
use crate::data::{DataError, PrepareReport, TokenStream};
use crate::disk::Disk;

/// Incremented whenever the same text and options would produce different files.
const FORMAT_VERSION: u32 = 2;
const MANIFEST: &str = "manifest.json";
const DOCUMENTS: &str = "text.documents";
/// Follows the name of the folder that is being built.
const HALF_BUILT: &str = ".tmp-";
/// A half-built folder that is older than this was left behind by a process that died.
const LEFT_BEHIND: Duration = Duration::from_hours(24);

/// Content of a cache folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheManifest {
    format_version: u32,
    /// Each stream's file.
    pub streams: Vec<StreamOutline>,
    /// The table of the documents of the first stream, if a share of them may be held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    documents: Option<StreamOutline>,
    /// Hash of all ids and of the tokenizer.
    pub fingerprint: String,
    pub report: PrepareReport,
}

/// Content of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: CacheManifest,
    /// Hash of the manifest as compact JSON.
    blake3: String,
}

/// Prepared streams.
#[derive(Debug)]
pub(crate) struct Cached {
    pub streams: Vec<TokenStream>,
    /// The table of the documents of the first stream.
    pub documents: Option<TokenStream>,
    pub manifest: CacheManifest,
}

/// A folder that is being built; dropped before [`Building::publish`], it is removed.
#[derive(Debug)]
pub(crate) struct Building {
    folder: PathBuf,
    target: PathBuf,
    disk: Disk,
}

impl CacheManifest {
    pub(crate) fn new(
        streams: Vec<StreamOutline>,
        documents: Option<StreamOutline>,
        fingerprint: String,
        report: PrepareReport,
    ) -> Self {
        Self { format_version: FORMAT_VERSION, streams, documents, fingerprint, report }
    }

    /// Reads the manifest in `folder`; `None` if it is absent or damaged.
    fn read(folder: &Path) -> Option<Self> {
        let sealed: Sealed = serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()?;
        let is_whole = sealed.manifest.hash() == sealed.blake3
            && sealed.manifest.format_version == FORMAT_VERSION;
        (is_whole && !sealed.manifest.streams.is_empty()).then_some(sealed.manifest)
    }

    fn hash(&self) -> String {
        // Serialising to memory fails only for types that JSON does not have.
        blake3::hash(&serde_json::to_vec(self).unwrap_or_default()).to_hex().to_string()
    }
}

/// Name of the folder for `parts`.
pub(crate) fn key(parts: &impl Serialize) -> String {
    // Serialising to memory fails only for types that JSON does not have.
    let bytes = serde_json::to_vec(&(FORMAT_VERSION, parts)).unwrap_or_default();
    assert!(!bytes.is_empty(), "the parts of a cache key are plain data");
    blake3::hash(&bytes).to_hex()[..32].to_owned()
}

/// Opens a complete folder of `num_streams` streams of ids below `vocab_size`; `None` if it is
/// absent or broken.
pub(crate) fn open(folder: &Path, num_streams: usize, vocab_size: usize) -> Option<Cached> {
    let manifest =
        CacheManifest::read(folder).filter(|manifest| manifest.streams.len() == num_streams)?;
    let open = |name: &str, outline: &StreamOutline, vocab_size| {
        TokenStream::open(&folder.join(name), outline, vocab_size).ok().flatten()
    };
    let streams = (0..)
        .zip(&manifest.streams)
        .map(|(index, outline)| open(stream_name(index), outline, vocab_size))
        .collect::<Option<_>>()?;
    // The table holds lengths and hashes, not token ids.
    let documents = match &manifest.documents {
        Some(outline) => Some(open(DOCUMENTS, outline, usize::MAX)?),
        None => None,
    };
    Some(Cached { streams, documents, manifest })
}

/// Opens the complete folder in `cache` whose ids have `fingerprint`, whatever its text is by now.
pub(crate) fn find(
    cache: &Path,
    fingerprint: &str,
    num_streams: usize,
    vocab_size: usize,
) -> Option<Cached> {
    // A half-built folder may look complete, but its builder may still give it up.
    let is_published = |name: &OsStr| !name.to_string_lossy().contains(HALF_BUILT);
    let folders = fs::read_dir(cache)
        .ok()?
        .flatten()
        .filter(|entry| is_published(&entry.file_name()))
        .map(|entry| entry.path());
    let mut fitting = folders.filter(|folder| {
        CacheManifest::read(folder).is_some_and(|manifest| manifest.fingerprint == fingerprint)
    });
    fitting.find_map(|folder| open(&folder, num_streams, vocab_size))
}

impl Building {
    /// Starts a folder that will become `target`, and removes leftovers of dead processes.
    pub(crate) fn start(target: &Path, disk: &Disk) -> Result<Self, DataError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let cache = target.parent().unwrap_or(target);
        disk.create_folders(cache).map_err(|error| DataError::writing(cache, 0, error))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        sweep(cache, &format!("{name}{HALF_BUILT}"));
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = cache.join(format!("{name}{HALF_BUILT}{}-{count}", std::process::id()));
        // A dead process with the same id may have left one.
        let _ = disk.remove_folder(&folder);
        disk.create_folder(&folder).map_err(|error| DataError::writing(&folder, 0, error))?;
        Ok(Self { folder, target: target.to_owned(), disk: disk.clone() })
    }

    /// Path for stream number `index`.
    pub(crate) fn stream_path(&self, index: usize) -> PathBuf {
        self.folder.join(stream_name(index))
    }

    /// Path for the table of the documents.
    pub(crate) fn documents_path(&self) -> PathBuf {
        self.folder.join(DOCUMENTS)
    }

    /// Publishes the folder atomically.
    pub(crate) fn publish(
        self,
        manifest: CacheManifest,
        vocab_size: usize,
    ) -> Result<Cached, DataError> {
        let path = self.folder.join(MANIFEST);
        let num_streams = manifest.streams.len();
        let sealed = Sealed { blake3: manifest.hash(), manifest };
        let text = serde_json::to_vec_pretty(&sealed)
            .map_err(|error| DataError::writing(&path, 0, error.into()))?;
        let needed = text.len() as u64;
        let disk = &self.disk;
        let written = disk
            .write(&path, &text)
            .and_then(|()| disk.sync(&path))
            .and_then(|()| disk.sync(&self.folder));
        written.map_err(|error| DataError::writing(&path, needed, error))?;
        let failed = |error| DataError::writing(&self.target, needed, error);
        if let Err(error) = disk.rename(&self.folder, &self.target) {
            // Another process may have built the same folder in the meantime; only a broken folder
            // is replaced.
            if let Some(cached) = open(&self.target, num_streams, vocab_size) {
                return Ok(cached);
            }
            match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {}
                _ => return Err(failed(error)),
            }
            disk.remove_folder(&self.target)
                .and_then(|()| disk.rename(&self.folder, &self.target))
                .map_err(failed)?;
        }
        if let Some(cache) = self.target.parent() {
            disk.sync(cache).map_err(failed)?;
        }
        open(&self.target, num_streams, vocab_size).ok_or_else(|| {
            failed(io::Error::other("the file reads back differently from what was written"))
        })
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // After publishing, this name no longer exists.
        let _ = self.disk.remove_folder(&self.folder);
    }
}

fn stream_name(index: usize) -> &'static str {
    if index == 0 { "text.tokens" } else { "validation.tokens" }
}

/// Removes old half-built folders; those that cannot be removed are left alone.
fn sweep(cache: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(prefix);
        if is_ours
            && last_touched(&entry.path())
                .is_some_and(|touched| touched.elapsed().is_ok_and(|age| age > LEFT_BEHIND))
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// When the folder or a file in it was last written.
fn last_touched(folder: &Path) -> Option<SystemTime> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files
        .chain([folder.to_owned()])
        .filter_map(|path| fs::metadata(path).ok()?.modified().ok())
        .max()
}
