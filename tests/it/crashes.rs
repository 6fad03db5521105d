//! A crash at every operation on the disk of a preparation and of a run: whatever comes next ends
//! as if nothing had happened.

#[cfg(feature = "engine")]
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use patchtui::config::DataConfig;
use patchtui::data::{DataError, PrepareRequest, Prepared, prepare_on};
use patchtui::disk::Disk;
#[cfg(feature = "engine")]
use patchtui::disk::Operation;
#[cfg(feature = "engine")]
use patchtui::record::Outcome;

use crate::data::Workplace;
use crate::power::{PowerCuts, Unsynced, content, dead_from};
#[cfg(feature = "engine")]
use crate::resume::{final_bytes, tiny_config, train_on};

/// Files by name.
#[cfg(feature = "engine")]
type Bytes = BTreeMap<String, Vec<u8>>;

/// A preparation, and what it makes without an interruption.
struct Preparation {
    work: Workplace,
    data: DataConfig,
    fingerprint: String,
    name: String,
    expected: Vec<(String, Vec<u8>)>,
}

impl Preparation {
    /// Of one stream or two, of which the first takes several writes.
    fn new(num_streams: usize) -> Self {
        let work = Workplace::new(&[
            ("a.txt", &"Nobody said a word. ".repeat(35_000)),
            ("v.txt", "But the cat did."),
        ]);
        let mut data = work.config(&["a.txt"]);
        if num_streams == 2 {
            data = DataConfig {
                validation_share: None,
                validation_files: Some(vec![work.path("v.txt")]),
                ..data
            };
        }
        let whole = work.path("whole");
        let fingerprint = prepare_in(&whole, &data, &Disk::default()).unwrap().fingerprint;
        let folder = fs::read_dir(&whole).unwrap().next().unwrap().unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        Self { work, data, fingerprint, name, expected: content(&folder) }
    }

    /// A folder of prepared tokens with a damaged one in the place of this one's.
    fn broken(&self, cache: &Path) {
        let folder = cache.join(&self.name);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in &self.expected {
            fs::write(folder.join(name), &bytes[..bytes.len() / 2]).unwrap();
        }
    }

    /// The next preparation in what a crash has left.
    fn goes_on(&self, cache: &Path, what: &str) {
        let prepared = prepare_in(cache, &self.data, &Disk::default())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(prepared.fingerprint, self.fingerprint, "{what}");
        assert!(content(&cache.join(&self.name)) == self.expected, "{what}: other bytes");
        assert!(prepare_in(cache, &self.data, &Disk::default()).unwrap().is_reused, "{what}");
    }
}

fn prepare_in(cache: &Path, data: &DataConfig, disk: &Disk) -> Result<Prepared, DataError> {
    prepare_on(disk, &Workplace::request(data, cache), &mut |_, _, _| ControlFlow::Continue(()))
}

#[test]
fn wherever_the_power_goes_off_in_a_preparation_the_next_one_gives_the_same_bytes() {
    for (num_streams, over_broken) in [(1, false), (2, false), (1, true)] {
        let preparation = Preparation::new(num_streams);
        for unsynced in Unsynced::ALL {
            let cache = preparation.work.path(&format!("cache-{unsynced:?}"));
            if over_broken {
                preparation.broken(&cache);
            }
            let (cuts, disk) = PowerCuts::of(&cache, unsynced, |_, _| true);
            prepare_in(&cache, &preparation.data, &disk).unwrap();
            let images = cuts.images();
            assert!(
                images.len() > if unsynced == Unsynced::Gone { 1 } else { 5 },
                "{} images",
                images.len()
            );
            // Tokens reported as prepared survive a power cut after a power cut.
            let last = &images.last().unwrap().folder;
            assert!(
                prepare_in(last, &preparation.data, &Disk::default()).unwrap().is_reused,
                "{unsynced:?}: not everything was synced"
            );
            for image in images {
                preparation.goes_on(&image.folder, &format!("{unsynced:?} before {}", image.name));
            }
        }
    }
}

#[test]
fn whatever_fails_in_a_preparation_the_next_one_gives_the_same_bytes() {
    for (num_streams, over_broken) in [(1, false), (2, false), (1, true)] {
        let preparation = Preparation::new(num_streams);
        for nth in 0.. {
            let what = format!("{num_streams} streams, operation {nth}");
            let cache = preparation.work.path(&format!("cache-{nth}"));
            if over_broken {
                preparation.broken(&cache);
            }
            let error =
                if nth % 2 == 0 { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
            let (disk, count) = dead_from(nth, error, |_| true);
            let prepared = prepare_in(&cache, &preparation.data, &disk);
            if count.load(Ordering::Relaxed) <= nth {
                assert!(nth > 10, "only {nth} operations");
                break;
            }
            match prepared {
                Err(DataError::DiskFull { .. } | DataError::Unwritable { .. }) => {}
                Err(other) => panic!("{what}: {other}"),
                // What failed is the removal of a name that is not there any more.
                Ok(prepared) => assert_eq!(prepared.fingerprint, preparation.fingerprint, "{what}"),
            }
            preparation.goes_on(&cache, &what);
        }
    }
}

/// A run looks for its tokens by their fingerprint if its text has changed; what has no name of its
/// own yet is not among them.
#[test]
fn a_folder_that_was_never_completed_is_not_taken_for_the_tokens_of_a_run() {
    let preparation = Preparation::new(1);
    let cache = preparation.work.path("cache");
    let (cuts, disk) = PowerCuts::of(&cache, Unsynced::Kept, |_, _| true);
    prepare_in(&cache, &preparation.data, &disk).unwrap();
    fs::write(preparation.work.path("a.txt"), "Another text, which has as many words as it needs.")
        .unwrap();
    let (mut found, mut made) = (0, 0);
    for image in cuts.images() {
        let is_complete = image.folder.join(&preparation.name).exists();
        let request = PrepareRequest {
            trained_on: Some(&preparation.fingerprint),
            ..Workplace::request(&preparation.data, &image.folder)
        };
        let prepared =
            prepare_on(&Disk::default(), &request, &mut |_, _, _| ControlFlow::Continue(()))
                .unwrap();
        assert_eq!(
            (prepared.text_has_changed, prepared.fingerprint == preparation.fingerprint),
            (is_complete, is_complete),
            "before {}",
            image.name
        );
        *(if is_complete { &mut found } else { &mut made }) += 1;
    }
    assert!(found > 0 && made > 0, "{found} found, {made} made");
}

/// Three steps of the tiny network with a stage switch after the second, each of them saved.
#[cfg(feature = "engine")]
const SAVES: [&str; 7] = [
    "training.tokens=1536",
    "stages=[{patch_size=4,share=\"2/3\"},{patch_size=1}]",
    "schedule.warmup_steps=1",
    "evaluation.every_steps=1000",
    "activations.every_steps=1000",
    "samples.every_steps=1000",
    "checkpoint.every_steps=1",
];

/// What is left of a run is resumed, and ends as `expected` with a line for each step.
#[cfg(feature = "engine")]
fn run_goes_on(root: &Path, expected: &Bytes, what: &str) {
    let run = root.join("run");
    let end = train_on(Disk::default(), tiny_config(&SAVES), &run, |_| None);
    assert_eq!(end.outcome, Outcome::Completed, "{what}: {:?}", end.error);
    assert!(final_bytes(&run) == *expected, "{what}: the final checkpoint differs");
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let steps: BTreeSet<u64> = metrics
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(steps, BTreeSet::from([1, 2, 3]), "{what}: a step has no line of metrics");
}

#[cfg(feature = "engine")]
#[test]
fn wherever_the_power_goes_off_in_a_run_it_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for unsynced in [Unsynced::Kept, Unsynced::Gone] {
        let root = folder.path().join(format!("{unsynced:?}"));
        fs::create_dir(&root).unwrap();
        // From the time on when the first step is saved: the second ends a stage, the third the
        // run.
        let (cuts, disk) = PowerCuts::of(&root, unsynced, |operation, path| {
            operation == Operation::Rename && path.ends_with("step-00000001")
        });
        let end = train_on(disk, tiny_config(&SAVES), &root.join("run"), |_| None);
        assert_eq!((end.outcome, end.step), (Outcome::Completed, 3), "{:?}", end.error);
        let expected = final_bytes(&root.join("run"));
        let images = cuts.images();
        assert!(images.len() > 10, "{} images", images.len());
        for image in images {
            run_goes_on(&image.folder, &expected, &format!("{unsynced:?} before {}", image.name));
        }
    }
}

#[cfg(feature = "engine")]
#[test]
fn wherever_the_disk_of_a_run_dies_it_can_be_resumed_and_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole/run");
    train_on(Disk::default(), tiny_config(&SAVES), &whole, |_| None);
    let expected = final_bytes(&whole);
    for nth in 0.. {
        let root = folder.path().join(nth.to_string());
        // Of the save in the middle of the run; from then on lines are lost, too.
        let (disk, count) = dead_from(nth, io::ErrorKind::StorageFull, |path| {
            path.to_string_lossy().contains("step-00000002")
        });
        let end = train_on(disk, tiny_config(&SAVES), &root.join("run"), |_| None);
        if count.load(Ordering::Relaxed) <= nth {
            assert!(nth > 10, "only {nth} operations");
            break;
        }
        if end.outcome != Outcome::Completed {
            assert_eq!(end.outcome, Outcome::Failed, "operation {nth}");
        }
        run_goes_on(&root, &expected, &format!("operation {nth}"));
    }
}
