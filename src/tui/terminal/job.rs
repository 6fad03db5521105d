//! Suspends like any other job of a shell: the whole foreground group, and only if a shell can
//! continue it.

use std::io;

use rustix::process::{
    Pid, Signal, getpgid, getpgrp, getpid, getsid, kill_current_process_group, kill_process,
};

/// Maximum length of the chain of parents to follow.
const GENERATIONS: usize = 64;

/// Whether a shell waits for this process group and could continue it.
///
/// POSIX calls a group orphaned if no member has a parent in another group of the same session; the
/// system then ignores SIGTSTP. It cannot do so here, since the client handles SIGTSTP to restore
/// the terminal first.
pub(crate) fn has_shell() -> bool {
    let Ok(session) = getsid(None) else { return false };
    let group = getpgrp();
    // If this process is the child of a script in the same group, the leader's parent is the shell.
    [getpid(), group].into_iter().any(|member| leads_out_of(group, session, member))
}

/// Stops this process, and the rest of its group if `with_group`, until it is continued.
pub(crate) fn stop(with_group: bool) -> io::Result<()> {
    if with_group {
        // A script that waits for this client is suspended as well, so that the shell gets the
        // terminal back.
        kill_current_process_group(Signal::TSTP)?;
    }
    // This process handles SIGTSTP, so it needs the signal that cannot be handled.
    Ok(kill_process(getpid(), Signal::STOP)?)
}

/// Whether the first ancestor of `member` outside `group` is in `session`.
fn leads_out_of(group: Pid, session: Pid, member: Pid) -> bool {
    let mut process = member;
    for _ in 0..GENERATIONS {
        let Some(parent) = parent_of(process) else { return false };
        match (getpgid(Some(parent)), getsid(Some(parent))) {
            (Ok(parents_group), Ok(parents_session))
                if parents_session == session && parents_group == group =>
            {
                process = parent;
            }
            (Ok(_), Ok(parents_session)) => return parents_session == session,
            _ => return false,
        }
    }
    false
}

/// Field 4 of `/proc/PID/stat`; the name in field 2 may contain spaces and brackets, so counting
/// starts after the last bracket.
fn parent_of(process: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    Pid::from_raw(stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use rustix::process::getppid;

    use super::*;

    #[test]
    fn the_parent_is_read_from_the_process_table() {
        assert_eq!(parent_of(getpid()), getppid());
    }

    #[test]
    fn a_leader_of_a_session_has_no_shell() {
        let session = getsid(None).unwrap();
        assert!(!leads_out_of(session, session, session));
    }
}
