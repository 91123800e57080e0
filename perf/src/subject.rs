//! The device under test: the engine, or testpmd's own forwarding, between two devices and on a core of its own.

use std::io;
use std::path::Path;

use crate::aead;
use crate::engine::Direction;
use crate::order_process::Process;
use crate::testpmd::Testpmd;
use crate::traffic::Size;

/// What stands between the devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The engine, to which packets of this direction are sent.
    Jetway(Direction),
    /// testpmd's mode `io`.
    Testpmd,
}

impl Subject {
    /// Which way packets are sent through it.
    pub fn direction(self) -> Direction {
        match self {
            Self::Jetway(direction) => direction,
            Self::Testpmd => Direction::Encrypt,
        }
    }
}

/// As what the figures of a subject are told.
#[derive(Clone, Debug)]
pub struct Names {
    /// Who it is.
    pub peer: String,
    /// What it does.
    pub scenario: &'static str,
    /// The packets' size.
    pub size: Size,
}

impl Names {
    /// The names of a subject; `None` for testpmd if there is none.
    pub fn of(subject: Subject, size: Size, testpmd: Option<&str>) -> Option<Self> {
        let (peer, scenario) = match subject {
            Subject::Jetway(direction) => ("jetway".to_owned(), direction.name()),
            Subject::Testpmd => (format!("testpmd {}", testpmd?), "io"),
        };
        Some(Self { peer, scenario, size })
    }

    /// All of them in one.
    pub fn what(&self) -> String {
        format!("{} {}, {}", self.scenario, self.size.name(), self.peer)
    }
}

/// A subject that runs, until it is dropped.
pub enum Running {
    /// This program as `under-test`.
    Jetway(Process),
    /// Debian's testpmd.
    Testpmd(Testpmd),
}

impl Running {
    /// Starts it on `core` between these devices, towards clients and towards servers.
    pub fn start(subject: Subject, core: usize, devices: &[String; 2]) -> io::Result<Self> {
        match subject {
            Subject::Jetway(_) => {
                let mut arguments = vec!["under-test".to_owned(), format!("--core={core}")];
                arguments.push(format!("--aead={}", aead::chosen().backend()));
                arguments.extend(named(devices));
                Process::start(&arguments).map(Self::Jetway)
            }
            Subject::Testpmd => {
                let mut testpmd = Testpmd::start(core, devices, &["--forward-mode=io", "--stats-period=2"])?;
                testpmd.wait_until_it_forwards()?;
                Ok(Self::Testpmd(testpmd))
            }
        }
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        match self {
            Self::Jetway(process) => process.id(),
            Self::Testpmd(process) => process.id(),
        }
    }
}

/// Two devices of net_memif, whose other ends have the other role, with their sockets in `folder`.
pub fn memif(role: &str, folder: &Path) -> [String; 2] {
    [(0, "wan"), (1, "lan")].map(|(number, name)| {
        let socket = folder.join(name);
        format!("net_memif{number},role={role},id=0,bsize=2048,rsize=13,socket={},socket-abstract=no", socket.display())
    })
}

/// The devices as this program's processes are told them.
pub fn named([wan, lan]: &[String; 2]) -> [String; 2] {
    [format!("--wan={wan}"), format!("--lan={lan}")]
}
