//! Frames for the tests of this crate.

/// A UDP datagram from 10.0.0.`source`, port `source_port`, to 10.0.0.`destination`, port 9, in an Ethernet frame.
pub(crate) fn udp_frame(source: u8, destination: u8, source_port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = (8 + payload.len()) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, destination, 2, 0, 0, 0, 0, source, 0x08, 0x00];
    frame.extend([0x45, 0]);
    frame.extend((20 + udp_length).to_be_bytes());
    frame.extend([0x4a, 0x57, 0, 0, 64, 17, 0, 0, 10, 0, 0, source, 10, 0, 0, destination]);
    let sum: u32 = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    for word in [source_port, 9, udp_length, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}
