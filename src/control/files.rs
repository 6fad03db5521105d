//! A run's files and lock, read without blocking the runtime.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::control::ControlError;
use crate::record::{History, LineFile, Liveness, RunDirectory, is_alive};

/// Polling interval for the end of a process that announced its end.
const GONE_YET: Duration = Duration::from_millis(20);
/// Time limit for that.
const GOODBYE: Duration = Duration::from_secs(5);

/// File lengths and lock: they show that a run changes, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Lengths of its files.
    pub lengths: [u64; LineFile::ALL.len()],
    /// State of its lock.
    pub liveness: Liveness,
}

/// Examines the run in `directory`.
pub(crate) async fn look(directory: &RunDirectory) -> Signs {
    let directory = directory.clone();
    let look = move || {
        let length = |file: LineFile| {
            std::fs::metadata(file.path(&directory)).map_or(0, |metadata| metadata.len())
        };
        Signs { lengths: LineFile::ALL.map(length), liveness: Liveness::of(&directory) }
    };
    spawn_blocking(look)
        .await
        .unwrap_or(Signs { lengths: [0; LineFile::ALL.len()], liveness: Liveness::Unknown })
}

/// Reads the files of a run.
pub(crate) async fn read_history(directory: &RunDirectory) -> Result<History, ControlError> {
    let (directory, name) = (directory.clone(), directory.name());
    let read = spawn_blocking(move || History::read(&directory)).await;
    let files_error = |source| ControlError::Files { name, source };
    match read {
        Ok(Ok((history, _))) => Ok(history),
        Ok(Err(source)) => Err(files_error(source)),
        Err(error) => Err(files_error(std::io::Error::other(error))),
    }
}

/// Waits for the process to exit, shortly after it has reported the end of its run.
pub(crate) async fn wait_until_gone(directory: &RunDirectory) {
    let limit = Instant::now() + GOODBYE;
    while is_alive(directory) && Instant::now() < limit {
        sleep(GONE_YET).await;
    }
}
