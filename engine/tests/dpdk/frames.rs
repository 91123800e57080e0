//! Frames of UDP and TCP with right checksums, computed here apart from the code under test.

use jetway_pipelines::buffer::{L4Offload, Network, Transport};

/// A frame of one flow, and where its parts lie.
pub struct L4Frame {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Where its checksum lies.
    pub checksum: std::ops::Range<usize>,
    /// The sum of its pseudo-header, as offloading wants it in the checksum's place.
    pub pseudo: [u8; 2],
    /// Its headers.
    pub layout: L4Offload,
}

/// A packet of `payload` bytes from port `flow` to port 9, between two addresses of documentation.
pub fn l4_frame(network: Network, transport: Transport, flow: u16, payload: usize) -> L4Frame {
    let (protocol, place, mut segment) = match transport {
        Transport::Udp => {
            (17, 6, [&flow.to_be_bytes()[..], &[0, 9], &(8 + payload as u16).to_be_bytes(), &[0, 0]].concat())
        }
        Transport::Tcp => {
            (6, 16, [&flow.to_be_bytes()[..], &[0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]].concat())
        }
    };
    segment.extend((0..payload).map(|place| (place * 7 + usize::from(flow)) as u8));
    let length = segment.len() as u16;
    let (ether_type, header, pseudo) = match network {
        Network::V4 => {
            let addresses = [192, 0, 2, 1, 198, 51, 100, 1];
            let mut header =
                [&[0x45, 0][..], &(20 + length).to_be_bytes(), &[0, 0, 0x40, 0, 64, protocol, 0, 0]].concat();
            header.extend(addresses);
            let checksum = (!sum(&header)).to_be_bytes();
            header[10..12].copy_from_slice(&checksum);
            (0x0800_u16, header, [&addresses[..], &[0, protocol], &length.to_be_bytes()].concat())
        }
        Network::V6 => {
            let mut addresses = [0; 32];
            addresses[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            addresses[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            (addresses[15], addresses[31]) = (1, 2);
            let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol, 64], &addresses].concat();
            (0x86dd, header, [&addresses[..], &[0, 0], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat())
        }
    };
    let checksum = !sum(&[pseudo.clone(), segment.clone()].concat());
    segment[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
    let start = 14 + header.len();
    L4Frame {
        checksum: start + place..start + place + 2,
        pseudo: sum(&pseudo).to_be_bytes(),
        layout: L4Offload { l2_length: 14, l3_length: header.len() as u16, network, transport },
        bytes: [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &ether_type.to_be_bytes(), &header, &segment].concat(),
    }
}

/// The sum of RFC 1071, not complemented.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
