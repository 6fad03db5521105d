//! `patchtui doctor`: a real process on this machine, and simulated findings of worse machines.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs `patchtui doctor` in `folder`. Returns exit code, output and errors.
fn doctor(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
    command
        .arg("doctor")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .env_remove("PATCHTUI_RUNS_DIR")
        .env_remove("SLURM_JOB_ID");
    command.env("PATCHTUI_SOCKET_DIR", folder.join("sockets")).envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    (
        status.code().unwrap_or(-1),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

fn json(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, Value) {
    let (code, out, errors) = doctor(folder, &[arguments, &["--json"]].concat(), variables);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{errors}")))
}

#[test]
fn a_machine_that_can_run_is_described_in_eighty_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, errors) =
        doctor(folder.path(), &[], &[("TERM", "xterm-256color"), ("LANG", "C.UTF-8")]);
    let has_engine = cfg!(feature = "engine");
    assert_eq!((code, errors.as_str()), (i32::from(!has_engine), ""), "{out}");
    for label in [
        "machine\n",
        "  processor ",
        "  vectors ",
        "  memory ",
        "  disk ",
        "devices\n",
        "  built in ",
        "session\n",
        "  logout ",
        "  sockets ",
        "  terminal ",
    ] {
        assert!(out.contains(label), "{label:?} is missing:\n{out}");
    }
    assert!(
        out.ends_with(if has_engine {
            "\nReady to train: patchtui run demo\n"
        } else {
            "\nNot ready to train.\n"
        }),
        "{out}"
    );
    // Only a path may be longer.
    let too_long: Vec<_> =
        out.lines().filter(|line| line.chars().count() > 80 && !line.contains('/')).collect();
    assert!(too_long.is_empty(), "{too_long:?}");
    assert!(!folder.path().join("runs").exists(), "nothing is created but the folder of sockets");
}

#[test]
fn the_document_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (code, found) = json(folder.path(), &[], &[]);
    let has_engine = cfg!(feature = "engine");
    assert_eq!((code == 0, &found["can_run"]), (has_engine, &Value::Bool(has_engine)));
    assert!(found["processor"]["usable_threads"].as_u64().unwrap() > 0);
    assert!(
        found["memory"]["total"].as_u64() > Some(0) && found["disk"]["free"].as_u64() > Some(0)
    );
    assert_eq!(found["kernels"].is_string(), has_engine);
    assert_eq!(
        found["devices"]["built_in"].as_array().unwrap().iter().any(|kind| kind == "cpu"),
        has_engine
    );
    assert_eq!(found["devices"]["auto"]["device"].is_string(), has_engine);
    assert_eq!(found["disk"]["folder"], folder.path().join("runs").to_str().unwrap());
    assert_eq!(found["terminal"]["is_terminal"], false);
    assert!(found.get("check").is_none());
}

#[test]
fn a_folder_of_runs_that_cannot_be_written_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("runs"), "a file").unwrap();
    let (code, out, _) = doctor(folder.path(), &[], &[]);
    assert_eq!(code, 1, "{out}");
    let flat = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains("problem: ")
            && flat.contains(
                "runs is not a folder hint: choose another folder: --runs-dir DIR, or \
                 PATCHTUI_RUNS_DIR"
            ),
        "{out}"
    );
    assert!(out.ends_with("\nNot ready to train.\n"), "{out}");
}

#[test]
fn a_run_that_ends_with_its_batch_job_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let (_, found) = json(folder.path(), &[], &[("SLURM_JOB_ID", "77")]);
    assert_eq!(found["logout"]["survives"], false);
    let notes = found["notes"].as_array().unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note["message"]
                == "runs will not survive logout: they end with SLURM job 77"),
        "{notes:?}"
    );
}

#[test]
fn a_folder_of_sockets_that_others_can_enter_is_noted_and_no_problem() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sockets"), "a file").unwrap();
    let (_, found) = json(folder.path(), &[], &[]);
    let notes = found["notes"].as_array().unwrap();
    assert!(
        notes.iter().any(|note| note["message"].as_str().unwrap().contains("it is not a folder")),
        "{notes:?}"
    );
    assert!(
        found["problems"]
            .as_array()
            .unwrap()
            .iter()
            .all(|problem| !problem["message"].as_str().unwrap().contains("folder"))
    );
}

#[test]
fn a_word_that_is_no_device_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, errors) = doctor(folder.path(), &["--device", "tpu"], &[]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(errors.contains("\"tpu\" is not a device"), "{errors}");
}

#[cfg(feature = "engine")]
mod with_engine {
    use super::*;

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_in_this_build_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let (code, found) = json(folder.path(), &["--device", "cuda:1"], &[]);
        assert_eq!(code, 1);
        assert_eq!(
            found["problems"][0]["message"],
            "device \"cuda:1\" is not part of this build of patchtui"
        );
        assert!(found["problems"][0]["hint"].as_str().unwrap().contains("--features cuda"));
    }

    #[test]
    fn the_kernels_of_this_cpu_pass_their_check() {
        let folder = tempfile::tempdir().unwrap();
        let small = [
            "--set",
            "training.micro_batch_size=1",
            "--set",
            "training.context_length=32",
            "--set",
            "model.vocab_size=1152",
        ];
        let arguments = [&["--device", "cpu", "--check"], &small[..]].concat();
        let (code, found) = json(folder.path(), &arguments, &[]);
        assert_eq!(code, 0, "{found:#}");
        let operations = found["check"]["operations"].as_array().unwrap();
        let names: Vec<_> =
            operations.iter().map(|operation| operation["operation"].as_str().unwrap()).collect();
        for name in [
            "embedding",
            "rms_norm",
            "linear",
            "rotary",
            "attention",
            "swiglu",
            "head and cross-entropy",
            "gradient norm and AdamW",
        ] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(
            operations.iter().all(|operation| operation["difference"].as_f64().unwrap() < 1e-4),
            "{operations:#?}"
        );
        let (code, out, errors) = doctor(folder.path(), &arguments, &[]);
        assert_eq!(
            (code, errors.as_str()),
            (0, "comparing cpu with double precision ...\n"),
            "{out}"
        );
        assert!(out.contains("\nchecked: cpu in f32, ") && !out.contains("WRONG"), "{out}");
        assert!(out.lines().all(|line| line.chars().count() <= 80 || line.contains('/')), "{out}");
    }

    #[test]
    fn slow_the_proof_for_gpus_passes_on_the_cpu_and_writes_both_results() {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gpu-proof.sh");
        let arguments = ["--device", "cpu", "--small", "--steps", "8", "--out", "proof"];
        let command = Command::new("bash")
            .arg(script)
            .arg(env!("CARGO_BIN_EXE_patchtui"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&command.stdout);
        assert!(command.status.success(), "{out}{}", String::from_utf8_lossy(&command.stderr));
        let result = fs::read_to_string(folder.path().join("proof/result.json")).unwrap();
        let result: Value =
            serde_json::from_str(&result).unwrap_or_else(|error| panic!("{error}: {result}"));
        assert_eq!(result["verdict"], "passed");
        for part in [
            "devices",
            "operations_f32",
            "parity",
            "kill_and_resume",
            "speed_K4",
            "speed_K1",
            "memory",
        ] {
            assert_eq!(result[part]["verdict"], "ok", "{part}: {out}");
        }
        assert_eq!(result["parity"]["furthest_nats"], 0.0);
        assert!(result["speed_K1"]["tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(
            fs::read_to_string(folder.path().join("proof/result.md"))
                .unwrap()
                .contains("| parity | ok | 20 losses"),
            "{out}"
        );
    }
}
