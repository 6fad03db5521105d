//! Cached results of passed checks, in the user's cache folder: one file per device, driver,
//! program and set of shapes.
//!
//! A file that cannot be read or written only costs another check. Start at [`Cache::of_user`].

use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde_json::json;

use crate::engine::self_check::report::Report;
use crate::engine::self_check::shapes::Shape;
use crate::engine::user_cache::user_cache;
use crate::record::replace_file;

/// Incremented when the check changes.
const VERSION: u32 = 1;

/// A cache folder, or none.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// A cache that stores nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// The cache in `folder`.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// The cache in the user's cache folder; without such a folder nothing is stored.
    pub fn of_user() -> Self {
        Self { folder: user_cache().map(|folder| folder.join("self-check")) }
    }

    /// The key of a check of this device on `shapes` by this program.
    pub fn key(&self, device: &str, identity: &str, shapes: &[Shape]) -> String {
        // A rebuilt program may compute differently under the same version.
        let program = std::env::current_exe().and_then(fs::metadata).ok().map(|file| {
            let changed = file
                .modified()
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map(|time| time.as_nanos().to_string());
            (file.len(), changed)
        });
        let facts = json!({ "check": VERSION, "device": device, "identity": identity, "version": env!("CARGO_PKG_VERSION"), "program": program, "shapes": format!("{shapes:?}") });
        blake3::hash(facts.to_string().as_bytes()).to_hex().to_string()
    }

    /// The report of a passed check.
    pub fn passed(&self, key: &str) -> Option<Report> {
        let report: Report = serde_json::from_slice(&fs::read(self.file(key)?).ok()?).ok()?;
        report.failure().is_none().then_some(Report { is_remembered: true, ..report })
    }

    /// Stores a passed check.
    pub fn remember(&self, key: &str, report: &Report) {
        let Some(file) = self.file(key) else { return };
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            let text = serde_json::to_string_pretty(report)?;
            replace_file(&file, (text + "\n").as_bytes())
        });
        if let Err(error) = written {
            tracing::warn!(
                "{} cannot be written; this device will be checked again: {error}",
                file.display()
            );
        }
    }

    fn file(&self, key: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{key}.json")))
    }
}
