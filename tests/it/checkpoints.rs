//! Checkpoints as files: whatever fails or crashes during a save, the newest valid one is either
//! the old or the new one.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use patchtui::advice::{Advice, Audience};
use patchtui::config::RecordedConfig;
use patchtui::disk::{Disk, Operation};
use patchtui::record::{
    Checkpoint, CheckpointError, Checkpoints, Choice, HashedReader, KeepRule, LineHashes,
    MODEL_FILE, NewCheckpoint, OPTIMIZER_FILE, RunDirectory, TrainerState,
};
use serde_json::{Value, json};

use crate::fake_run::patch_size;

struct Bench {
    _folder: tempfile::TempDir,
    run: RunDirectory,
}

fn state(step: u64) -> TrainerState {
    TrainerState {
        initial_weights: None,
        fork: None,
        format_version: TrainerState::FORMAT_VERSION,
        step,
        stage: 0,
        stage_step: step,
        patch_size: patch_size(4),
        optimizer_count: step,
        tokens: step * 1024,
        data_position: step * 1024,
        cursor: [0, step, 0],
        seed: 1,
        data_fingerprint: "text".into(),
        has_measured: true,
        model: None,
        tokenizer: None,
        special_tokens: None,
        data_order: None,
        arithmetic: 2,
    }
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        Self { _folder: folder, run }
    }

    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(&self.run, 2)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.run.checkpoints().join(format!("step-{step:08}"))
    }

    fn save(&self, step: u64) -> Result<(Checkpoint, bool), CheckpointError> {
        save(&self.checkpoints(), step, false)
    }

    /// Step of the newest valid checkpoint, and the names of the others that were checked.
    fn newest(&self) -> (Option<u64>, Vec<String>) {
        let (newest, rejected) = self.checkpoints().newest(&|_| Ok(()), &|| false).unwrap();
        (
            newest.map(|checkpoint| checkpoint.state.step),
            rejected.into_iter().map(|rejected| rejected.reason).collect(),
        )
    }

    /// Everything in the folder of checkpoints, sorted.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.run.checkpoints()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn edit(&self, step: u64, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(step).join(file);
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, serde_json::to_string_pretty(&value).unwrap() + "\n").unwrap();
    }
}

fn save(
    checkpoints: &Checkpoints,
    step: u64,
    permanent: bool,
) -> Result<(Checkpoint, bool), CheckpointError> {
    save_measured(checkpoints, step, permanent, None)
}

fn save_measured(
    checkpoints: &Checkpoints,
    step: u64,
    permanent: bool,
    token_loss: Option<f64>,
) -> Result<(Checkpoint, bool), CheckpointError> {
    checkpoints.save(NewCheckpoint {
        state: state(step),
        active_seconds: vec![0.5, 0.0],
        token_loss,
        permanent,
        tensor_bytes: 64,
        write_tensors: &mut |file| {
            let name = file.path().file_name().unwrap().to_string_lossy();
            file.write_all(format!("{name} of step {step}").as_bytes()).map_err(Into::into)
        },
        config: RecordedConfig::new(),
        sync_lines: &|| Ok(LineHashes::new()),
        stop: &|| false,
    })
}

#[test]
fn a_save_brings_everything_to_the_disk_in_the_order_that_makes_a_crash_harmless() {
    let bench = Bench::new();
    let done = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = done.clone();
    let run = bench.run.path().to_owned();
    let disk = Disk::with_gate(move |operation, path| {
        seen.lock()
            .unwrap()
            .push(format!("{operation:?} {}", path.strip_prefix(&run).unwrap().display()));
        Ok(())
    });
    let checkpoints = bench.checkpoints().on(disk);
    let lines = done.clone();
    let new = NewCheckpoint {
        state: state(4),
        active_seconds: vec![0.5],
        token_loss: None,
        permanent: false,
        tensor_bytes: 64,
        write_tensors: &mut |file| file.write_all(b"tensors").map_err(Into::into),
        config: RecordedConfig::new(),
        sync_lines: &|| {
            lines.lock().unwrap().push("lines".into());
            Ok(LineHashes::new())
        },
        stop: &|| false,
    };
    checkpoints.save(new).unwrap();
    let scratch = "checkpoints/step-00000004.tmp";
    let expected = [
        "lines".to_owned(),
        format!("Remove {scratch}"),
        format!("CreateFolder {scratch}"),
        format!("Write {scratch}/model.safetensors"),
        format!("Sync {scratch}/model.safetensors"),
        format!("Write {scratch}/optimizer.safetensors"),
        format!("Sync {scratch}/optimizer.safetensors"),
        format!("Write {scratch}/trainer.json"),
        format!("Sync {scratch}/trainer.json"),
        format!("Write {scratch}/manifest.json"),
        format!("Sync {scratch}/manifest.json"),
        format!("Sync {scratch}"),
        "Rename checkpoints/step-00000004".to_owned(),
        "Sync checkpoints".to_owned(),
        format!("Remove {scratch}"),
    ];
    assert_eq!(*done.lock().unwrap(), expected);
}

/// A disk on which operation number `nth` is not executed: it fails, or the power is cut before it.
fn breaking(nth: usize, crashes: bool) -> (Disk, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let disk = Disk::with_gate(move |operation, path| {
        if seen.fetch_add(1, Ordering::Relaxed) != nth {
            return Ok(());
        }
        if operation == Operation::Write {
            // The part of an incomplete file that reached the disk.
            fs::write(path, "ha").unwrap();
        }
        assert!(!crashes, "the power goes off");
        Err(io::ErrorKind::StorageFull.into())
    });
    (disk, count)
}

#[test]
fn whatever_fails_in_a_save_the_earlier_checkpoint_stays_and_nothing_half_written() {
    let mut failures = 0;
    for nth in 0.. {
        let bench = Bench::new();
        bench.save(2).unwrap();
        let (disk, count) = breaking(nth, false);
        let saved = save(&bench.checkpoints().on(disk), 4, false);
        if count.load(Ordering::Relaxed) <= nth {
            break;
        }
        let (newest, rejected) = bench.newest();
        assert_eq!(rejected, [""; 0], "operation {nth}");
        match saved {
            Ok(_) => assert_eq!(newest, Some(4), "operation {nth}"),
            Err(error) => {
                failures += 1;
                // Once it has its name, a checkpoint is valid even if the disk could not confirm
                // it.
                assert!(newest == Some(2) || nth > 11, "operation {nth}: {error}");
                assert!(!error.hint(Audience::Command).is_empty());
            }
        }
        assert!(
            bench.names().iter().all(|name| !name.contains("tmp")),
            "operation {nth}: {:?}",
            bench.names()
        );
        bench.save(4).unwrap();
        assert_eq!(bench.newest(), (Some(4), Vec::new()), "operation {nth}");
    }
    assert!(failures > 10, "only {failures} operations failed");
}

#[test]
fn wherever_a_save_crashes_the_newest_checkpoint_is_the_old_or_the_new() {
    let (mut old, mut new) = (0, 0);
    for nth in 0.. {
        let bench = Bench::new();
        bench.save(2).unwrap();
        let (disk, count) = breaking(nth, true);
        let checkpoints = bench.checkpoints().on(disk);
        let crashed =
            catch_unwind(AssertUnwindSafe(|| save(&checkpoints, 4, false).map(drop).unwrap()))
                .is_err();
        assert_eq!(crashed, count.load(Ordering::Relaxed) > nth);
        if !crashed {
            break;
        }
        match bench.newest() {
            (Some(2), rejected) if rejected.is_empty() => old += 1,
            (Some(4), rejected) if rejected.is_empty() => new += 1,
            other => panic!("operation {nth}: {other:?}"),
        }
        bench.save(4).unwrap();
        bench.save(6).unwrap();
        assert_eq!(bench.names(), ["step-00000004", "step-00000006"], "operation {nth}");
    }
    assert!(old > 8 && new > 0, "{old} crashes left the old checkpoint, {new} the new one");
}

#[test]
fn a_checkpoint_that_replaces_one_of_the_same_step_never_leaves_none() {
    for nth in 0.. {
        let bench = Bench::new();
        bench.save(4).unwrap();
        let (disk, count) = breaking(nth, true);
        let checkpoints = bench.checkpoints().on(disk);
        let crashed =
            catch_unwind(AssertUnwindSafe(|| save(&checkpoints, 4, true).map(drop).unwrap()))
                .is_err();
        assert_eq!(bench.newest().0, Some(4), "operation {nth}");
        if !crashed {
            assert!(count.load(Ordering::Relaxed) > 10);
            break;
        }
    }
}

#[test]
fn lines_that_are_not_on_the_disk_keep_a_checkpoint_from_becoming_valid() {
    let bench = Bench::new();
    let new = NewCheckpoint {
        state: state(4),
        active_seconds: vec![0.5],
        token_loss: None,
        permanent: false,
        tensor_bytes: 64,
        write_tensors: &mut |_| panic!("tensors are written after the lines"),
        config: RecordedConfig::new(),
        sync_lines: &|| Err(io::ErrorKind::StorageFull.into()),
        stop: &|| false,
    };
    let error = bench.checkpoints().save(new).unwrap_err();
    assert!(
        error.to_string().starts_with("the run's metrics and events are not on the disk"),
        "{error}"
    );
    assert_eq!(bench.names(), [""; 0]);
}

#[test]
fn tensors_that_cannot_be_read_back_and_a_stop_fail_the_save_and_leave_the_earlier_one() {
    for stopped in [false, true] {
        let bench = Bench::new();
        bench.save(2).unwrap();
        let is_told = Cell::new(false);
        let new = NewCheckpoint {
            state: state(4),
            active_seconds: vec![0.5],
            token_loss: None,
            permanent: false,
            tensor_bytes: 64,
            write_tensors: &mut |file| {
                file.write_all(b"half")?;
                is_told.set(stopped);
                file.write_all(b" of it")?;
                Err("cannot read lm_head.weight from the device: it is gone".into())
            },
            config: RecordedConfig::new(),
            sync_lines: &|| Ok(LineHashes::new()),
            stop: &|| is_told.get(),
        };
        let error = bench.checkpoints().save(new).unwrap_err();
        assert_eq!(matches!(error, CheckpointError::Interrupted), stopped, "{error}");
        assert!(stopped || error.to_string().contains("lm_head.weight"), "{error}");
        assert_eq!(
            (bench.newest(), bench.names()),
            ((Some(2), vec![]), vec!["step-00000002".into()])
        );
    }
}

#[test]
fn tensors_are_read_while_they_are_checked_and_only_those_of_the_returned_checkpoint_count() {
    let bench = Bench::new();
    bench.save(2).unwrap();
    bench.save(4).unwrap();
    fs::write(bench.path(4).join(OPTIMIZER_FILE), "optimizer.safetensors of step 5").unwrap();
    let mut read = Vec::new();
    let mut start = |file: &mut HashedReader<'_>| {
        let mut text = [0; 5];
        file.read_exact(&mut text).unwrap();
        read.push((file.path().to_owned(), text));
    };
    let (newest, rejected) =
        bench.checkpoints().read_newest(&|_| Ok(()), &mut start, &|| false).unwrap();
    assert_eq!((newest.unwrap().state.step, rejected.len()), (2, 1));
    assert!(rejected[0].reason.contains("does not match its hash"), "{}", rejected[0].reason);
    let expected = [4, 2].into_iter().flat_map(|step| {
        let path = |name| bench.path(step).join(name);
        [(path(MODEL_FILE), *b"model"), (path(OPTIMIZER_FILE), *b"optim")]
    });
    assert_eq!(read, expected.collect::<Vec<_>>());
}

#[test]
fn the_same_state_is_saved_once() {
    let bench = Bench::new();
    assert!(bench.save(4).unwrap().1);
    assert!(!bench.save(4).unwrap().1);
    let (saved, is_new) = save(&bench.checkpoints(), 4, true).unwrap();
    assert!(is_new && saved.manifest.permanent);
    // Permanent checkpoints stay permanent.
    assert!(!bench.save(4).unwrap().1);
}

#[test]
fn pruning_leaves_the_newest_and_the_permanent_ones() {
    let bench = Bench::new();
    for step in 1..=6 {
        save(&bench.checkpoints(), step, step == 2).unwrap();
    }
    assert_eq!(bench.names(), ["step-00000002", "step-00000005", "step-00000006"]);
}

#[test]
fn pruning_keeps_the_checkpoint_with_the_lowest_token_loss_through_crashes_and_fallbacks() {
    let losses = [(1, 5.0), (2, 3.0), (3, 3.0), (4, f64::NAN), (5, 4.0), (6, 4.5)];
    let bench = Bench::new();
    let checkpoints = || bench.checkpoints().keeping_best(true);
    for (step, loss) in losses {
        save_measured(&checkpoints(), step, false, Some(loss)).unwrap();
    }
    // On a tie the earlier one, which no kill between two saves can change.
    assert_eq!(bench.names(), ["step-00000002", "step-00000005", "step-00000006"]);
    save_measured(&checkpoints(), 7, false, None).unwrap();
    assert_eq!(bench.names(), ["step-00000002", "step-00000006", "step-00000007"]);
    let best: Vec<u64> = bench
        .checkpoints()
        .list()
        .unwrap()
        .iter()
        .filter(|listed| listed.is_best)
        .map(|listed| listed.step)
        .collect();
    assert_eq!(best, [2]);
    // A damaged checkpoint is not the best one.
    fs::write(bench.path(2).join(MODEL_FILE), "").unwrap();
    save_measured(&checkpoints(), 8, false, Some(4.1)).unwrap();
    assert_eq!(bench.names(), ["step-00000007", "step-00000008"]);
    // Without keep_best, it is treated like any other.
    save_measured(&bench.checkpoints(), 9, false, Some(9.0)).unwrap();
    save_measured(&bench.checkpoints(), 10, false, Some(9.0)).unwrap();
    assert_eq!(bench.names(), ["step-00000009", "step-00000010"]);
}

#[test]
fn a_token_loss_that_becomes_known_is_added_and_never_lost() {
    let bench = Bench::new();
    assert!(bench.save(4).unwrap().1);
    assert!(save_measured(&bench.checkpoints(), 4, false, Some(2.5)).unwrap().1);
    let (saved, is_new) = bench.save(4).unwrap();
    assert!(!is_new && saved.manifest.token_loss == Some(2.5));
    let (saved, is_new) = save(&bench.checkpoints(), 4, true).unwrap();
    assert!(is_new && saved.manifest.token_loss == Some(2.5));
}

#[test]
fn a_crash_after_a_save_and_before_its_pruning_is_made_up_for_by_the_next_save() {
    let bench = Bench::new();
    let generous = Checkpoints::new(&bench.run, 100);
    for step in [2, 4, 6] {
        save(&generous, step, false).unwrap();
    }
    // The run resumes from its last checkpoint, and saves it again.
    assert!(!bench.save(6).unwrap().1);
    assert_eq!(bench.names(), ["step-00000004", "step-00000006"]);
}

/// The decisions of a prune on request, newest first.
fn chosen(bench: &Bench, rule: &KeepRule) -> Vec<(u64, Choice)> {
    bench
        .checkpoints()
        .choose(rule)
        .unwrap()
        .into_iter()
        .map(|(listed, choice)| (listed.step, choice))
        .collect()
}

#[test]
fn pruning_by_hand_checks_what_it_keeps_and_never_deletes_the_only_valid_checkpoint() {
    let bench = Bench::new();
    let all = Checkpoints::new(&bench.run, 100);
    for (step, permanent, loss) in [
        (1, false, None),
        (2, true, None),
        (3, false, Some(1.5)),
        (4, false, None),
        (5, false, None),
        (6, false, None),
    ] {
        save_measured(&all, step, permanent, loss).unwrap();
    }
    fs::create_dir(bench.path(9).with_extension("tmp")).unwrap();
    // One flipped byte, which is found only by reading.
    fs::write(bench.path(6).join(MODEL_FILE), "model.safetensors of step 7").unwrap();
    let rule = KeepRule { keep: 1, ..KeepRule::default() };
    let expected = [
        (9, Choice::DeleteUnfinished),
        (6, Choice::NotValid),
        (5, Choice::Newest),
        (4, Choice::DeleteOld),
        (3, Choice::Best),
        (2, Choice::Permanent),
        (1, Choice::DeleteOld),
    ];
    assert_eq!(chosen(&bench, &rule), expected);
    let asked =
        KeepRule { keep: 0, prunes_permanent: true, prunes_best: true, prunes_damaged: true };
    let deleted: Vec<u64> = chosen(&bench, &asked)
        .into_iter()
        .filter(|(_, choice)| choice.deletes())
        .map(|(step, _)| step)
        .collect();
    assert_eq!(deleted, [9, 6, 4, 3, 2, 1], "the newest valid one is always kept");
    for step in [1, 2, 3, 4, 6] {
        bench.checkpoints().delete(&bench.path(step)).unwrap();
    }
    bench.checkpoints().delete(&bench.path(9).with_extension("tmp")).unwrap();
    assert_eq!(bench.names(), ["step-00000005"]);
    assert_eq!(bench.newest().0, Some(5));
}

/// Changes one thing in the newest of two checkpoints; it must be refused with this message, and
/// the older one found.
fn check_refused(words: &str, damage: impl FnOnce(&Bench)) {
    let bench = Bench::new();
    bench.save(2).unwrap();
    bench.save(4).unwrap();
    damage(&bench);
    let (newest, rejected) = bench.newest();
    assert_eq!(newest, Some(2), "{words}");
    assert!(rejected.iter().any(|reason| reason.contains(words)), "{words}: {rejected:?}");
}

#[test]
fn whatever_is_damaged_is_refused_by_name() {
    for step in [json!(5), json!(97), json!(1_000_000_000_000_000_000_u64), json!(-4), json!("4")] {
        check_refused("manifest.json: its content does not match its hash", |bench| {
            bench.edit(4, "manifest.json", |value| value["step"] = step);
        });
    }
    check_refused("manifest.json: its content", |bench| {
        bench.edit(4, "manifest.json", |value| value["active_seconds"] = json!([]));
    });
    check_refused("manifest.json: its content", |bench| {
        bench.edit(4, "manifest.json", |value| value["permanent"] = json!(true));
    });
    check_refused("manifest.json: it has no hash of itself", |bench| {
        bench.edit(4, "manifest.json", |value| {
            drop(value.as_object_mut().unwrap().remove("manifest_blake3"));
        });
    });
    check_refused("trainer.json: its content", |bench| {
        let path = bench.path(4).join("trainer.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("\"seed\": 1", "\"seed\": 2")).unwrap();
    });
    check_refused("model.safetensors: it has 0 bytes", |bench| {
        fs::write(bench.path(4).join(MODEL_FILE), "").unwrap();
    });
    check_refused("optimizer.safetensors", |bench| {
        fs::remove_file(bench.path(4).join(OPTIMIZER_FILE)).unwrap();
    });
    check_refused("manifest.json", |bench| {
        fs::write(bench.path(4).join("manifest.json"), "{").unwrap();
    });
    check_refused("it is for step 4, which does not match the name of its directory", |bench| {
        fs::rename(bench.path(4), bench.path(6)).unwrap();
    });
}

#[test]
fn every_flipped_bit_of_a_manifest_is_noticed_or_changes_nothing() {
    let bench = Bench::new();
    bench.save(4).unwrap();
    let path = bench.path(4).join("manifest.json");
    let whole = fs::read(&path).unwrap();
    let expected = bench.checkpoints().verify(&bench.path(4), &|| false).unwrap();
    let (mut refused, mut same) = (0, 0);
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        match bench.checkpoints().verify(&bench.path(4), &|| false) {
            Err(_) => refused += 1,
            Ok(read) => {
                assert_eq!(read, expected, "bit {bit}");
                same += 1;
            }
        }
    }
    assert!(refused > 20 * same, "{refused} refused, {same} without effect");
}

#[test]
fn pipes_and_devices_in_the_place_of_files_are_refused_at_once() {
    let pipe = |path: &Path| {
        fs::remove_file(path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
    };
    for file in ["manifest.json", "trainer.json", MODEL_FILE] {
        check_refused(file, |bench| pipe(&bench.path(4).join(file)));
        check_refused(file, |bench| {
            let path = bench.path(4).join(file);
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        });
    }
}

#[test]
fn nothing_is_written_into_another_run_of_the_same_name() {
    let bench = Bench::new();
    let checkpoints = bench.checkpoints();
    fs::remove_dir_all(bench.run.path()).unwrap();
    assert!(matches!(save(&checkpoints, 4, false), Err(CheckpointError::Gone { .. })));
    assert!(!bench.run.path().exists());
    RunDirectory::create(bench.run.path()).unwrap();
    assert!(matches!(save(&checkpoints, 4, false), Err(CheckpointError::Gone { .. })));
    assert_eq!(bench.names(), [""; 0]);
}

#[test]
fn hashing_stops_when_the_run_is_told_to_end() {
    let bench = Bench::new();
    bench.save(4).unwrap();
    assert!(matches!(
        bench.checkpoints().newest(&|_| Ok(()), &|| true),
        Err(CheckpointError::Interrupted)
    ));
}

#[test]
fn a_checkpoint_that_is_not_accepted_is_passed_over_for_an_older_one() {
    let bench = Bench::new();
    bench.save(2).unwrap();
    bench.save(4).unwrap();
    let asked = RefCell::new(Vec::new());
    let accepts = |checkpoint: &Checkpoint| {
        asked.borrow_mut().push(checkpoint.state.step);
        if checkpoint.state.step == 2 { Ok(()) } else { Err("another seed".into()) }
    };
    let (newest, rejected) = bench.checkpoints().newest(&accepts, &|| false).unwrap();
    assert_eq!((newest.unwrap().state.step, rejected[0].reason.as_str()), (2, "another seed"));
    assert_eq!(asked.into_inner(), [4, 2]);
}
