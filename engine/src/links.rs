//! The rings between a worker and everyone else, made in one place so that both ends match.
//!
//! ```text
//!            commands                                   punts
//! handshaker ========> worker 0 <=== hand-offs ===> worker 1 ======> host thread ==> TAP and TUN twins
//!            <--------           (one ring each way)       <======
//!             events     |  ^                              injects
//!                 events |  | orders
//!                        v  v
//!                       control
//! ```

use jetway_pipelines::ids::{BackendIndex, PortId, WorkerId};
use jetway_pipelines::path::{Command, ControlEvent, HandshakeEvent, Order};
use jetway_pipelines::tables::Twin;
use jetway_sync::command::{self, CommandReceiver, CommandSender};
use jetway_sync::spsc::{self, Consumer, Producer};

/// Commands that wait for one worker in its ring; more wait on the handshaker's side.
pub const COMMANDS: usize = 1024;
/// Events of one worker that wait for the handshaker. When it is full, handshake messages are dropped and counted,
/// and a wish for a handshake is made again by the peer's next packet.
pub const HANDSHAKE_EVENTS: usize = 512;
/// Events of one worker that wait for control. When it is full, the packet that waits asks again when it is joined
/// by another.
pub const CONTROL_EVENTS: usize = 256;
/// Orders of control that one worker has not given back. Control gives no more than these, so that each that is done
/// finds room on its way back.
pub const ORDERS: usize = 16;
/// Packets from one worker that wait for the host thread. When it is full, they are dropped and counted.
pub const PUNTS: usize = 1024;
/// Packets from the kernel that wait for one worker. When it is full, the host thread drops and counts them.
pub const INJECTS: usize = 1024;
/// Packets from one worker that wait for another. When it is full, they are dropped and counted.
pub const HANDOFFS: usize = 1024;

/// A packet for the kernel.
#[derive(Debug)]
pub struct Punt<B> {
    /// The twin to write it to.
    pub to: Twin,
    /// A frame for a port's twin, a bare IP packet for a tunnel's.
    pub buffer: B,
}

/// A packet from the kernel.
#[derive(Debug)]
pub struct Inject<B> {
    /// The twin it was read from.
    pub from: Twin,
    /// A frame from a port's twin, a bare IP packet from a tunnel's.
    pub buffer: B,
}

/// A packet that another worker has to deal with.
#[derive(Debug)]
pub enum Handoff<B> {
    /// A frame that came in by the port: its session lives there.
    Received(PortId, B),
    /// A finished frame, with the server that it is for, if it is for one: only that worker has a queue of the port.
    Transmit(PortId, B, Option<BackendIndex>),
}

/// A worker's ends of its rings.
#[derive(Debug)]
pub struct WorkerLinks<B: Send> {
    /// From the handshaker.
    pub commands: CommandReceiver<Command>,
    /// To the handshaker.
    pub handshake_events: Producer<HandshakeEvent>,
    /// To control.
    pub control_events: Producer<ControlEvent>,
    /// From control.
    pub orders: CommandReceiver<Order>,
    /// Back to control, when they are done.
    pub orders_done: Producer<Order>,
    /// To the host thread.
    pub punts: Producer<Punt<B>>,
    /// From the host thread.
    pub injects: Consumer<Inject<B>>,
    /// To each worker, by its number; `None` at this worker's own.
    pub handoffs_out: Vec<Option<Producer<Handoff<B>>>>,
    /// From each other worker.
    pub handoffs_in: Vec<Consumer<Handoff<B>>>,
}

/// The other ends, by worker.
#[derive(Debug)]
pub struct OtherEnds<B: Send> {
    /// The handshaker's.
    pub handshaker: Vec<HandshakerLink>,
    /// Control's.
    pub control: Vec<Consumer<ControlEvent>>,
    /// Control's, for its orders.
    pub orders: Vec<OrderLink>,
    /// The host thread's.
    pub host: Vec<HostLink<B>>,
}

/// The handshaker's ends of one worker's rings.
#[derive(Debug)]
pub struct HandshakerLink {
    /// To the worker.
    pub commands: CommandSender<Command>,
    /// From the worker.
    pub events: Consumer<HandshakeEvent>,
}

/// Control's ends of the rings of its orders to one worker.
#[derive(Debug)]
pub struct OrderLink {
    /// To the worker.
    pub orders: CommandSender<Order>,
    /// Back from the worker, when they are done.
    pub done: Consumer<Order>,
}

impl OrderLink {
    /// Whether there is room for another order.
    pub fn has_room(&self) -> bool {
        self.orders.outstanding() + (self.done.len() as u64) < ORDERS as u64
    }
}

/// The host thread's ends of one worker's rings.
#[derive(Debug)]
pub struct HostLink<B: Send> {
    /// From the worker, for the kernel.
    pub punts: Consumer<Punt<B>>,
    /// From the kernel, for the worker.
    pub injects: Producer<Inject<B>>,
}

/// All rings for `workers` workers.
pub fn connect<B: Send>(workers: u16) -> (Vec<WorkerLinks<B>>, OtherEnds<B>) {
    let mut links = Vec::new();
    let mut others = OtherEnds { handshaker: Vec::new(), control: Vec::new(), orders: Vec::new(), host: Vec::new() };
    for _ in 0..workers {
        let (command_sender, commands) = command::channel(COMMANDS);
        let (handshake_events, events) = spsc::channel(HANDSHAKE_EVENTS);
        let (control_events, control) = spsc::channel(CONTROL_EVENTS);
        let (order_sender, orders) = command::channel(ORDERS);
        let (orders_done, done) = spsc::channel(ORDERS);
        let (punts, host_punts) = spsc::channel(PUNTS);
        let (host_injects, injects) = spsc::channel(INJECTS);
        others.handshaker.push(HandshakerLink { commands: command_sender, events });
        others.control.push(control);
        others.orders.push(OrderLink { orders: order_sender, done });
        others.host.push(HostLink { punts: host_punts, injects: host_injects });
        links.push(WorkerLinks {
            commands,
            handshake_events,
            control_events,
            orders,
            orders_done,
            punts,
            injects,
            handoffs_out: Vec::new(),
            handoffs_in: Vec::new(),
        });
    }
    for from in 0..links.len() {
        for to in 0..links.len() {
            if from == to {
                links[from].handoffs_out.push(None);
                continue;
            }
            let (producer, consumer) = spsc::channel(HANDOFFS);
            links[from].handoffs_out.push(Some(producer));
            links[to].handoffs_in.push(consumer);
        }
    }
    (links, others)
}

/// The worker that has a queue of a port on behalf of `worker`, when the port runs fewer queues than there are workers.
pub fn transmit_owner(worker: WorkerId, queues: u16) -> WorkerId {
    WorkerId(worker.0 % queues.max(1))
}
