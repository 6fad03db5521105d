//! The engine's door and the client's key to it: socket, protocol, signals.
//!
//! Knows frames of plain data; never tensors or widgets. Start at [`Feed`] for what a client hears, at [`Server`] for the
//! engine's side, at [`ClientMessage`] for what is said in between.

mod client;
mod error;
mod follow;
mod link;
mod protocol;
mod request;
mod serve;
mod server;
mod signals;
mod socket;

use std::time::Duration;

pub use error::ControlError;
pub use follow::follow;
pub use link::{EngineLink, Feed, Patience, connect, connect_with};
pub use protocol::{ClientMessage, FrameError, FrameReader, Hello, HelloError, MAX_FRAME, PROTOCOL, ServerMessage, frame};
pub use request::{greet, request, status};
pub use server::{Server, ServerSetup};
pub use socket::{socket_path, socket_path_in};

/// How often both sides say that they are still there.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
