//! `docs/reliability.sh`, on scripts that are made up.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::output;

/// Runs the scripts `contents` by their names; returns the exit code, the table without its head
/// and its times, and the complaints.
fn run(contents: &[(&str, &str)], arguments: &[&str]) -> Option<(i32, Vec<String>, String)> {
    let has = |program: &str| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if let Some(missing) = ["bash", "python3", "timeout"].into_iter().find(|program| !has(program))
    {
        println!("skipped: there is no {missing}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let scripts = folder.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    for (name, content) in contents {
        fs::write(scripts.join(name), content).unwrap();
    }
    let mut command = Command::new("bash");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.sh"))
        .arg("scripts")
        .arg(env!("CARGO_BIN_EXE_patchtui"));
    command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
    let (code, stdout, stderr) = output(command);
    if code != 2 {
        let written = fs::read_to_string(folder.path().join("reliability/reliability.md")).unwrap();
        assert!(written.starts_with("patchtui ") && written.ends_with(&stdout), "{written}");
    }
    let cells = |line: &str| line.rsplit_once(" | ").map(|(cells, _)| cells.to_owned());
    Some((code, stdout.lines().skip(2).filter_map(cells).collect(), stderr))
}

const HOLDS: &str = "import sys, os\nassert os.access(sys.argv[1], os.X_OK) and \
                     os.listdir(os.environ['RELIABILITY_DIR']) == []\nprint('ok    \
                     a')\nprint('SUMMARY two words: tried 1, held 1, failed 0')\n";
const FAILS: &str = "print('FAIL  bytes  | other')\nprint('SUMMARY b: tried 7, held 6, failed \
                     1')\nraise SystemExit(1)\n";

#[test]
fn the_summary_of_each_script_is_a_row_and_one_failure_fails_all() {
    let Some(all_held) =
        run(&[("01_a.py", HOLDS), ("02_b.py", HOLDS), ("common.py", "raise SystemExit(3)")], &[])
    else {
        return;
    };
    assert_eq!(
        all_held,
        (0, vec!["| 01_a | 1 | 1 | 0".into(), "| 02_b | 1 | 1 | 0".into()], String::new())
    );
    let (code, rows, stderr) = run(&[("01_a.py", FAILS), ("02_b.py", HOLDS)], &[]).unwrap();
    assert_eq!((code, rows), (1, vec!["| 01_a | 7 | 6 | 1".into(), "| 02_b | 1 | 1 | 0".into()]));
    assert_eq!(stderr, "01_a.log:FAIL  bytes  | other\n");
    // A script that breaks off, and one that says that all held and ends in an error.
    let (code, rows, _) = run(&[("01_a.py", "raise SystemExit(5)")], &[]).unwrap();
    assert_eq!((code, rows), (1, vec!["| 01_a | - | - | no summary, exit code 5".into()]));
    assert_eq!(run(&[("01_a.py", &format!("{HOLDS}raise SystemExit(5)\n"))], &[]).unwrap().0, 1);
}

#[test]
fn some_of_the_scripts_can_be_run_and_none_is_an_error() {
    let scripts = [("01_a.py", FAILS), ("01b_a.py", HOLDS), ("02_b.py", HOLDS)];
    let Some((code, rows, _)) = run(&scripts, &["--only", "0[0-9]b_*"]) else { return };
    assert_eq!((code, rows), (0, vec!["| 01b_a | 1 | 1 | 0".into()]));
    let (code, _, stderr) = run(&scripts, &["--only", "9*"]).unwrap();
    assert!(code == 2 && stderr.contains("matches 9*"), "{code}: {stderr}");
    let (code, _, stderr) = run(&scripts, &["--nonsense"]).unwrap();
    assert!(
        code == 2 && stderr.contains("docs/reliability.sh SCRIPTS PATCHTUI"),
        "{code}: {stderr}"
    );
}
