//! A worker's receive sessions, found by the slot number in a data message's receiver index.

use jetway_aead::prefetch_read;

use crate::ids::SlotIndex;
use crate::wireguard::Receiver;

const PAGE_BITS: u32 = 8;
/// Slots in one page.
pub const PAGE_SLOTS: usize = 1 << PAGE_BITS;

/// Memory for [`PAGE_SLOTS`] slots, made by control so that no worker allocates.
#[derive(Debug)]
#[repr(align(64))]
pub struct Page([Option<Box<Receiver>>; PAGE_SLOTS]);

impl Page {
    /// An empty page.
    pub fn new() -> Box<Self> {
        Box::new(Self([const { None }; PAGE_SLOTS]))
    }

    /// Which page a slot lies in.
    pub const fn of(slot: SlotIndex) -> u32 {
        slot.0 >> PAGE_BITS
    }
}

/// The receive sessions of one worker.
#[derive(Debug)]
pub struct Slots {
    pages: Box<[Option<Box<Page>>]>,
}

impl Slots {
    /// Room for `slots` sessions; their pages come with the first session of each.
    pub fn with_capacity(slots: usize) -> Self {
        Self { pages: (0..slots.div_ceil(PAGE_SLOTS)).map(|_| None).collect() }
    }

    /// The session in `slot`.
    #[inline]
    pub fn get(&self, slot: SlotIndex) -> Option<&Receiver> {
        let page = self.pages.get(Page::of(slot) as usize)?.as_ref()?;
        page.0.get(within(slot))?.as_deref()
    }

    /// Has the place fetched that leads to the session in `slot`.
    #[inline]
    pub fn prefetch_place(&self, slot: SlotIndex) {
        if let Some(place) = self.pages.get(Page::of(slot) as usize).and_then(|page| page.as_ref()?.0.get(within(slot)))
        {
            prefetch_read(place);
        }
    }

    /// The session in `slot`, to be changed.
    #[inline]
    pub fn get_mut(&mut self, slot: SlotIndex) -> Option<&mut Receiver> {
        let page = self.pages.get_mut(Page::of(slot) as usize)?.as_mut()?;
        page.0.get_mut(within(slot))?.as_deref_mut()
    }

    /// Gives the table the memory for one page. A page that is there already stays, and `page` comes back.
    pub fn add_page(&mut self, number: u32, page: Box<Page>) -> Option<Box<Page>> {
        match self.pages.get_mut(number as usize) {
            Some(place @ None) => {
                *place = Some(page);
                None
            }
            Some(Some(_)) | None => Some(page),
        }
    }

    /// Puts a session into a slot and gives back what was there, or the session itself when its page is missing.
    pub fn install(&mut self, slot: SlotIndex, receiver: Box<Receiver>) -> Option<Box<Receiver>> {
        match self.place(slot) {
            Some(place) => place.replace(receiver),
            None => Some(receiver),
        }
    }

    /// Takes a session out of its slot.
    pub fn remove(&mut self, slot: SlotIndex) -> Option<Box<Receiver>> {
        self.place(slot)?.take()
    }

    fn place(&mut self, slot: SlotIndex) -> Option<&mut Option<Box<Receiver>>> {
        self.pages.get_mut(Page::of(slot) as usize)?.as_mut()?.0.get_mut(within(slot))
    }
}

const fn within(slot: SlotIndex) -> usize {
    slot.0 as usize & (PAGE_SLOTS - 1)
}
