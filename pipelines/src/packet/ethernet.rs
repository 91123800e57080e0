//! Ethernet frames with up to two VLAN tags (IEEE 802.3, 802.1Q).

use std::fmt;

use crate::drop_reason::DropReason;

use super::bytes_at;

/// Bytes of an Ethernet header without tags.
pub const HEADER_LENGTH: usize = 14;

/// Bytes of one VLAN tag.
pub const VLAN_TAG_LENGTH: usize = 4;

/// How many VLAN tags are looked through; what is behind more is an unknown EtherType.
pub const MAX_VLAN_TAGS: usize = 2;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the address stands for several stations; broadcast is one of them.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether the address stands for all stations.
    #[inline]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: Self = Self(0x0800);
    /// ARP (RFC 826).
    pub const ARP: Self = Self(0x0806);
    /// A customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// IPv6 (RFC 2464).
    pub const IPV6: Self = Self(0x86dd);
    /// A service VLAN tag (IEEE 802.1ad, "QinQ").
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    /// Whether a VLAN tag follows.
    #[inline]
    pub fn is_vlan(self) -> bool {
        self == Self::VLAN || self == Self::SERVICE_VLAN
    }
}

/// A VLAN tag: its EtherType, and priority, drop eligibility and VLAN number as they stand on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VlanTag {
    /// [`EtherType::VLAN`] or [`EtherType::SERVICE_VLAN`].
    pub ethertype: EtherType,
    /// Priority (3 bits), drop eligible (1 bit), VLAN (12 bits).
    pub control: u16,
}

impl VlanTag {
    /// The VLAN's number, `0..4096`; 0 tags a priority only.
    pub const fn vlan(self) -> u16 {
        self.control & 0x0fff
    }

    /// The priority code point, `0..8`.
    pub const fn priority(self) -> u8 {
        (self.control >> 13) as u8
    }
}

/// Why bytes are no Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Malformed: it ends within its header or a tag.
    #[error("the frame ends within its Ethernet header")]
    Truncated,
}

impl From<FrameError> for DropReason {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Truncated => Self::EthernetTruncated,
        }
    }
}

/// What an Ethernet header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where it goes.
    pub destination: MacAddress,
    /// Where it comes from.
    pub source: MacAddress,
    /// The VLAN tags, the outer one first.
    pub vlans: [Option<VlanTag>; MAX_VLAN_TAGS],
    /// What it carries, behind the tags.
    pub ethertype: EtherType,
    /// Where that begins.
    pub l3_offset: usize,
}

impl Frame {
    /// Parses the header of a frame without its checksum.
    #[inline]
    pub fn parse(data: &[u8]) -> Result<Self, FrameError> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] =
            *bytes_at::<HEADER_LENGTH>(data, 0).ok_or(FrameError::Truncated)?;
        let mut frame = Self {
            destination: MacAddress([d0, d1, d2, d3, d4, d5]),
            source: MacAddress([s0, s1, s2, s3, s4, s5]),
            vlans: [None; MAX_VLAN_TAGS],
            ethertype: EtherType(u16::from_be_bytes([t0, t1])),
            l3_offset: HEADER_LENGTH,
        };
        for tag in &mut frame.vlans {
            if !frame.ethertype.is_vlan() {
                break;
            }
            let [c0, c1, t0, t1] = *bytes_at(data, frame.l3_offset).ok_or(FrameError::Truncated)?;
            *tag = Some(VlanTag { ethertype: frame.ethertype, control: u16::from_be_bytes([c0, c1]) });
            frame.ethertype = EtherType(u16::from_be_bytes([t0, t1]));
            frame.l3_offset += VLAN_TAG_LENGTH;
        }
        Ok(frame)
    }

    /// What the frame that was parsed carries, with any padding behind it.
    #[inline]
    pub fn payload<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(self.l3_offset..).unwrap_or_default()
    }
}

/// What kind of packet an untagged frame to the station `to` carries, and that packet with any padding behind it.
/// `None` for every other frame: [`Frame::parse`] tells what it is. Cheaper than that, for what nearly every frame is.
#[inline(always)]
pub fn untagged_to(to: MacAddress, data: &[u8]) -> Option<(EtherType, &[u8])> {
    let (header, payload) = data.split_first_chunk::<HEADER_LENGTH>()?;
    let ethertype = EtherType(u16::from_be_bytes([header[12], header[13]]));
    (header.first_chunk() == Some(&to.0) && !ethertype.is_vlan() && !to.is_multicast()).then_some((ethertype, payload))
}

/// Writes an untagged header.
#[inline]
pub fn write(header: &mut [u8; HEADER_LENGTH], destination: MacAddress, source: MacAddress, ethertype: EtherType) {
    let (addresses, kind) = header.split_at_mut(12);
    let (to, from) = addresses.split_at_mut(6);
    to.copy_from_slice(&destination.0);
    from.copy_from_slice(&source.0);
    kind.copy_from_slice(&ethertype.0.to_be_bytes());
}
