//! Finds runs: by path, or by name in the runs folder and in the per-user index.
//!
//! The index is a folder of small files, one per run directory, so that several processes can add
//! to it without a lock. It is a convenience: a run works without it, and a failed write to it is
//! ignored.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::advice::{Advice, Audience, USAGE};
use crate::record::directory::is_being_removed;
use crate::record::files::read_small;
use crate::record::{RunDirectory, is_alive, replace_file};
use crate::text::nearest::nearest_name;

/// The index of a user.
#[derive(Debug, Clone)]
pub struct RunIndex {
    folder: Option<PathBuf>,
}

/// Why no run was found.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FindError {
    /// There is nothing at the path.
    #[error("{path} does not exist")]
    Missing {
        /// Path as the user wrote it.
        path: PathBuf,
    },
    /// The path is not a run directory.
    #[error("{path} is not a run directory")]
    NotARun {
        /// Path as the user wrote it.
        path: PathBuf,
    },
    /// No run has that name.
    #[error("there is no run named {name:?}")]
    Unknown {
        /// Name as the user wrote it.
        name: String,
        /// The most similar existing name.
        nearest: Option<String>,
    },
    /// Several runs have that name, and they match equally well.
    #[error("there are {} runs named {name:?}: {}", .paths.len(), listed(.paths))]
    Ambiguous {
        /// Name as the user wrote it.
        name: String,
        /// Their directories; at least two.
        paths: Vec<PathBuf>,
    },
    /// There are no runs at all.
    #[error("there are no runs yet")]
    NoRuns,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
}

impl Advice for FindError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => {
                format!("did you mean {nearest:?}? List all with: patchtui runs")
            }
            Self::Missing { .. } | Self::NotARun { .. } | Self::Unknown { nearest: None, .. } => {
                "list all runs with: patchtui runs".into()
            }
            Self::Ambiguous { paths, .. } => {
                format!(
                    "use the path instead of the name, e.g. {}",
                    paths.first().map_or_else(String::new, |path| path.display().to_string())
                )
            }
            Self::NoRuns => "start one with: patchtui run demo".into(),
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}

impl RunIndex {
    /// The index in `$XDG_STATE_HOME`, or in `~/.local/state`; without a home directory an empty
    /// one that stores nothing.
    #[must_use]
    pub fn of_user() -> Self {
        let folder = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let state = folder("XDG_STATE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/state")));
        Self { folder: state.map(|state| state.join("patchtui/runs")) }
    }

    /// The index in `folder`.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(folder.into()) }
    }

    /// Adds `directory`.
    pub fn add(&self, directory: &RunDirectory) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let entry = serde_json::to_vec(&Entry { path: directory.path().to_path_buf() })?;
        replace_file(&folder.join(format!("{}.json", directory.id())), &entry)
    }

    /// Removes `directory`; does nothing if it is not in the index.
    pub fn forget(&self, directory: &RunDirectory) {
        if let Some(folder) = &self.folder {
            // A leftover entry is removed by the next reader, since the run is gone.
            let _ = fs::remove_file(folder.join(format!("{}.json", directory.id())));
        }
    }

    /// All runs in the index that exist now.
    ///
    /// A deleted run is removed; a run whose parent folder is gone as well may be on an unmounted
    /// disk, and is kept.
    #[must_use]
    pub fn runs(&self) -> Vec<RunDirectory> {
        let Some(files) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else {
            return Vec::new();
        };
        let mut runs = Vec::new();
        for file in files
            .flatten()
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        {
            let Some(entry) =
                read_small(&file).ok().and_then(|text| serde_json::from_slice::<Entry>(&text).ok())
            else {
                continue;
            };
            let directory = RunDirectory::new(&entry.path);
            if directory.is_run() {
                runs.push(directory);
            } else if !entry.path.exists() && entry.path.parent().is_some_and(Path::exists) {
                let _ = fs::remove_file(file);
            }
        }
        runs
    }

    /// All runs in `runs_dir` and in the index, each once, newest first.
    #[must_use]
    pub fn all(&self, runs_dir: &Path) -> Vec<RunDirectory> {
        let mut runs = runs_in(runs_dir);
        runs.extend(self.runs());
        runs.sort_by(|a, b| a.path().cmp(b.path()));
        runs.dedup();
        runs.sort_by_cached_key(|run| std::cmp::Reverse(last_activity(run)));
        runs
    }

    /// Finds the run for `text`, a path or a name. Of several runs of that name, a running one
    /// comes first, then one in `runs_dir` or the current folder.
    ///
    /// # Errors
    /// When there is none, or when two match equally well.
    pub fn find(&self, text: &str, runs_dir: &Path) -> Result<RunDirectory, FindError> {
        let as_path = RunDirectory::new(text);
        if text.contains('/') {
            let path = PathBuf::from(text);
            return match as_path.is_run() {
                true => Ok(as_path),
                false if path.exists() => Err(FindError::NotARun { path }),
                false => Err(FindError::Missing { path }),
            };
        }
        let here = [as_path, RunDirectory::new(runs_dir.join(text))];
        let all = self.all(runs_dir);
        let mut named: Vec<RunDirectory> =
            here.iter().filter(|run| run.is_run()).cloned().collect();
        named.extend(all.iter().filter(|run| run.name() == text && !here.contains(run)).cloned());
        named.dedup();
        let fit = |run: &RunDirectory| (is_alive(run), here.contains(run));
        let Some(best) = named.iter().map(fit).max() else {
            let known = all.iter().map(RunDirectory::name).map(|name| (name.clone(), name));
            let nearest = nearest_name(text, 1 + text.len() / 3, known);
            return Err(FindError::Unknown { name: text.to_owned(), nearest });
        };
        named.retain(|run| fit(run) == best);
        match named.as_slice() {
            [run] => Ok(run.clone()),
            runs => Err(FindError::Ambiguous {
                name: text.to_owned(),
                paths: runs.iter().map(|run| run.path().to_path_buf()).collect(),
            }),
        }
    }

    /// The default run: the newest running run, else the newest run.
    pub fn newest(&self, runs_dir: &Path) -> Result<RunDirectory, FindError> {
        let all = self.all(runs_dir);
        all.iter().find(|run| is_alive(run)).or(all.first()).cloned().ok_or(FindError::NoRuns)
    }
}

impl RunDirectory {
    /// Sixteen hexadecimal digits that identify this directory, independent of the path to it.
    #[must_use]
    pub fn id(&self) -> String {
        blake3::hash(self.path().as_os_str().as_encoded_bytes()).to_hex().chars().take(16).collect()
    }
}

/// Time of the last activity in `run`.
#[must_use]
pub fn last_activity(run: &RunDirectory) -> Option<SystemTime> {
    let files = [run.metrics(), run.events(), run.engine_json(), run.config()];
    files.iter().filter_map(|file| fs::metadata(file).ok()?.modified().ok()).max()
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

fn runs_in(runs_dir: &Path) -> Vec<RunDirectory> {
    let Ok(entries) = fs::read_dir(runs_dir) else { return Vec::new() };
    let folders =
        entries.flatten().map(|entry| entry.path()).filter(|path| !is_being_removed(path));
    folders.map(RunDirectory::new).filter(RunDirectory::is_run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::directory::run_at;

    #[test]
    fn a_run_is_found_by_path_by_name_and_from_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        let index = RunIndex::at(folder.path().join("state"));
        let books = run_at(&here.join("books"));
        index.add(&books).unwrap();
        assert_eq!(index.find(here.join("books").to_str().unwrap(), &there), Ok(books.clone()));
        assert_eq!(index.find("books", &here), Ok(books.clone()));
        assert_eq!(index.find("books", &there), Ok(books.clone()));
        assert_eq!(
            index.find("boks", &there),
            Err(FindError::Unknown { name: "boks".into(), nearest: Some("books".into()) })
        );
        assert_eq!(
            index.find("./nothing", &there),
            Err(FindError::Missing { path: "./nothing".into() })
        );
        let nearer = run_at(&there.join("books"));
        assert_eq!(index.find("books", &there), Ok(nearer));
        assert_eq!(index.all(&here), vec![books]);
    }

    #[test]
    fn of_two_runs_of_one_name_the_live_one_then_the_near_one_is_meant_and_no_other_is_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let index = RunIndex::at(folder.path().join("state"));
        let [a, b, c] =
            ["a", "b", "c"].map(|place| run_at(&folder.path().join(place).join("books")));
        for run in [&a, &b, &c] {
            index.add(run).unwrap();
        }
        let find = |place: &str| index.find("books", &folder.path().join(place));
        let paths_of = |found: Result<RunDirectory, FindError>| match found {
            Err(FindError::Ambiguous { mut paths, .. }) => {
                paths.sort();
                paths
            }
            other => panic!("{other:?}"),
        };
        let paths = |runs: &[&RunDirectory]| {
            runs.iter().map(|run| run.path().to_path_buf()).collect::<Vec<_>>()
        };
        assert_eq!(find("a"), Ok(a.clone()));
        assert_eq!(paths_of(find("elsewhere")), paths(&[&a, &b, &c]));
        let lock = crate::record::RunLock::acquire(&b).unwrap();
        assert_eq!([find("a"), find("elsewhere")], [Ok(b.clone()), Ok(b.clone())]);
        let _other = crate::record::RunLock::acquire(&c).unwrap();
        assert_eq!(paths_of(find("a")), paths(&[&b, &c]));
        assert_eq!(find("c"), Ok(c.clone()));
        let error = find("a").unwrap_err();
        assert!(
            error.to_string().contains("b/books") && error.to_string().contains("c/books"),
            "{error}"
        );
        drop(lock);
        assert_eq!(find("a"), Ok(c));
    }

    #[test]
    fn a_deleted_run_is_forgotten_and_an_unmounted_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let index = RunIndex::at(&state);
        let deleted = run_at(&folder.path().join("runs/deleted"));
        let unmounted = run_at(&folder.path().join("disk/runs/far"));
        index.add(&deleted).unwrap();
        index.add(&unmounted).unwrap();
        fs::remove_dir_all(deleted.path()).unwrap();
        fs::rename(folder.path().join("disk"), folder.path().join("elsewhere")).unwrap();
        assert_eq!(index.runs(), vec![]);
        fs::rename(folder.path().join("elsewhere"), folder.path().join("disk")).unwrap();
        assert_eq!(index.runs(), vec![unmounted]);
        assert_eq!(fs::read_dir(state).unwrap().count(), 1);
    }

    #[test]
    fn an_alive_run_comes_before_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let index = RunIndex::at(folder.path().join("state"));
        let runs_dir = folder.path().join("runs");
        assert_eq!(index.newest(&runs_dir), Err(FindError::NoRuns));
        let (old, new) = (run_at(&runs_dir.join("old")), run_at(&runs_dir.join("new")));
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(old.config()).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(index.newest(&runs_dir), Ok(new));
        let _lock = crate::record::RunLock::acquire(&old).unwrap();
        assert_eq!(index.newest(&runs_dir), Ok(old));
    }
}
