//! The kernel's interface under a packet ring.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::device::Device;

/// Sets the MTU of the interface under a `net_af_packet` device; the driver itself takes frames as large as its ring's,
/// but DPDK believes that it knows no jumbo frames. `Unsupported` for other devices.
pub(super) fn set_mtu(device: &Device, mtu: u16) -> io::Result<()> {
    let interface = match device {
        Device::Virtual { name, arguments } if name.starts_with("net_af_packet") => arguments.get("iface"),
        Device::Virtual { .. } | Device::Pci { .. } => None,
    };
    let Some(interface) = interface else { return Err(io::ErrorKind::Unsupported.into()) };
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a request of zeros is a valid one, and the name leaves its last byte zero. The kernel reads the request
    // during the call alone; the descriptor is ours and closed by its owner.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as c_char;
        }
        request.ifr_ifru.ifru_mtu = i32::from(mtu);
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw const request) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
