//! interim
use super::maglev::Maglev;
/// The choice.
#[derive(Debug)]
pub struct Chosen {
    pub position: u16,
}
pub fn choose(t: &Maglev, hash: u64, takes: impl Fn(u16) -> bool, members: usize) -> Option<Chosen> {
    let p = t.lookup(hash);
    if takes(p) {
        return Some(Chosen { position: p });
    }
    (0..members as u16).find(|p| takes(*p)).map(|position| Chosen { position })
}
