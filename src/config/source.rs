//! The files and built-in configurations that a configuration is read from, and what they extend.
//!
//! The only part of `config` that reads configuration files. Start at [`read_with_bases`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::error::{ConfigError, Origin};
use crate::config::kind::clean_path;
use crate::config::layers::{Document, Layer, ParsedDocument};
use crate::text::nearest::distance;

/// Built-in configurations: name and text.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("demo", include_str!("../../configs/demo.toml")),
    ("continue", include_str!("../../configs/continue.toml")),
    ("paper-370m", include_str!("../../configs/paper-370m.toml")),
    ("paper-780m", include_str!("../../configs/paper-780m.toml")),
    ("paper-1.3b", include_str!("../../configs/paper-1.3b.toml")),
    ("paper-2.7b", include_str!("../../configs/paper-2.7b.toml")),
];

/// Maximum size of a configuration file, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Names of the built-in configurations.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// Where a configuration is read from.
pub(crate) enum ConfigSource {
    BuiltIn { name: &'static str, text: &'static str },
    File { shown: PathBuf, absolute: PathBuf },
}

impl ConfigSource {
    /// A built-in name wins over a file of that name; `./name` selects the file. If `books` is not
    /// a file, `books.toml` is tried.
    pub(crate) fn find(source: &str, shown_folder: &Path, folder: &Path) -> Self {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == source) {
            return Self::BuiltIn { name, text };
        }
        let file = |source: &str| {
            (clean_path(Path::new(source), shown_folder), clean_path(Path::new(source), folder))
        };
        let (shown, absolute) = file(source);
        let with_ending = file(&format!("{source}.toml"));
        let is_short = (absolute.is_dir() || !absolute.exists()) && with_ending.1.is_file();
        let (shown, absolute) = if is_short { with_ending } else { (shown, absolute) };
        Self::File { shown, absolute }
    }

    pub(crate) fn read(
        &self,
        asked_by: Option<&Origin>,
        folder: &Path,
    ) -> Result<ParsedDocument, ConfigError> {
        match self {
            Self::BuiltIn { name, text } => {
                Document { text, origin: &|_| Origin::BuiltIn { name: (*name).to_owned() }, folder }
                    .read()
            }
            Self::File { shown, absolute } => {
                let text =
                    read_text(absolute).map_err(|error| unreadable(shown, error, asked_by))?;
                // Some editors write a byte order mark at the start.
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                Document {
                    text,
                    origin: &|line| Origin::File { path: shown.clone(), line },
                    folder,
                }
                .read()
            }
        }
    }

    /// Base of relative paths; a built-in configuration uses the folder of the file that names it.
    pub(crate) fn folder<'a>(&'a self, named_in: &'a Path) -> &'a Path {
        match self {
            Self::BuiltIn { .. } => named_in,
            Self::File { absolute, .. } => absolute.parent().unwrap_or(named_in),
        }
    }

    fn shown_folder(&self) -> &Path {
        match self {
            Self::BuiltIn { .. } => Path::new(""),
            Self::File { shown, .. } => shown.parent().unwrap_or(Path::new("")),
        }
    }

    pub(crate) fn stem(&self) -> String {
        match self {
            Self::BuiltIn { name, .. } => (*name).to_owned(),
            Self::File { absolute, .. } => {
                absolute.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    /// Unique key of this source, to detect cycles.
    fn identity(&self) -> String {
        match self {
            Self::BuiltIn { name, .. } => (*name).to_owned(),
            Self::File { absolute, .. } => absolute.display().to_string(),
        }
    }
}

/// Reads `place`, which was named in the folder `named_in`, and merges it over what it extends;
/// `trail` lists the sources so far.
pub(crate) fn read_with_bases(
    place: &ConfigSource,
    asked_by: Option<&Origin>,
    named_in: &Path,
    trail: &mut Vec<String>,
) -> Result<Layer, ConfigError> {
    let is_circle = trail.contains(&place.identity());
    trail.push(place.identity());
    if let (true, Some(origin)) = (is_circle, asked_by) {
        return Err(ConfigError::Circle { origin: origin.clone(), chain: std::mem::take(trail) });
    }
    let folder = place.folder(named_in);
    let ParsedDocument { layer, extends } = place.read(asked_by, folder)?;
    let Some((base, origin)) = extends else {
        return Ok(layer);
    };
    let base = ConfigSource::find(&base, place.shown_folder(), folder);
    let mut below = read_with_bases(&base, Some(&origin), folder, trail)?;
    // The name applies to its own file only: two files that extend it are two runs.
    below.leaves.remove("name");
    Ok(layer.put_over(below))
}

/// Reads a file of limited size, since a device may never end.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {} MB", MAX_BYTES >> 20)));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: io::Error, asked_by: Option<&Origin>) -> ConfigError {
    if error.kind() != io::ErrorKind::NotFound {
        return ConfigError::Unreadable { path: path.to_owned(), error };
    }
    let source_name = path.display().to_string();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut built_in: Vec<&str> = built_in_names().collect();
    built_in.sort_by_key(|name| distance(name, &stem));
    ConfigError::NotFound { source_name, asked_by: asked_by.cloned(), built_in }
}
