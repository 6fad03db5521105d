//! The links to the runs that are followed.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

use crate::control::{EngineLink, Feed};
use crate::record::RunCommand;
use crate::tui::message::RunId;

/// Maximum number of messages of one run that are applied before keys are checked again.
const BATCH: usize = 256;

/// The links to the runs that are followed; a dropped one disconnects.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<RunId, EngineLink>);

impl Links {
    /// Follows `run` over `link`.
    pub(crate) fn open(&mut self, run: RunId, link: EngineLink) {
        self.0.insert(run, link);
    }

    /// Stops following `run`.
    pub(crate) fn close(&mut self, run: RunId) {
        self.0.remove(&run);
    }

    /// Sends a command to the engine of `run`.
    pub(crate) fn send(&self, run: RunId, id: String, command: RunCommand) {
        // A closed channel means that the link has ended, which the feed reports.
        drop(self.0.get(&run).map(|link| link.commands.send((id, command))));
    }

    /// Waits for messages, and adds those of every run to `batch`; cancel-safe. Waits forever if
    /// no run is followed.
    pub(crate) async fn receive(&mut self, batch: &mut Vec<(RunId, Feed)>) {
        let mut feeds = Vec::new();
        poll_fn(|context| {
            for (run, link) in &mut self.0 {
                // A feed that has ended sends nothing more, and its screen stays; commands are
                // still accepted.
                let _ = link.feed.poll_recv_many(context, &mut feeds, BATCH);
                batch.extend(feeds.drain(..).map(|feed| (*run, feed)));
            }
            if batch.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::error::TryRecvError;
    use tokio::sync::mpsc::{Sender, UnboundedReceiver, channel, unbounded_channel};

    use super::*;

    fn link() -> (Sender<Feed>, UnboundedReceiver<(String, RunCommand)>, EngineLink) {
        let (sender, feed) = channel(4);
        let (commands, heard) = unbounded_channel();
        (sender, heard, EngineLink { feed, commands })
    }

    #[tokio::test]
    async fn every_link_is_heard_and_a_command_goes_to_its_run() {
        let (first, second) = (RunId::FIRST, RunId::FIRST.next());
        let ((one, mut one_hears, one_link), (two, mut two_hears, two_link)) = (link(), link());
        let mut links = Links::default();
        links.open(first, one_link);
        links.open(second, two_link);
        for sender in [&one, &one, &two] {
            sender.send(Feed::Heartbeat).await.unwrap();
        }
        let mut batch = Vec::new();
        links.receive(&mut batch).await;
        assert_eq!(batch.drain(..).map(|(run, _)| run).collect::<Vec<_>>(), [first, first, second]);
        links.send(second, "c1".into(), RunCommand::Pause);
        assert_eq!(two_hears.try_recv(), Ok(("c1".into(), RunCommand::Pause)));
        assert_eq!(one_hears.try_recv(), Err(TryRecvError::Empty));
        // A feed that has ended does not silence the others.
        drop(one);
        two.send(Feed::Heartbeat).await.unwrap();
        links.receive(&mut batch).await;
        assert_eq!(batch.len(), 1);
        links.close(second);
        assert!(two.is_closed() && two_hears.try_recv() == Err(TryRecvError::Disconnected));
    }
}
