//! Ways out of a worker that keep what went, and can be full.

use jetway_pipelines::buffer::HeapBuf;
use jetway_pipelines::ids::{PortId, WorkerId};
use jetway_pipelines::path::{ControlEvent, HandshakeEvent, Outputs, RingFull};
use jetway_pipelines::tables::Twin;

/// Lists of what went, and how many more each way takes.
pub struct Lists {
    pub sent: Vec<(PortId, HeapBuf)>,
    pub punted: Vec<(Twin, HeapBuf)>,
    pub handed_off: Vec<(WorkerId, PortId, HeapBuf)>,
    pub handshakes: Vec<HandshakeEvent>,
    pub control: Vec<ControlEvent>,
    pub room: Room,
}

/// How many more each way takes.
#[derive(Clone, Copy)]
pub struct Room {
    pub sent: usize,
    pub punted: usize,
    pub handed_off: usize,
    pub handshakes: usize,
    pub control: usize,
    pub buffers: usize,
}

impl Room {
    pub const ENDLESS: Self = Self {
        sent: usize::MAX,
        punted: usize::MAX,
        handed_off: usize::MAX,
        handshakes: usize::MAX,
        control: usize::MAX,
        buffers: usize::MAX,
    };
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            sent: Vec::new(),
            punted: Vec::new(),
            handed_off: Vec::new(),
            handshakes: Vec::new(),
            control: Vec::new(),
            room: Room::ENDLESS,
        }
    }
}

/// Puts `item` into `list` if there is room.
fn put<T>(room: &mut usize, list: &mut Vec<T>, item: T) -> Result<(), T> {
    match room.checked_sub(1) {
        None => Err(item),
        Some(left) => {
            *room = left;
            list.push(item);
            Ok(())
        }
    }
}

impl Outputs<HeapBuf> for Lists {
    fn send(&mut self, port: PortId, frame: HeapBuf) -> Result<(), HeapBuf> {
        put(&mut self.room.sent, &mut self.sent, (port, frame)).map_err(|(_, frame)| frame)
    }

    fn punt(&mut self, to: Twin, packet: HeapBuf) -> Result<(), HeapBuf> {
        put(&mut self.room.punted, &mut self.punted, (to, packet)).map_err(|(_, packet)| packet)
    }

    fn hand_off(&mut self, to: WorkerId, port: PortId, frame: HeapBuf) -> Result<(), HeapBuf> {
        put(&mut self.room.handed_off, &mut self.handed_off, (to, port, frame)).map_err(|(_, _, frame)| frame)
    }

    fn tell_handshaker(&mut self, event: HandshakeEvent) -> Result<(), RingFull> {
        put(&mut self.room.handshakes, &mut self.handshakes, event).map_err(|_| RingFull)
    }

    fn tell_control(&mut self, event: ControlEvent) -> Result<(), RingFull> {
        put(&mut self.room.control, &mut self.control, event).map_err(|_| RingFull)
    }

    fn allocate(&mut self) -> Option<HeapBuf> {
        self.room.buffers = self.room.buffers.checked_sub(1)?;
        Some(HeapBuf::with_room(2048))
    }
}
