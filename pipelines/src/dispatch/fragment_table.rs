//! interim
use crate::packet::fragment::{Datagram, FragmentHeader};
use crate::time::Instant;
use std::collections::HashMap;
pub enum Piece<T> {
    Known(T),
    Unknown,
    Overlap,
}
#[derive(Debug)]
pub struct FragmentTable<T> {
    m: HashMap<Datagram, T>,
}
impl<T: Copy> FragmentTable<T> {
    pub fn new(_k: [u64; 4]) -> Self {
        Self { m: HashMap::new() }
    }
    pub fn knows(&self, h: &FragmentHeader) -> bool {
        self.m.contains_key(&h.datagram)
    }
    pub fn first(&mut self, h: &FragmentHeader, t: T, _n: Instant) -> Piece<T> {
        self.m.insert(h.datagram, t);
        Piece::Known(t)
    }
    pub fn later(&mut self, h: &FragmentHeader, _n: Instant) -> Piece<T> {
        self.m.get(&h.datagram).copied().map_or(Piece::Unknown, Piece::Known)
    }
}
