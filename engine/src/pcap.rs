//! The classic pcap file format (libpcap's `pcap-savefile(5)`), read and written.
//!
//! ```text
//!   file header, 24 bytes: magic | version major, minor | zone | accuracy | snapshot length | link type
//!   each record, 16 bytes: seconds | micro- or nanoseconds | captured length | original length, then the captured bytes
//! ```
//!
//! The magic number tells the byte order, and whether the fraction counts micro- or nanoseconds.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The link type of Ethernet frames.
pub const LINK_TYPE_ETHERNET: u32 = 1;

/// Longer records than this are taken for damage: the limit of libpcap itself.
pub const MAX_RECORD: u32 = 262_144;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Why a capture file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The system refused.
    #[error("{}: byte {offset}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// How far it was read or written.
        offset: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// The file does not begin as a pcap file does.
    #[error(
        "{}: byte 0: {magic:#010x} is not the magic number of a pcap file (pcapng files have to be converted: `editcap -F pcap`)",
        path.display()
    )]
    NotPcap {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        magic: u32,
    },
    /// The file holds something else than Ethernet frames.
    #[error("{}: byte 20: link type {link_type}; only Ethernet (1) is read", path.display())]
    LinkType {
        /// The file.
        path: PathBuf,
        /// The link type.
        link_type: u32,
    },
    /// The file ends within a header or a packet.
    #[error("{}: byte {offset}: the file ends within a record that begins here", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
    },
    /// A record says that it is longer than any can be.
    #[error("{}: byte {offset}: a record of {length} bytes; more than {MAX_RECORD} means that the file is damaged", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The length that it claims.
        length: u32,
    },
}

/// What a record says of its packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When it was captured, since the Unix epoch.
    pub at: Duration,
    /// How long it was on the wire; the capture may hold less.
    pub original_length: u32,
}

/// A capture file that is being read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    order: ByteOrder,
    fraction_nanoseconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn word(self, bytes: &[u8], index: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[4 * index..4 * index + 4]);
        match self {
            Self::Little => u32::from_le_bytes(word),
            Self::Big => u32::from_be_bytes(word),
        }
    }
}

impl Reader {
    /// Opens a capture of Ethernet frames.
    pub fn open(path: &Path) -> Result<Self, PcapError> {
        let fail = |cause| PcapError::Io { path: path.into(), offset: 0, cause };
        let mut file = BufReader::new(File::open(path).map_err(fail)?);
        let mut header = [0; FILE_HEADER];
        file.read_exact(&mut header).map_err(|cause| match cause.kind() {
            ErrorKind::UnexpectedEof => PcapError::Truncated { path: path.into(), offset: 0 },
            _ => fail(cause),
        })?;
        let (order, fraction_nanoseconds) = match (ByteOrder::Little.word(&header, 0), ByteOrder::Big.word(&header, 0))
        {
            (MAGIC_MICROSECONDS, _) => (ByteOrder::Little, 1000),
            (MAGIC_NANOSECONDS, _) => (ByteOrder::Little, 1),
            (_, MAGIC_MICROSECONDS) => (ByteOrder::Big, 1000),
            (_, MAGIC_NANOSECONDS) => (ByteOrder::Big, 1),
            (_, magic) => return Err(PcapError::NotPcap { path: path.into(), magic }),
        };
        // The upper bits may say how long the frames' checksums are.
        let link_type = order.word(&header, 5) & 0x03ff_ffff;
        if link_type != LINK_TYPE_ETHERNET {
            return Err(PcapError::LinkType { path: path.into(), link_type });
        }
        Ok(Self { path: path.into(), file, offset: FILE_HEADER as u64, order, fraction_nanoseconds })
    }

    /// Appends the next packet's captured bytes to `data`. `None` at the end of the file.
    pub fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<Record>, PcapError> {
        let mut header = [0; RECORD_HEADER];
        match self.read(&mut header)? {
            0 => return Ok(None),
            RECORD_HEADER => {}
            _ => return Err(self.truncated()),
        }
        let [seconds, fraction, length, original_length] = [0, 1, 2, 3].map(|index| self.order.word(&header, index));
        if length > MAX_RECORD {
            return Err(PcapError::TooLong { path: self.path.clone(), offset: self.offset, length });
        }
        let start = data.len();
        data.resize(start + length as usize, 0);
        if self.read(&mut data[start..])? < length as usize {
            data.truncate(start);
            return Err(self.truncated());
        }
        self.offset += RECORD_HEADER as u64 + u64::from(length);
        let nanos = u64::from(fraction) * u64::from(self.fraction_nanoseconds);
        Ok(Some(Record { at: Duration::from_secs(u64::from(seconds)) + Duration::from_nanos(nanos), original_length }))
    }

    /// Reads until `bytes` is full or the file ends.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, PcapError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) => return Err(PcapError::Io { path: self.path.clone(), offset: self.offset, cause }),
            }
        }
        Ok(filled)
    }

    fn truncated(&self) -> PcapError {
        PcapError::Truncated { path: self.path.clone(), offset: self.offset }
    }
}

/// A capture file that is being written: Ethernet frames, nanoseconds, this machine's byte order.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
}

impl Writer {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<Self, PcapError> {
        let fail = |cause| PcapError::Io { path: path.into(), offset: 0, cause };
        let mut writer = Self { path: path.into(), file: BufWriter::new(File::create(path).map_err(fail)?), offset: 0 };
        writer.words([MAGIC_NANOSECONDS, u32::from_ne_bytes(version()), 0, 0, MAX_RECORD, LINK_TYPE_ETHERNET])?;
        Ok(writer)
    }

    /// Appends a packet that was seen at `at` (since the Unix epoch).
    pub fn write(&mut self, at: Duration, packet: &[u8]) -> Result<(), PcapError> {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX).min(MAX_RECORD);
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        self.words([seconds, at.subsec_nanos(), length, u32::try_from(packet.len()).unwrap_or(u32::MAX)])?;
        self.bytes(&packet[..length as usize])
    }

    /// Hands all that was written to the system.
    pub fn flush(&mut self) -> Result<(), PcapError> {
        self.file.flush().map_err(|cause| PcapError::Io { path: self.path.clone(), offset: self.offset, cause })
    }

    fn words<const N: usize>(&mut self, words: [u32; N]) -> Result<(), PcapError> {
        words.iter().try_for_each(|word| self.bytes(&word.to_ne_bytes()))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), PcapError> {
        let fail = |cause| PcapError::Io { path: self.path.clone(), offset: self.offset, cause };
        self.file.write_all(bytes).map_err(fail)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// The format's version, 2.4, as two 16-bit numbers of this machine's byte order.
fn version() -> [u8; 4] {
    let ([m0, m1], [n0, n1]) = (2_u16.to_ne_bytes(), 4_u16.to_ne_bytes());
    [m0, m1, n0, n1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the given byte order and fraction unit with one packet at 1.000002 s, or 1.000000002 s.
    fn file(magic: u32, word: fn(u32) -> [u8; 4], half: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mut bytes = word(magic).to_vec();
        bytes.extend([half(2), half(4)].concat());
        bytes.extend([0, 0, 65_535, 1, 1, 2, 3, 60].map(word).concat());
        bytes.extend([10, 11, 12]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Record, Vec<u8>)>, PcapError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut reader = Reader::open(file.path())?;
        let mut records = Vec::new();
        loop {
            let mut data = Vec::new();
            match reader.next(&mut data)? {
                Some(record) => records.push((record, data)),
                None => return Ok(records),
            }
        }
    }

    #[test]
    fn both_byte_orders_and_both_fractions_are_read() {
        let little = (u32::to_le_bytes as fn(u32) -> [u8; 4], u16::to_le_bytes as fn(u16) -> [u8; 2]);
        let big = (u32::to_be_bytes as fn(u32) -> [u8; 4], u16::to_be_bytes as fn(u16) -> [u8; 2]);
        for (word, half) in [little, big] {
            for (magic, nanos) in [(MAGIC_MICROSECONDS, 2000), (MAGIC_NANOSECONDS, 2)] {
                let records = read(&file(magic, word, half)).unwrap();
                let record = Record { at: Duration::new(1, nanos), original_length: 60 };
                assert_eq!(records, [(record, vec![10, 11, 12])]);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::create(file.path()).unwrap();
        let packets: Vec<Vec<u8>> = (0..50).map(|length| vec![length as u8; length * 31]).collect();
        for (number, packet) in packets.iter().enumerate() {
            writer.write(Duration::new(7, number as u32), packet).unwrap();
        }
        writer.flush().unwrap();
        let mut reader = Reader::open(file.path()).unwrap();
        for (number, packet) in packets.iter().enumerate() {
            let mut data = Vec::new();
            let record = reader.next(&mut data).unwrap().unwrap();
            assert_eq!(record, Record { at: Duration::new(7, number as u32), original_length: packet.len() as u32 });
            assert_eq!(&data, packet);
        }
        assert_eq!(reader.next(&mut Vec::new()).unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_name_and_the_place_of_the_damage() {
        let good = file(MAGIC_MICROSECONDS, u32::to_le_bytes, u16::to_le_bytes);
        let with = |offset: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[offset..offset + bytes.len()].copy_from_slice(bytes);
            file
        };
        let cases = [
            (good[..good.len() - 1].to_vec(), "byte 24: the file ends"),
            (good[..30].to_vec(), "byte 24: the file ends"),
            (good[..10].to_vec(), "byte 0: the file ends"),
            (with(0, &[0x0a, 0x0d, 0x0d, 0x0a]), "byte 0: 0x0a0d0d0a is not"),
            (with(20, &[113]), "byte 20: link type 113"),
            (with(34, &[16]), "byte 24: a record of 1048579 bytes"),
        ];
        for (bytes, expected) in cases {
            let message = read(&bytes).unwrap_err().to_string();
            assert!(message.contains(expected) && message.starts_with('/'), "{message}");
        }
    }
}
