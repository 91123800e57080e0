//! Memory for whole replay windows that a worker keeps ready, since it allocates none.

use arrayvec::ArrayVec;

use super::Ring;

/// Windows that a worker keeps ready: 128 KiB.
pub const READY: usize = 128;
/// With fewer than these it asks for more. The handshaker answers within a millisecond; 100,000 peers make one session a
/// millisecond.
const FEW: usize = READY / 2;

/// Windows on their way from the handshaker to a worker.
#[derive(Debug)]
pub struct Crate(ArrayVec<Box<Ring>, { READY - FEW }>);

impl Crate {
    /// A full one.
    pub fn new() -> Box<Self> {
        Box::new(Self((0..READY - FEW).map(|_| Ring::new()).collect()))
    }
}

/// The windows that a worker has ready for sessions which need one.
#[derive(Debug)]
pub struct SpareWindows {
    rings: ArrayVec<Box<Ring>, READY>,
    is_asked: bool,
    missing: u64,
}

impl SpareWindows {
    /// So many, [`READY`] at most.
    pub fn new(count: usize) -> Box<Self> {
        Box::new(Self { rings: (0..count.min(READY)).map(|_| Ring::new()).collect(), is_asked: false, missing: 0 })
    }

    /// One of them; what it holds is somebody else's.
    pub(super) fn take(&mut self) -> Option<Box<Ring>> {
        let ring = self.rings.pop();
        self.missing += u64::from(ring.is_none());
        ring
    }

    /// How often there was none left.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Keeps a window that a session no longer needs, or gives it back if there are enough.
    pub(super) fn put_back(&mut self, ring: Box<Ring>) -> Option<Box<Ring>> {
        self.rings.try_push(ring).err().map(|full| full.element())
    }

    /// Whether it is time to ask for more. Says so once, until they have come.
    #[inline]
    pub fn wants_more(&mut self) -> bool {
        self.rings.len() < FEW && !std::mem::replace(&mut self.is_asked, true)
    }

    /// Notes that nobody heard the question.
    pub fn ask_again(&mut self) {
        self.is_asked = false;
    }

    /// Takes what there is room for. The rest stays in the crate, for who made it to free.
    pub fn add(&mut self, more: &mut Crate) {
        while !self.rings.is_full()
            && let Some(ring) = more.0.pop()
        {
            self.rings.push(ring);
        }
        self.is_asked = false;
    }
}
