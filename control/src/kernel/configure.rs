//! Gives our interfaces in the kernel their addresses, MTU, MAC and link state.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::decode::address_of;
use super::event::{KernelLink, LinkState};
use super::netlink::RouteSocket;

/// How one of our interfaces shall be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TwinSettings {
    /// Its name; it must exist.
    pub name: String,
    /// Its addresses with the length of their networks' prefixes. Others that somebody else gave it stay.
    pub addresses: Vec<IpNet>,
    /// Addresses that it answers for, but that the kernel does not choose to speak from.
    pub services: Vec<IpAddr>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its Ethernet address; `None` leaves it as it is (a TUN has none).
    pub mac: Option<[u8; 6]>,
    /// Packets that the kernel holds for us at most. 500, the default of a TAP, costs two thirds of its rate.
    pub transmit_queue_length: u32,
}

/// What could not be set, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} of interface {interface}: {source}; {hint}")]
pub struct ConfigureError {
    /// What was to be done.
    pub what: String,
    /// To which interface.
    pub interface: String,
    /// What the user can do.
    pub hint: &'static str,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

/// Sets up interfaces through rtnetlink. Setting up the same twice changes nothing.
pub struct Configurator {
    socket: RouteSocket,
    assigned: BTreeMap<String, BTreeSet<IpNet>>,
}

impl Configurator {
    /// For the network namespace of the calling thread. Must be called on a tokio runtime.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: RouteSocket::open()?, assigned: BTreeMap::new() })
    }

    /// Makes the interface as `settings` say, sets it up, and takes away addresses that an earlier call gave it
    /// and this one does not name. Returns its index.
    pub async fn apply(&mut self, settings: &TwinSettings) -> Result<u32, ConfigureError> {
        let name = settings.name.as_str();
        let (index, link) = self.link(name).await?;
        self.set_link(index, &link, settings).await?;
        let services = settings.services.iter().copied().map(IpNet::from);
        let wanted: BTreeSet<IpNet> = settings.addresses.iter().copied().chain(services).collect();
        // Taken away first: with an address of IPv4 the kernel also takes its secondary ones, of the same network.
        for address in self.assigned.get(name).cloned().unwrap_or_default().difference(&wanted) {
            self.remove_address(index, name, *address).await?;
        }
        let present = self.addresses(index, name).await?;
        for address in wanted.difference(&present) {
            let role = if settings.addresses.contains(address) { Role::Own } else { Role::Service };
            self.add_address(index, name, *address, role).await?;
        }
        self.assigned.insert(name.to_owned(), wanted);
        Ok(index)
    }

    /// Forgets an interface that is gone, so that one of its name starts from nothing.
    pub fn forget(&mut self, name: &str) {
        self.assigned.remove(name);
    }

    async fn link(&mut self, name: &str) -> Result<(u32, KernelLink), ConfigureError> {
        let message = LinkUnspec::new_with_name(name).build();
        let answers = self.socket.execute(RouteNetlinkMessage::GetLink(message), NLM_F_ACK).await;
        let answers = answers.map_err(|error| failure("find the link", name, error))?;
        let link = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some((message.header.index, super::decode::link_of(&message))),
            _ => None,
        });
        link.ok_or_else(|| failure("find the link", name, io::Error::from_raw_os_error(libc::ENODEV)))
    }

    async fn set_link(&mut self, index: u32, link: &KernelLink, settings: &TwinSettings) -> Result<(), ConfigureError> {
        let name = settings.name.as_str();
        if let Some(mac) = settings.mac.filter(|mac| link.mac != Some(*mac)) {
            let attribute = LinkAttribute::Address(mac.to_vec());
            self.change(index, attribute).await.map_err(|error| failure("set the MAC", name, error))?;
        }
        if link.mtu != settings.mtu {
            let attribute = LinkAttribute::Mtu(settings.mtu);
            let what = format!("set the MTU to {}", settings.mtu);
            self.change(index, attribute).await.map_err(|error| failure(&what, name, error))?;
        }
        let attribute = LinkAttribute::TxQueueLen(settings.transmit_queue_length);
        self.change(index, attribute).await.map_err(|error| failure("set the transmit queue length", name, error))?;
        match link.state {
            LinkState::Up => Ok(()),
            LinkState::Down => {
                if link.mac.is_none() {
                    self.want_no_link_local(index).await;
                }
                let message = LinkUnspec::new_with_index(index).up().build();
                let result = self.socket.execute(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).await;
                result.map(drop).map_err(|error| failure("set up the link", name, error))
            }
        }
    }

    /// On a tunnel nobody speaks to a link-local address, and with one the kernel would send router solicitations
    /// and multicast reports into it. A kernel without IPv6 refuses, and then there is nothing to prevent.
    async fn want_no_link_local(&mut self, index: u32) {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        if let Err(error) = self.change(index, attribute).await {
            tracing::debug!(index, %error, "the kernel keeps its way to make link-local addresses");
        }
    }

    async fn change(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.socket.execute(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).await.map(drop)
    }

    async fn addresses(&mut self, index: u32, name: &str) -> Result<BTreeSet<IpNet>, ConfigureError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.socket.execute(request, NLM_F_DUMP).await;
        let answers = answers.map_err(|error| failure("list the addresses", name, error))?;
        let on_it = |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => address_of(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(on_it).collect())
    }

    async fn add_address(&mut self, index: u32, name: &str, address: IpNet, role: Role) -> Result<(), ConfigureError> {
        let mut message = address_message(index, address);
        if role == Role::Service {
            speak_from_others(&mut message);
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.socket.execute(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            Err(error) => Err(failure(&format!("add the address {address}"), name, error)),
        }
    }

    async fn remove_address(&mut self, index: u32, name: &str, address: IpNet) -> Result<(), ConfigureError> {
        let request = RouteNetlinkMessage::DelAddress(address_message(index, address));
        match self.socket.execute(request, NLM_F_ACK).await {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            Err(error) => Err(failure(&format!("remove the address {address}"), name, error)),
        }
    }
}

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The node speaks from it.
    Own,
    /// The node answers for it.
    Service,
}

/// Has the kernel choose other addresses for what it sends of itself: one of IPv4 is not offered beyond the link, one
/// of IPv6 is deprecated (RFC 6724 section 5, rule 3).
fn speak_from_others(message: &mut AddressMessage) {
    match message.header.family {
        AddressFamily::Inet => message.header.scope = AddressScope::Link,
        _ => {
            let mut lifetime = CacheInfo::default();
            (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    match address {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            if net.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // A node that restarts must answer at once, not after a second of duplicate address detection.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn failure(what: &str, interface: &str, source: io::Error) -> ConfigureError {
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => "run as root or with CAP_NET_ADMIN",
        Some(libc::ENODEV) => "the interface does not exist here; was it deleted or moved to another namespace?",
        Some(libc::EACCES | libc::EOPNOTSUPP) => {
            "if the address is IPv6, switch IPv6 on (sysctl net.ipv6.conf.all.disable_ipv6=0)"
        }
        Some(libc::EINVAL) => "check the value; IPv6 addresses need an MTU of at least 1280",
        Some(libc::ERANGE) => "the value is out of the range that the interface supports",
        _ => "see the kernel's log (dmesg) for the reason",
    };
    ConfigureError { what: what.to_owned(), interface: interface.to_owned(), hint, source }
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{in_namespace, ip};
    use super::*;

    fn settings(addresses: &[&str]) -> TwinSettings {
        TwinSettings {
            name: "jw-test".to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            services: Vec::new(),
            mtu: 1420,
            mac: Some([2, 0, 0, 0, 0, 7]),
            transmit_queue_length: 8_000,
        }
    }

    async fn addresses(configurator: &mut Configurator, index: u32) -> Vec<String> {
        let all = configurator.addresses(index, "jw-test").await.unwrap();
        all.into_iter().map(|net| net.to_string()).filter(|text| !text.starts_with("fe80")).collect()
    }

    #[test]
    fn a_twin_gets_what_its_settings_say_and_a_second_time_changes_nothing() {
        in_namespace(|| async {
            ip("tuntap add dev jw-test mode tap");
            let mut configurator = Configurator::open().unwrap();
            let wanted = settings(&["192.0.2.1/24", "2001:db8::1/64"]);
            let index = configurator.apply(&wanted).await.unwrap();
            assert_eq!(configurator.apply(&wanted).await.unwrap(), index);
            assert_eq!(addresses(&mut configurator, index).await, ["192.0.2.1/24", "2001:db8::1/64"]);
            let (_, link) = configurator.link("jw-test").await.unwrap();
            assert_eq!((link.mtu, link.mac, link.state), (1420, wanted.mac, LinkState::Up));
        });
    }

    #[test]
    fn a_tunnels_twin_has_no_address_but_those_of_its_settings() {
        in_namespace(|| async {
            ip("tuntap add dev jw-test mode tun");
            let mut configurator = Configurator::open().unwrap();
            let tunnel = TwinSettings { mac: None, ..settings(&["10.8.0.1/16", "fd00:8::1/64"]) };
            let index = configurator.apply(&tunnel).await.unwrap();
            let all = configurator.addresses(index, "jw-test").await.unwrap();
            assert_eq!(all, tunnel.addresses.into_iter().collect());
            // Without a reader the link has no carrier, and the kernel would make its address only later.
            let shown = std::process::Command::new("ip").args(["-d", "link", "show", "jw-test"]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            assert!(shown.contains("addrgenmode none"), "{shown}");
        });
    }

    #[test]
    fn new_settings_take_away_our_old_addresses_and_leave_those_of_others() {
        in_namespace(|| async {
            ip("tuntap add dev jw-test mode tap");
            let mut configurator = Configurator::open().unwrap();
            let index = configurator.apply(&settings(&["192.0.2.1/24", "2001:db8::1/64"])).await.unwrap();
            ip("addr add 198.51.100.9/32 dev jw-test");
            configurator.apply(&settings(&["192.0.2.2/24", "2001:db8::1/64"])).await.unwrap();
            let now = addresses(&mut configurator, index).await;
            assert_eq!(now, ["192.0.2.2/24", "198.51.100.9/32", "2001:db8::1/64"]);
        });
    }

    #[test]
    fn a_services_address_is_answered_for_but_not_spoken_from_and_goes_with_the_service() {
        in_namespace(|| async {
            ip("tuntap add dev jw-test mode tap");
            let mut configurator = Configurator::open().unwrap();
            let services = ["10.100.0.10", "2001:db8::10"].map(|address| address.parse().unwrap()).to_vec();
            let wanted = TwinSettings { services, ..settings(&["192.0.2.1/24", "2001:db8::1/64"]) };
            for _ in 0..2 {
                let index = configurator.apply(&wanted).await.unwrap();
                let now = addresses(&mut configurator, index).await;
                assert_eq!(now, ["10.100.0.10/32", "192.0.2.1/24", "2001:db8::1/64", "2001:db8::10/128"]);
            }
            let shown = std::process::Command::new("ip").args(["addr", "show", "dev", "jw-test"]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            assert!(shown.contains("inet 10.100.0.10/32 scope link jw-test"), "{shown}");
            assert!(shown.contains("inet6 2001:db8::10/128 scope global nodad deprecated"), "{shown}");
            let index = configurator.apply(&settings(&["192.0.2.1/24", "2001:db8::1/64"])).await.unwrap();
            assert_eq!(addresses(&mut configurator, index).await, ["192.0.2.1/24", "2001:db8::1/64"]);
        });
    }

    #[test]
    fn an_error_names_the_interface_and_what_to_do() {
        in_namespace(|| async {
            let mut configurator = Configurator::open().unwrap();
            let error = configurator.apply(&settings(&[])).await.unwrap_err().to_string();
            assert!(error.contains("jw-test") && error.contains("does not exist here"), "{error}");
            ip("tuntap add dev jw-test mode tap");
            let mut small = settings(&["2001:db8::1/64"]);
            small.mtu = 1000;
            let error = configurator.apply(&small).await.unwrap_err().to_string();
            assert!(error.contains("2001:db8::1/64") && error.contains("at least 1280"), "{error}");
        });
    }
}
