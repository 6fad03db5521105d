//! The thread that writes frames, so that a terminal that accepts no output never blocks the
//! reading of keys.

use std::io::{self, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Passes frames to the writer thread, one at a time.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    frames: Sender<Vec<u8>>,
    written: UnboundedReceiver<io::Result<()>>,
    in_flight: usize,
}

/// The terminal as an output stream: one call of `write` is one write(2).
#[derive(Debug)]
pub(crate) struct Tty;

impl FrameWriter {
    /// Starts the thread, which writes to `out` until this is dropped.
    pub(crate) fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (frames, waiting) = channel::<Vec<u8>>();
        let (done, written) = unbounded_channel();
        thread::Builder::new().name("tui-writer".into()).spawn(move || {
            for frame in waiting {
                let result = out.write_all(&frame);
                let is_broken = result.is_err();
                if done.send(result).is_err() || is_broken {
                    return;
                }
            }
        })?;
        Ok(Self { frames, written, in_flight: 0 })
    }

    /// Whether everything is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Passes `bytes` on; they are written after those passed before.
    pub(crate) fn send(&mut self, bytes: Vec<u8>) {
        // If the thread has ended, `written` reports why.
        let _ = self.frames.send(bytes);
        self.in_flight += 1;
    }

    /// Waits until one more piece is written; cancel-safe.
    pub(crate) async fn written(&mut self) -> io::Result<()> {
        let result =
            self.written.recv().await.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()));
        self.in_flight = self.in_flight.saturating_sub(1);
        result
    }

    /// Waits until everything is written.
    pub(crate) async fn drained(&mut self) -> io::Result<()> {
        while !self.is_idle() {
            self.written().await?;
        }
        Ok(())
    }
}

impl Write for Tty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(rustix::stdio::stdout(), bytes) {
                // Another program that shares the terminal may have made it non-blocking.
                Err(Errno::AGAIN) => poll(
                    &mut [PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT)],
                    None,
                )
                .map(drop)?,
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Records the bytes of each call of `write`.
    #[derive(Clone, Default)]
    struct Calls(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_frame_is_one_write_and_frames_keep_their_order() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let calls = Calls::default();
        let mut writer = FrameWriter::start(calls.clone()).unwrap();
        let frames = [vec![b'a'; 30_000], b"b".to_vec()];
        for frame in &frames {
            writer.send(frame.clone());
        }
        assert!(!writer.is_idle());
        runtime.block_on(writer.drained()).unwrap();
        assert!(writer.is_idle());
        assert_eq!(*calls.0.lock().unwrap(), frames);
    }
}
