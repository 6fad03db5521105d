//! Whether a run survives logout, and what to type if it does not.
//!
//! An engine is no child of the terminal, but systemd and batch systems kill whole groups of
//! processes. Reads control groups and logind's settings; assumes the default for what cannot be
//! read. Start at [`Logout::of_this_process`].

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Folders of logind's settings; the last one takes precedence.
const FOLDERS: [&str; 3] = ["/usr/lib/systemd", "/run/systemd", "/etc/systemd"];

/// Whether a run survives when its user logs out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logout {
    /// Whether the run keeps running.
    pub survives: bool,
    /// Why; no full stop.
    pub reason: String,
    /// What to type so that it keeps running.
    pub hint: Option<String>,
    /// Whether systemd keeps this user's services after the last logout; `None` without systemd.
    pub linger: Option<bool>,
}

/// Properties of this process and its machine.
#[derive(Debug, Clone, Default)]
struct Circumstances {
    /// Whether this machine runs systemd.
    has_systemd: bool,
    /// The control group of this process.
    group: String,
    has_linger: bool,
    /// logind's settings, concatenated in order of precedence.
    settings: String,
    user: String,
    /// Job of a batch system.
    batch_job: Option<String>,
}

impl Logout {
    /// Examines this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let variable = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty())
        };
        let user = variable(&["USER", "LOGNAME"]).unwrap_or_default();
        let is_plain = !user.is_empty() && !user.contains('/') && !user.starts_with('.');
        Self::under(&Circumstances {
            has_systemd: Path::new("/run/systemd/system").is_dir(),
            group: fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            has_linger: is_plain && Path::new("/var/lib/systemd/linger").join(&user).exists(),
            settings: logind_settings(),
            user,
            batch_job: variable(&["SLURM_JOB_ID"])
                .map(|id| format!("SLURM job {id}"))
                .or_else(|| variable(&["PBS_JOBID"]).map(|id| format!("PBS job {id}"))),
        })
    }

    fn under(found: &Circumstances) -> Self {
        let yes = |reason: &str| Self {
            survives: true,
            reason: reason.to_owned(),
            hint: None,
            linger: found.has_systemd.then_some(found.has_linger),
        };
        let no = |reason: String, hint: String| Self {
            survives: false,
            reason,
            hint: Some(hint),
            ..yes("")
        };
        if let Some(job) = &found.batch_job {
            let advice = "have the batch system send SIGUSR1 before its limit (checkpoint.on_usr1 \
                          = \"stop\"), then resume the run in the next job";
            return no(format!("they end with {job}"), advice.to_owned());
        }
        if !found.has_systemd {
            return yes("own session, no systemd");
        }
        let is_below = |part: &str, ending: &str| {
            found.group.lines().any(|line| {
                line.split('/').any(|name| name.starts_with(part) && name.ends_with(ending))
            })
        };
        if is_below("session-", ".scope") {
            if !kills_sessions(&found.settings) {
                return yes("logind does not kill session processes, KillUserProcesses=no");
            }
            let hint = "loginctl enable-linger, and start runs in their own scope: systemd-run \
                        --user --scope patchtui run CONFIG";
            return no("logind kills session processes, KillUserProcesses=yes".into(), hint.into());
        }
        if is_below("user@", ".service") {
            if found.has_linger {
                return yes("services of this user are kept after logout");
            }
            return no(
                format!("systemd stops the services of {} at logout", user_words(&found.user)),
                "loginctl enable-linger".into(),
            );
        }
        yes("this process belongs to no login session")
    }
}

fn user_words(user: &str) -> &str {
    if user.is_empty() { "this user" } else { user }
}

/// logind.conf and its drop-ins, in order of precedence.
fn logind_settings() -> String {
    let mut files: Vec<PathBuf> =
        FOLDERS.iter().map(|folder| Path::new(folder).join("logind.conf")).collect();
    for folder in FOLDERS {
        let Ok(entries) = fs::read_dir(Path::new(folder).join("logind.conf.d")) else { continue };
        let mut additions: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "conf"))
            .collect();
        additions.sort();
        files.extend(additions);
    }
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n")
}

/// Whether logind kills session processes. A commented-out line states the default of this
/// distribution.
fn kills_sessions(settings: &str) -> bool {
    let last = |prefix: &str| {
        let mut values = settings.lines().filter_map(|line| {
            line.trim()
                .strip_prefix(prefix)?
                .trim_start()
                .strip_prefix("KillUserProcesses")?
                .trim_start()
                .strip_prefix('=')
        });
        values.next_back().map(|value| {
            matches!(value.trim().to_ascii_lowercase().as_str(), "yes" | "true" | "1" | "on")
        })
    };
    last("").or_else(|| last("#")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_systemd(group: &str) -> Circumstances {
        Circumstances {
            has_systemd: true,
            group: group.into(),
            user: "alice".into(),
            ..Circumstances::default()
        }
    }

    const SESSION: &str = "0::/user.slice/user-1000.slice/session-3.scope\n";
    const SERVICE: &str = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/tmux.scope\n";

    #[test]
    fn a_login_session_survives_unless_logind_kills_it() {
        assert!(Logout::under(&with_systemd(SESSION)).survives);
        let killing = Circumstances {
            settings: "#KillUserProcesses=no\n[Login]\nKillUserProcesses=yes\n".into(),
            ..with_systemd(SESSION)
        };
        let logout = Logout::under(&killing);
        assert!(!logout.survives && logout.hint.unwrap().contains("systemd-run --user --scope"));
        // Linger keeps services, not sessions.
        assert!(!Logout::under(&Circumstances { has_linger: true, ..killing }).survives);
    }

    #[test]
    fn the_services_of_a_user_need_linger() {
        let logout = Logout::under(&with_systemd(SERVICE));
        assert_eq!(
            (logout.survives, logout.hint.as_deref(), logout.linger),
            (false, Some("loginctl enable-linger"), Some(false))
        );
        assert!(logout.reason.contains("alice"));
        assert!(
            Logout::under(&Circumstances { has_linger: true, ..with_systemd(SERVICE) }).survives
        );
    }

    #[test]
    fn elsewhere_nothing_ends_at_a_logout() {
        assert!(Logout::under(&with_systemd("0::/system.slice/sshd.service\n")).survives);
        let container = Logout::under(&Circumstances::default());
        assert_eq!((container.survives, container.linger), (true, None));
    }

    #[test]
    fn a_batch_job_ends_its_runs() {
        let logout = Logout::under(&Circumstances {
            batch_job: Some("SLURM job 7".into()),
            ..with_systemd(SESSION)
        });
        assert!(!logout.survives && logout.reason.ends_with("SLURM job 7"));
    }

    #[test]
    fn the_last_setting_counts_and_a_comment_is_the_default() {
        for (settings, kills) in [
            ("", false),
            ("#KillUserProcesses=yes", true),
            ("# KillUserProcesses = no", false),
            ("KillUserProcesses=no\nKillUserProcesses = true", true),
            ("KillUserProcesses=yes\nKillUserProcesses=no", false),
            ("#KillUserProcesses=yes\nKillUserProcesses=no", false),
            ("KillUserProcessesToo=yes", false),
        ] {
            assert_eq!(kills_sessions(settings), kills, "{settings:?}");
        }
    }
}
