//! A twin: the interface in the kernel that stands for one of our ports or tunnels.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use jetway_pipelines::ids::{PortId, TunnelId};
use jetway_pipelines::tables::Twin;
use nix::net::if_::if_nametoindex;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::twin_error::TwinError;

/// A TAP or TUN that we hold open. It vanishes from the kernel when this is dropped, or the process dies.
///
/// A program that is being started at the moment of the drop holds a copy of the file until it runs, and with it the
/// interface; [`TwinDevice::close`] waits for that. It begins down and without addresses; these are set through rtnetlink.
pub struct TwinDevice {
    twin: Twin,
    name: String,
    mtu: u16,
    device: SyncDevice,
}

impl TwinDevice {
    /// Makes the TAP `name` for a port, in the network namespace of this thread. It bears the port's MAC.
    pub fn tap(port: PortId, name: &str, mac: [u8; 6], mtu: u16) -> Result<Self, TwinError> {
        let builder = DeviceBuilder::new().layer(Layer::L2).mac_addr(mac);
        Self::make(Twin::Port(port), name, mtu, builder)
    }

    /// Makes the TUN `name` for a tunnel, in the network namespace of this thread.
    pub fn tun(tunnel: TunnelId, name: &str, mtu: u16) -> Result<Self, TwinError> {
        let device = Self::make(Twin::Tunnel(tunnel), name, mtu, DeviceBuilder::new().layer(Layer::L3))?;
        // The kernel would give it a link-local address and look for routers: inside a tunnel there are none. Where
        // IPv6 is switched off there is no such setting.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
        Ok(device)
    }

    fn make(twin: Twin, name: &str, mtu: u16, builder: DeviceBuilder) -> Result<Self, TwinError> {
        check_name(name)?;
        // The kernel would attach us to an idle TAP of that name instead of refusing.
        if if_nametoindex(name).is_ok() {
            return Err(TwinError::taken(name));
        }
        let device = builder
            .name(name)
            .mtu(mtu)
            .inherit_enable_state()
            .build_sync()
            .and_then(|device| device.set_nonblocking(true).map(|()| device))
            .map_err(|cause| TwinError::from_system(name, cause))?;
        Ok(Self { twin, name: name.into(), mtu, device })
    }

    /// Removes it from the kernel. When this returns its name is free again; called in the namespace that it was made in.
    pub fn close(self) {
        /// In milliseconds: far more than a program takes from being forked to running.
        const PATIENCE: u32 = 2_000;
        let Self { name, device, .. } = self;
        drop(device);
        for _ in 0..PATIENCE {
            if if_nametoindex(name.as_str()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        tracing::warn!(interface = name, "the interface is still there: another process holds it");
    }

    /// Whose twin it is.
    pub fn twin(&self) -> Twin {
        self.twin
    }

    /// Its name in the kernel.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The longest packet that the kernel hands out, in bytes, with the MTU that it was made with.
    pub fn longest_packet(&self) -> usize {
        /// An Ethernet header with a VLAN tag.
        const FRAME_HEADER: usize = 18;
        match self.twin {
            Twin::Port(_) => FRAME_HEADER + usize::from(self.mtu),
            Twin::Tunnel(_) => usize::from(self.mtu),
        }
    }

    /// Reads one packet that the kernel sent into `packet`. Returns its length, cut to that of `packet`; the error
    /// is [`io::ErrorKind::WouldBlock`] when there is none.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        self.device.recv(packet)
    }

    /// Lets the kernel receive `packet`.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.device.send(packet).map(drop)
    }
}

impl AsFd for TwinDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl fmt::Debug for TwinDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwinDevice").field("twin", &self.twin).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The kernel's own rules for names of interfaces; `%` would make it number the name.
fn check_name(name: &str) -> Result<(), TwinError> {
    let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
    if fits && !name.contains(|c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control()) {
        Ok(())
    } else {
        Err(TwinError::Name { name: name.into() })
    }
}
