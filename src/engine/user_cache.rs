//! The user's cache folder.

use std::path::{Path, PathBuf};

/// `$XDG_CACHE_HOME/patchtui`, else `~/.cache/patchtui`.
pub(super) fn user_cache() -> Option<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join(Path::new("patchtui")))
}
