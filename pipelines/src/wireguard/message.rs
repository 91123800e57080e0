//! The four messages of WireGuard on the wire (paper, section 5.4).
//!
//! ```text
//! initiation   type:1 0:3 sender:4 ephemeral:32 static:48 timestamp:28 mac1:16 mac2:16     148 bytes
//! response     type:1 0:3 sender:4 receiver:4 ephemeral:32 nothing:16 mac1:16 mac2:16       92 bytes
//! cookie reply type:1 0:3 receiver:4 nonce:24 cookie:32                                     64 bytes
//! data         type:1 0:3 receiver:4 counter:8 packet:16..                                  32 bytes or more
//! ```
//! Integers are little-endian. Views borrow from the datagram; nothing here decrypts or checks a MAC.

use super::constants::{COOKIE_REPLY_SIZE, DATA_HEADER_SIZE, INITIATION_SIZE, KEEPALIVE_SIZE, RESPONSE_SIZE};

/// Which message a datagram holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageType {
    /// Type 1: asks for a session.
    Initiation,
    /// Type 2: agrees to one.
    Response,
    /// Type 3: asks the sender to prove its address before we work for it.
    CookieReply,
    /// Type 4: carries an encrypted packet, or nothing.
    Data,
}

/// Why a datagram is no WireGuard message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Shorter than its type asks for, or too short to have a type.
    #[error("the datagram is shorter than its message")]
    Truncated,
    /// Longer than its type allows.
    #[error("the datagram is longer than its message")]
    Overlong,
    /// A type other than 1 to 4.
    #[error("the message type is unknown")]
    UnknownType,
    /// The three bytes behind the type are not zero.
    #[error("the reserved bytes are not zero")]
    Reserved,
}

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
const DATA: u8 = 4;

/// Bytes that the two MACs take at the end of an initiation or response.
pub const MACS_SIZE: usize = 32;
/// An initiation up to its MACs.
pub type InitiationBody = [u8; INITIATION_SIZE - MACS_SIZE];
/// A response up to its MACs.
pub type ResponseBody = [u8; RESPONSE_SIZE - MACS_SIZE];

/// Tells which message `datagram` holds: its type, reserved bytes and length are right.
pub fn classify(datagram: &[u8]) -> Result<MessageType, Malformed> {
    let Some((&[kind, reserved @ ..], _)) = datagram.split_first_chunk::<4>() else {
        return Err(Malformed::Truncated);
    };
    let (message, size) = match kind {
        INITIATION => (MessageType::Initiation, INITIATION_SIZE),
        RESPONSE => (MessageType::Response, RESPONSE_SIZE),
        COOKIE_REPLY => (MessageType::CookieReply, COOKIE_REPLY_SIZE),
        DATA => (MessageType::Data, KEEPALIVE_SIZE),
        _ => return Err(Malformed::UnknownType),
    };
    if reserved != [0; 3] {
        return Err(Malformed::Reserved);
    }
    if datagram.len() < size {
        return Err(Malformed::Truncated);
    }
    if datagram.len() > size && message != MessageType::Data {
        return Err(Malformed::Overlong);
    }
    Ok(message)
}

/// A handshake initiation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Initiation<'a> {
    /// The index under which the initiator wants to receive.
    pub sender: u32,
    /// The initiator's ephemeral public key.
    pub ephemeral: &'a [u8; 32],
    /// The initiator's static public key, encrypted.
    pub encrypted_static: &'a [u8; 48],
    /// The initiator's TAI64N timestamp, encrypted.
    pub encrypted_timestamp: &'a [u8; 28],
    /// Proves that the sender knows whom it talks to.
    pub mac1: &'a [u8; 16],
    /// Proves the sender's address, or zero.
    pub mac2: &'a [u8; 16],
}

impl<'a> Initiation<'a> {
    /// What all of them begin with: their type and reserved bytes.
    pub const BEGINNING: [u8; 4] = [INITIATION, 0, 0, 0];

    /// Reads an initiation.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(datagram, MessageType::Initiation)?;
        Ok(Self {
            sender: u32::from_le_bytes(*fields.take()?),
            ephemeral: fields.take()?,
            encrypted_static: fields.take()?,
            encrypted_timestamp: fields.take()?,
            mac1: fields.take()?,
            mac2: fields.take()?,
        })
    }

    /// An initiation's bytes up to its MACs.
    pub fn body(sender: u32, ephemeral: &[u8; 32], r#static: &[u8; 48], timestamp: &[u8; 28]) -> InitiationBody {
        concat(&[&Self::BEGINNING, &sender.to_le_bytes(), ephemeral, r#static, timestamp])
    }
}

/// A handshake response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response<'a> {
    /// The index under which the responder wants to receive.
    pub sender: u32,
    /// The initiator's index.
    pub receiver: u32,
    /// The responder's ephemeral public key.
    pub ephemeral: &'a [u8; 32],
    /// The tag of an empty plaintext.
    pub encrypted_nothing: &'a [u8; 16],
    /// Proves that the sender knows whom it talks to.
    pub mac1: &'a [u8; 16],
    /// Proves the sender's address, or zero.
    pub mac2: &'a [u8; 16],
}

impl<'a> Response<'a> {
    /// What all of them begin with: their type and reserved bytes.
    pub const BEGINNING: [u8; 4] = [RESPONSE, 0, 0, 0];

    /// Reads a response.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(datagram, MessageType::Response)?;
        Ok(Self {
            sender: u32::from_le_bytes(*fields.take()?),
            receiver: u32::from_le_bytes(*fields.take()?),
            ephemeral: fields.take()?,
            encrypted_nothing: fields.take()?,
            mac1: fields.take()?,
            mac2: fields.take()?,
        })
    }

    /// A response's bytes up to its MACs.
    pub fn body(sender: u32, receiver: u32, ephemeral: &[u8; 32], nothing: &[u8; 16]) -> ResponseBody {
        concat(&[&Self::BEGINNING, &sender.to_le_bytes(), &receiver.to_le_bytes(), ephemeral, nothing])
    }
}

/// A cookie reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CookieReply<'a> {
    /// The index of the message that it answers.
    pub receiver: u32,
    /// The nonce under which the cookie is encrypted.
    pub nonce: &'a [u8; 24],
    /// The cookie, encrypted.
    pub encrypted_cookie: &'a [u8; 32],
}

impl<'a> CookieReply<'a> {
    /// Reads a cookie reply.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of(datagram, MessageType::CookieReply)?;
        Ok(Self {
            receiver: u32::from_le_bytes(*fields.take()?),
            nonce: fields.take()?,
            encrypted_cookie: fields.take()?,
        })
    }

    /// The cookie reply's bytes.
    pub fn to_bytes(&self) -> [u8; COOKIE_REPLY_SIZE] {
        concat(&[&[COOKIE_REPLY, 0, 0, 0], &self.receiver.to_le_bytes(), self.nonce, self.encrypted_cookie])
    }
}

/// A data message.
///
/// As the kernel does, any length of at least a keepalive's is taken: padding is the sender's duty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data<'a> {
    /// The receiver's index.
    pub receiver: u32,
    /// The message's number in its session: its nonce.
    pub counter: u64,
    /// The encrypted packet with its tag.
    pub encrypted_packet: &'a [u8],
}

impl<'a> Data<'a> {
    /// Reads a data message.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        // One look at the whole header: this is done for every packet of every tunnel.
        match datagram.split_first_chunk::<DATA_HEADER_SIZE>() {
            Some(([DATA, 0, 0, 0, r0, r1, r2, r3, counter @ ..], encrypted_packet))
                if datagram.len() >= KEEPALIVE_SIZE =>
            {
                let receiver = u32::from_le_bytes([*r0, *r1, *r2, *r3]);
                Ok(Self { receiver, counter: u64::from_le_bytes(*counter), encrypted_packet })
            }
            Some(_) | None => Err(classify(datagram).err().unwrap_or(Malformed::UnknownType)),
        }
    }

    /// The bytes before the encrypted packet.
    #[inline]
    pub fn header(receiver: u32, counter: u64) -> [u8; DATA_HEADER_SIZE] {
        let first = u128::from(DATA) | u128::from(receiver) << 32 | u128::from(counter) << 64;
        first.to_le_bytes()
    }
}

/// What is left of a datagram whose fields are being taken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(datagram: &'a [u8], expected: MessageType) -> Result<Self, Malformed> {
        if classify(datagram)? != expected {
            return Err(Malformed::UnknownType);
        }
        Ok(Self(datagram.get(4..).ok_or(Malformed::Truncated)?))
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(field)
    }
}

/// Joins fields whose lengths add up to `N`; every caller's do, by its types.
fn concat<const N: usize>(fields: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    let all = fields.iter().flat_map(|field| field.iter());
    for (byte, value) in bytes.iter_mut().zip(all) {
        *byte = *value;
    }
    bytes
}

/// The receiver index of a message of a kind that has one.
pub fn receiver(kind: MessageType, message: &[u8]) -> Option<u32> {
    match kind {
        MessageType::Initiation => None,
        MessageType::Response => Response::parse(message).ok().map(|response| response.receiver),
        MessageType::CookieReply => CookieReply::parse(message).ok().map(|reply| reply.receiver),
        MessageType::Data => Data::parse(message).ok().map(|data| data.receiver),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[0] = kind;
        bytes
    }

    #[test]
    fn a_message_has_its_types_exact_length() {
        let cases = [
            (1, 148, MessageType::Initiation),
            (2, 92, MessageType::Response),
            (3, 64, MessageType::CookieReply),
            (4, 32, MessageType::Data),
        ];
        for (kind, size, message) in cases {
            assert_eq!(classify(&datagram(kind, size)), Ok(message));
            assert_eq!(classify(&datagram(kind, size - 1)), Err(Malformed::Truncated));
            let longer = if message == MessageType::Data { Ok(message) } else { Err(Malformed::Overlong) };
            assert_eq!(classify(&datagram(kind, size + 1)), longer);
        }
    }

    #[test]
    fn other_types_and_reserved_bytes_are_refused() {
        for kind in [0, 5, 255] {
            assert_eq!(classify(&datagram(kind, 148)), Err(Malformed::UnknownType));
        }
        for reserved in 1..4 {
            let mut bytes = datagram(1, 148);
            bytes[reserved] = 1;
            assert_eq!(classify(&bytes), Err(Malformed::Reserved));
        }
        for length in 0..4 {
            assert_eq!(classify(&vec![1; length]), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn fields_stand_where_the_paper_puts_them() {
        let mut body = Initiation::body(0x0403_0201, &[5; 32], &[6; 48], &[7; 28]).to_vec();
        body.extend([8; 16]);
        body.extend([9; 16]);
        assert_eq!(body[..8], [1, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!((body[8], body[40], body[88], body[116], body[132]), (5, 6, 7, 8, 9));
        let initiation = Initiation::parse(&body).unwrap();
        assert_eq!(initiation.sender, 0x0403_0201);
        assert_eq!((initiation.mac1, initiation.mac2), (&[8; 16], &[9; 16]));

        let mut body = Response::body(1, 2, &[3; 32], &[4; 16]).to_vec();
        body.extend([5; 32]);
        assert_eq!((body[0], body[4], body[8], body[12], body[44], body[60]), (2, 1, 2, 3, 4, 5));
        assert_eq!(Response::parse(&body).unwrap().receiver, 2);

        let reply = CookieReply { receiver: 7, nonce: &[8; 24], encrypted_cookie: &[9; 32] };
        assert_eq!(CookieReply::parse(&reply.to_bytes()), Ok(reply));

        let mut data = Data::header(0x0403_0201, 0x0c0b_0a09_0807_0605).to_vec();
        assert_eq!(data, [4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        data.extend([1; 20]);
        assert_eq!(Data::parse(&data).unwrap().encrypted_packet, [1; 20]);
    }

    proptest! {
        #[test]
        fn no_datagram_panics_and_each_is_read_as_at_most_one_message(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in 0u8..6,
            reserved in prop_oneof![Just([0u8; 3]), any::<[u8; 3]>()],
        ) {
            if let Some(head) = bytes.first_chunk_mut::<4>() {
                *head = [kind, reserved[0], reserved[1], reserved[2]];
            }
            let read = [
                Initiation::parse(&bytes).map(|_| MessageType::Initiation).ok(),
                Response::parse(&bytes).map(|_| MessageType::Response).ok(),
                CookieReply::parse(&bytes).map(|_| MessageType::CookieReply).ok(),
                Data::parse(&bytes).map(|_| MessageType::Data).ok(),
            ];
            let read: Vec<_> = read.into_iter().flatten().collect();
            prop_assert_eq!(read, classify(&bytes).into_iter().collect::<Vec<_>>());
        }
    }
}
