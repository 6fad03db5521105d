//! Follows a run through its files: one that has ended, was copied here, or runs on another
//! machine.
//!
//! Needs neither socket nor lock. The files are read again when the length of one has changed, less
//! often if reading is slow. Start at [`follow`].

use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::control::files::{Signs, look, read_history};
use crate::control::{ControlError, EngineLink, Feed};
use crate::record::{History, Liveness, RunDirectory};

/// Reading takes at most one part in this many of the time.
const SHARE: u32 = 10;
/// Maximum number of messages waiting for the screen.
const FEED: usize = 4;

/// Finds which files of an ended run were changed, one sentence each.
type FindAltered = fn(&RunDirectory) -> Vec<String>;

/// Timing of the polling.
#[derive(Debug, Clone, Copy)]
struct PollPeriods {
    /// Polling interval for the file lengths.
    period: Duration,
    /// If the files have not grown for this long and no lock is held, the run has no engine.
    still: Duration,
}

const USUAL: PollPeriods =
    PollPeriods { period: Duration::from_secs(1), still: Duration::from_secs(15) };

/// Follows the files of `directory` until the feed is dropped. Must be called inside a tokio
/// runtime.
///
/// A run without an engine is a [`Feed::Ended`] with the content of its files and what
/// `find_altered` says about them; when they grow again, snapshots follow. Commands are dropped.
#[must_use]
pub fn follow(directory: RunDirectory, find_altered: FindAltered) -> EngineLink {
    follow_at(USUAL, directory, find_altered)
}

fn follow_at(pace: PollPeriods, directory: RunDirectory, find_altered: FindAltered) -> EngineLink {
    let (feed, feed_end) = mpsc::channel(FEED);
    let (commands, _) = mpsc::unbounded_channel();
    tokio::spawn(read_on(pace, directory, find_altered, feed));
    EngineLink { feed: feed_end, commands }
}

async fn read_on(
    pace: PollPeriods,
    directory: RunDirectory,
    find_altered: FindAltered,
    feed: Sender<Feed>,
) {
    let mut seen = None;
    let mut grew_at: Option<Instant> = None;
    let mut was_live = true;
    let mut has_end = false;
    loop {
        let Signs { lengths, liveness } = look(&directory).await;
        let is_new = seen != Some(lengths);
        if is_new && seen.is_some() {
            grew_at = Some(Instant::now());
        }
        let is_live =
            liveness == Liveness::Alive || grew_at.is_some_and(|at| at.elapsed() < pace.still);
        // Without locks, a run that has not reported its end may still be running on another
        // machine.
        let is_unknown = |has_end: bool| liveness == Liveness::Unknown && !has_end;
        let begun = Instant::now();
        let next = if is_new || is_live != was_live {
            let read =
                read_history(&directory).await.inspect(|history| has_end = history.end.is_some());
            match read {
                Ok(history) if is_live => Some(Feed::Snapshot(Box::new(history))),
                Ok(history) if is_unknown(has_end) => Some(Feed::Snapshot(Box::new(history))),
                Ok(history) => {
                    let directory = directory.clone();
                    let altered =
                        spawn_blocking(move || find_altered(&directory)).await.unwrap_or_default();
                    Some(Feed::Ended { history: Box::new(History { altered, ..history }) })
                }
                Err(error) => Some(Feed::Lost {
                    reason: error.to_string(),
                    retry_seconds: pace.period.as_secs_f64(),
                }),
            }
        } else if is_live {
            Some(Feed::Heartbeat)
        } else if is_unknown(has_end) {
            let reason = ControlError::NoLocks { name: directory.name() }.to_string();
            Some(Feed::Lost { reason, retry_seconds: pace.period.as_secs_f64() })
        } else {
            None
        };
        // What could not be read is read again later.
        seen = Some(lengths)
            .filter(|_| is_unknown(has_end) || !matches!(next, Some(Feed::Lost { .. })));
        was_live = is_live;
        let took = begun.elapsed();
        if let Some(next) = next
            && feed.send(next).await.is_err()
        {
            return;
        }
        tokio::select! {
            () = sleep(pace.period.max(took * SHARE)) => {}
            () = feed.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::record::{Record, RunEvent, Warning, encode};

    fn say(run: &RunDirectory, seq: u64) {
        let event = RunEvent::Warning(Warning { message: format!("line {seq}") });
        let line =
            encode(&Record { seq, at: "2026-03-01T10:00:00Z".into(), attempt: 1, event }).unwrap();
        File::options()
            .create(true)
            .append(true)
            .open(run.events())
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
    }

    #[test]
    fn a_run_whose_lock_tells_nothing_is_not_taken_for_ended() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("mounted")).unwrap();
        say(&run, 1);
        // It cannot be opened, as on a file system without locks.
        std::os::unix::fs::symlink("lock", run.lock()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pace =
            PollPeriods { period: Duration::from_millis(5), still: Duration::from_millis(50) };
        runtime.block_on(async {
            let mut link = follow_at(pace, run.clone(), |_| Vec::new());
            let Some(Feed::Snapshot(history)) = link.feed.recv().await else {
                panic!("its files can be read")
            };
            assert_eq!(history.last_seq, 1);
            let Some(Feed::Lost { reason, .. }) = link.feed.recv().await else {
                panic!("nobody knows whether it runs")
            };
            assert!(reason.contains("its file system has no file locks"), "{reason}");
        });
    }

    #[test]
    fn a_run_without_an_engine_is_read_once_and_again_when_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("copied")).unwrap();
        say(&run, 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pace =
            PollPeriods { period: Duration::from_millis(5), still: Duration::from_millis(50) };
        runtime.block_on(async {
            let mut link = follow_at(pace, run.clone(), |_| Vec::new());
            let Some(Feed::Ended { history }) = link.feed.recv().await else {
                panic!("no engine is here")
            };
            assert_eq!(history.last_seq, 1);
            say(&run, 2);
            let Some(Feed::Snapshot(history)) = link.feed.recv().await else {
                panic!("the files grow")
            };
            assert_eq!(history.last_seq, 2);
            // Some time after the last line, the run counts as ended.
            loop {
                match link.feed.recv().await {
                    Some(Feed::Heartbeat) => {}
                    Some(Feed::Ended { history }) => break assert_eq!(history.last_seq, 2),
                    other => panic!("{other:?}"),
                }
            }
        });
    }
}
