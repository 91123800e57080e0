use std::io;

use jetway_pipelines::ids::{PortId, TunnelId};

use super::namespace::{exists, in_namespace, ip};
use crate::host::{TwinDevice, TwinError};

const MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];

#[test]
fn a_twin_has_the_name_mac_and_mtu_that_were_asked_for_and_vanishes_when_closed() {
    in_namespace(|| {
        let tap = TwinDevice::tap(PortId(0), "jw-wan", MAC, 1400).unwrap();
        let tun = TwinDevice::tun(TunnelId(0), "jw0", 1280).unwrap();
        let show =
            |name: &str| String::from_utf8(super::namespace::run("ip", &format!("link show {name}")).stdout).unwrap();
        assert!(show("jw-wan").contains("mtu 1400") && show("jw-wan").contains("02:00:00:00:09:01"));
        assert!(show("jw0").contains("mtu 1280") && show("jw0").contains("link/none"));
        assert!(show("jw0").contains("state DOWN"), "its link state is not ours to set");
        assert_eq!((tap.longest_packet(), tun.longest_packet()), (1418, 1280));
        tap.close();
        tun.close();
        assert!(!exists("jw-wan") && !exists("jw0"));
    });
}

#[test]
fn a_name_that_is_taken_is_refused_with_who_has_it() {
    in_namespace(|| {
        let _first = TwinDevice::tun(TunnelId(0), "jw0", 1280).unwrap();
        let error = TwinDevice::tun(TunnelId(1), "jw0", 1280).unwrap_err();
        let process = format!("process {} (", std::process::id());
        assert!(error.to_string().contains(&process), "{error}");
        ip("link add jw-a type veth peer name jw-b");
        let error = TwinDevice::tap(PortId(0), "jw-a", MAC, 1500).unwrap_err();
        assert!(error.to_string().contains("ip link delete jw-a"), "{error}");
        ip("tuntap add dev jw-idle mode tap");
        assert!(matches!(TwinDevice::tap(PortId(0), "jw-idle", MAC, 1500), Err(TwinError::Taken { .. })));
    });
}

#[test]
fn a_name_that_the_kernel_would_not_take_or_would_change_is_refused() {
    for name in ["", "sixteen-letters-", "a/b", "a b", "jw%d", "..", "a:b"] {
        assert!(matches!(TwinDevice::tun(TunnelId(0), name, 1280), Err(TwinError::Name { .. })), "{name}");
    }
}

#[test]
fn what_the_system_refuses_is_told_with_what_to_do() {
    let cases = [
        (libc::ENOENT, "modprobe tun"),
        (libc::ENODEV, "modprobe tun"),
        (libc::EPERM, "CAP_NET_ADMIN"),
        (libc::EACCES, "run as root"),
        (libc::EBUSY, "taken by"),
        (libc::ENOMEM, "cannot make the interface jw-none"),
    ];
    for (errno, advice) in cases {
        let error = TwinError::from_system("jw-none", io::Error::from_raw_os_error(errno)).to_string();
        assert!(error.contains(advice), "{error}");
    }
}
