//! Where the sweep puts packets and events: the engine's queues, or a test's lists.

use super::event::{ControlEvent, HandshakeEvent};
use crate::ids::{BackendIndex, PortId, WorkerId};
use crate::tables::Twin;

/// A ring had no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingFull;

/// The ways out of a worker. Each gives back what it could not take, and that is counted, never lost in silence.
pub trait Outputs<B> {
    /// Queues a frame for a port.
    fn send(&mut self, port: PortId, frame: B) -> Result<(), B>;
    /// The same, for a frame on its way to a server: who drops it later tells the server's losses.
    fn send_to_server(&mut self, port: PortId, frame: B, server: BackendIndex) -> Result<(), B> {
        let _ = server;
        self.send(port, frame)
    }
    /// Gives a packet to the kernel.
    fn punt(&mut self, to: Twin, packet: B) -> Result<(), B>;
    /// Gives a frame that came in by `port` to another worker.
    fn hand_off(&mut self, to: WorkerId, port: PortId, frame: B) -> Result<(), B>;
    /// Tells the handshaker; what it cannot be told is dropped.
    fn tell_handshaker(&mut self, event: HandshakeEvent) -> Result<(), RingFull>;
    /// Tells control; what it cannot be told is dropped.
    fn tell_control(&mut self, event: ControlEvent) -> Result<(), RingFull>;
    /// Takes a buffer whose packet ends here; it may be freed later, with others.
    fn discard(&mut self, buffer: B) {
        drop(buffer);
    }
    /// An empty buffer, if there is one.
    fn allocate(&mut self) -> Option<B>;
}
