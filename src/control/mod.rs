//! Attaching to and controlling an engine: a socket, a protocol, signals; the engine's server and
//! its clients.
//!
//! Start at [`Server`] for the engine's side, at [`connect`] for a client's, at [`ClientMessage`]
//! for the messages between them.

mod client;
mod error;
mod files;
mod follow;
mod link;
mod protocol;
mod request;
mod serve;
mod server;
mod signals;
mod socket;
mod strangers;

use std::time::Duration;

pub use client::check_reachable;
pub use error::ControlError;
pub use follow::follow;
pub use link::{EngineLink, Feed, Patience, connect, connect_with};
pub use protocol::{
    ClientMessage, FrameError, FrameReader, Hello, HelloError, MAX_FRAME, PROTOCOL, ServerMessage,
    frame,
};
pub use request::{Request, Status, greet, request, request_without_waiting, status};
pub use server::{Server, ServerSetup};
pub use socket::{socket_path, socket_path_in};

/// Interval of heartbeats in both directions.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
