//! The one table of reasons for which the data plane drops a packet.

/// Makes the table: each reason's number is its place, its name and meaning are given once.
macro_rules! drop_reasons {
    ($($variant:ident, $name:literal, $meaning:literal;)*) => {
        /// Why a packet was dropped. One variant stands for one rule.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $meaning] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name under which counters, metrics and traces show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line of meaning, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

drop_reasons! {
    EthernetTruncated, "ethernet_truncated", "The frame is shorter than its Ethernet header";
    NotForUs, "not_for_us", "The frame's destination MAC is neither ours, broadcast nor multicast";
    EtherTypeUnsupported, "ethertype_unsupported", "The frame carries neither IPv4, IPv6 nor ARP and no host twin takes it";
    IpVersionUnknown, "ip_version_unknown", "The packet's first four bits name neither IPv4 nor IPv6";
    Ipv4Malformed, "ipv4_malformed", "The IPv4 header is truncated or contradicts itself (RFC 791)";
    Ipv4BadChecksum, "ipv4_bad_checksum", "The IPv4 header checksum is wrong (RFC 791)";
    Ipv6Malformed, "ipv6_malformed", "The IPv6 header or its extension chain is truncated or contradicts itself (RFC 8200)";
    Ipv6ExtensionLimit, "ipv6_extension_limit", "The IPv6 packet has more extension headers than are walked";
    UdpMalformed, "udp_malformed", "The UDP header is truncated or its length field is wrong (RFC 768)";
    UdpBadChecksum, "udp_bad_checksum", "The UDP checksum is wrong (RFC 768, RFC 8200 section 8.1)";
    OuterFragment, "outer_fragment", "An IP fragment of a tunnel datagram: tunnels are not reassembled";
    WireguardMalformed, "wireguard_malformed", "A datagram on a tunnel's port that has no WireGuard message's type, reserved bytes and length";
    WireguardBadMac1, "wireguard_bad_mac1", "A handshake message whose mac1 is wrong: the sender does not know our public key";
    WireguardRateLimited, "wireguard_rate_limited", "A handshake message beyond its source's share";
    WireguardQueueFull, "wireguard_queue_full", "A handshake message that found the handshake queue full";
    WireguardNoSession, "wireguard_no_session", "A data message whose receiver index names no session";
    WireguardForged, "wireguard_forged", "A data message that failed authentication";
    WireguardReplayed, "wireguard_replayed", "A data message whose counter was seen before or lies behind the replay window";
    WireguardSessionExpired, "wireguard_session_expired", "A data message of a session past its life in time or messages";
    InnerMalformed, "inner_malformed", "The decrypted packet is not a whole IPv4 or IPv6 packet";
    InnerSourceNotAllowed, "inner_source_not_allowed", "The decrypted packet's source is not among the peer's allowed IPs";
    NoAllowedIp, "no_allowed_ip", "No peer of the tunnel allows the inner destination";
    NoEndpoint, "no_endpoint", "The peer has no known endpoint yet";
    NoSendSession, "no_send_session", "No session became ready for the peer while the packet waited";
    SendSessionExhausted, "send_session_exhausted", "The session used up its messages and the next is not there yet";
    NoRoute, "no_route", "No route leads to the destination";
    NoNeighbour, "no_neighbour", "The next hop did not answer while the packet waited";
    RouteBlackhole, "route_blackhole", "A blackhole or prohibit route of the kernel covers the destination";
    ReversePath, "reverse_path", "A packet in clear from a port whose source belongs to a tunnel";
    TtlExceeded, "ttl_exceeded", "The time to live or hop limit ran out here";
    TooBig, "too_big", "The packet exceeds the next link's MTU and may not be fragmented; the sender was told";
    MartianAddress, "martian_address", "A source or destination that may not be forwarded (multicast, loopback, unspecified)";
    HeldQueueFull, "held_queue_full", "Too many packets already waited for the same peer or neighbour";
    PuntRateLimited, "punt_rate_limited", "Traffic for the node itself beyond its meter";
    PuntQueueFull, "punt_queue_full", "The ring to the host path was full";
    HandoffQueueFull, "handoff_queue_full", "The ring to the packet's home worker was full";
    TransmitQueueFull, "transmit_queue_full", "The port's transmit queue was full";
    BufferNoRoom, "buffer_no_room", "The buffer had no room for the headers";
    BufferPoolEmpty, "buffer_pool_empty", "No buffer was free for a packet that we wanted to make";
    PeerRemoved, "peer_removed", "The packet's peer was removed while the packet was under way";
    EcnInconsistent, "ecn_inconsistent", "A congestion-experienced outer header on an inner packet that does not speak ECN (RFC 6040 section 4.2)";
    ServiceDown, "service_down", "No server of the service may take the packet, and it is configured to be refused then";
    ServiceMalformed, "service_malformed", "A packet of a service whose transport header is truncated or cannot be rewritten";
    ServerGone, "server_gone", "A packet of a flow whose server is down and that cannot be moved to another";
    ServerNotOnLink, "server_not_on_link", "The service forwards by link-layer address (\"l2\"), and the server is behind a router";
    TranslationPortsExhausted, "translation_ports_exhausted", "No port was free to stand for a client on its server's own link";
    FragmentMalformed, "fragment_malformed", "A fragment of a service's flow without a whole fragment header";
    FragmentUnknown, "fragment_unknown", "A later fragment of a service's flow whose first fragment did not come in time";
    FragmentDuplicate, "fragment_duplicate", "A fragment of a service's flow that has come before (RFC 8200 section 4.5)";
    FragmentOverlap, "fragment_overlap", "A fragment that overlaps another of its datagram (RFC 5722), is one of too many, or could hide a TCP header (RFC 1858)";
    EncapsulationUntrusted, "encapsulation_untrusted", "A packet inside another from an address that `[decapsulate] from` does not name, or by a port that does not lead there";
    EncapsulationMalformed, "encapsulation_malformed", "A packet that should hold another of IPv4 or IPv6, and does not, or has options of GRE or GUE that are not understood";
    Undecided, "undecided", "A stage left the packet without a verdict: a bug of ours, please report it";
    Consumed, "consumed", "Not a loss: a keepalive or handshake message that ended here as it should";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn every_reason_stands_at_its_number_under_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(names.insert(reason.name()), "{} stands twice", reason.name());
        }
    }
}
