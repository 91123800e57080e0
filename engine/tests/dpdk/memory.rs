//! Ports without an interface, buffers and pools: these need no rights.

use jetway_engine::dpdk::device::Device;
use jetway_engine::dpdk::eal::{Eal, EalError, EalOptions, Memory};
use jetway_engine::dpdk::mbuf::free_burst;
use jetway_engine::dpdk::pool::{PoolOptions, Pools};
use jetway_engine::dpdk::port::{DpdkPort, PortError, PortOptions};
use jetway_engine::port::{BURST, Burst, Port};
use jetway_pipelines::buffer::{BufferPool, HEADROOM, PacketBuf};

use crate::world::{ReservedHugePages, Rig, eal_options, frame, free_huge_mib, in_own_process, skip, start_eal};

#[test]
fn what_is_sent_into_a_loop_comes_back_whole_and_in_order() {
    in_own_process("memory::what_is_sent_into_a_loop_comes_back_whole_and_in_order", || {
        let mut rig = Rig::open("net_ring0", 1, 1500);
        assert_eq!(rig.port.info().driver, "net_ring");
        assert!(rig.port.link_up());
        for round in 0..100 {
            let sizes =
                (0..BURST as u32).map(|index| (round * 64 + index, 18 + (round * 37 + index * 61) as usize % 1497));
            let sent: Vec<_> = sizes.map(|(number, size)| frame(number, size)).collect();
            let mut burst: Burst<_> = sent.iter().map(|bytes| rig.packet(bytes)).collect();
            assert_eq!((rig.queues[0].transmit(&mut burst), burst.len()), (BURST, 0));
            let mut back = Burst::new();
            assert_eq!(rig.queues[0].receive(&mut back), BURST);
            assert!(back.iter().map(|packet| packet.data().to_vec()).eq(sent), "round {round}");
            match round % 2 {
                0 => free_burst(&mut back),
                _ => drop(back),
            }
        }
        let counted = rig.port.statistics();
        assert_eq!((counted.received_packets, counted.transmitted_packets), (6400, 6400));
        assert_eq!(rig.close(), 0, "buffers leaked");
    });
}

#[test]
fn a_full_transmit_queue_leaves_the_rest_of_the_burst_to_its_sender() {
    in_own_process("memory::a_full_transmit_queue_leaves_the_rest_of_the_burst_to_its_sender", || {
        let mut rig = Rig::open("net_ring0", 1, 1500);
        let mut accepted = 0;
        let rest = loop {
            let first = accepted as u32;
            let mut burst: Burst<_> = (first..first + BURST as u32).map(|n| rig.packet(&frame(n, 60))).collect();
            accepted += rig.queues[0].transmit(&mut burst);
            if !burst.is_empty() {
                break burst;
            }
        };
        let next = frame(accepted as u32, 60);
        assert_eq!(rest[0].data(), next, "the first that was left is the first after those that were accepted");
        drop(rest);
        let mut burst = Burst::new();
        burst.push(rig.packet(&frame(u32::MAX, 60)));
        assert_eq!(rig.queues[0].receive(&mut burst), BURST - 1, "a burst that holds a packet has room for one less");
        assert_eq!((burst[0].data(), burst[1].data()), (&frame(u32::MAX, 60)[..], &frame(0, 60)[..]));
        drop(burst);
        assert_eq!(rig.close(), 0, "packets that stay in the ring are freed when the port closes");
    });
}

#[test]
fn a_source_and_sink_without_an_end_return_all_their_buffers() {
    in_own_process("memory::a_source_and_sink_without_an_end_return_all_their_buffers", || {
        let mut rig = Rig::open("net_null0,size=128", 1, 1500);
        for _ in 0..1000 {
            let mut burst = Burst::new();
            assert_eq!(rig.queues[0].receive(&mut burst), BURST);
            assert!(burst.iter().all(|packet| packet.data().len() == 128 && packet.headroom() >= HEADROOM));
            assert_eq!(rig.queues[0].transmit(&mut burst), BURST);
        }
        assert_eq!(rig.close(), 0, "buffers leaked");
    });
}

#[test]
fn an_empty_pool_gives_none_and_gives_again_what_any_thread_returned() {
    in_own_process("memory::an_empty_pool_gives_none_and_gives_again_what_any_thread_returned", || {
        let eal = start_eal();
        let pool = Pools::new(&eal, PoolOptions { buffers: 1023, max_mtu: 1500 }).on_node(None).expect("a pool");
        let mut allocator = pool.allocator();
        let all: Vec<_> = std::iter::from_fn(|| allocator.allocate()).collect();
        assert_eq!((all.len(), pool.available()), (1023, 0));
        for buffer in &all {
            assert!((buffer.data().len(), buffer.headroom()) == (0, HEADROOM) && buffer.tailroom() >= 2048 + 26);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _registered = eal.register_thread().expect("a worker more");
                drop(all);
            });
        });
        assert_eq!(pool.available(), 1023);
    });
}

#[test]
fn a_buffer_that_outlives_its_pool_and_dpdk_keeps_its_memory() {
    in_own_process("memory::a_buffer_that_outlives_its_pool_and_dpdk_keeps_its_memory", || {
        let mut rig = Rig::open("net_null0", 1, 1500);
        let mut last = rig.packet(&frame(7, 700));
        assert_eq!(rig.close(), 1);
        assert_eq!(last.data(), frame(7, 700));
        last.data_mut().fill(1);
        drop(last);
    });
}

#[test]
fn the_memory_that_pools_say_they_need_is_enough() {
    in_own_process("memory::the_memory_that_pools_say_they_need_is_enough", || {
        let size = PoolOptions { buffers: 32_767, max_mtu: 1500 };
        assert!((128..200).contains(&size.memory_mib(1)), "{} MiB", size.memory_mib(1));
        let eal = Eal::start(&EalOptions { memory_mib: size.memory_mib(1), ..eal_options() }).expect("DPDK starts");
        let mut pools = Pools::new(&eal, size);
        let open = |number| {
            let device: Device = format!("net_ring{number}").parse().expect("a device");
            DpdkPort::open(&mut pools, &PortOptions::new(device, 1, 1500)).expect("there is memory for it")
        };
        let ports: Vec<_> = (0..8).map(open).collect();
        assert!(ports.iter().all(|port| port.link_up()));
    });
}

#[test]
fn hugepages_are_used_when_enough_are_free_and_never_silently_replaced() {
    let test = "memory::hugepages_are_used_when_enough_are_free_and_never_silently_replaced";
    in_own_process(test, || {
        let start = |memory, memory_mib| Eal::start(&EalOptions { memory, memory_mib, ..eal_options() });
        let error = start(Memory::HugePages, u32::MAX / 2).err().expect("nobody has so many");
        assert!(error.to_string().contains("MiB of hugepages are wanted"), "{error}");
        let Some(_reserved) = ReservedHugePages::reserve(64) else {
            return skip(test, "64 MiB of memory that root may reserve as hugepages");
        };
        let eal = start(Memory::Automatic, 64).expect("hugepages that were reserved");
        assert!(eal.huge_pages());
        let mut pools = Pools::new(&eal, PoolOptions { buffers: 4095, max_mtu: 1500 });
        let port = PortOptions::new("net_ring0".parse().expect("a device"), 1, 1500);
        drop(DpdkPort::open(&mut pools, &port).expect("a port on hugepages"));
        assert_eq!(pools.on_node(None).expect("its pool").available(), 4095);
    });
}

#[test]
fn ordinary_pages_do_where_too_few_hugepages_are_free() {
    in_own_process("memory::ordinary_pages_do_where_too_few_hugepages_are_free", || {
        let size = PoolOptions { buffers: 1023, max_mtu: 1500 };
        // The test of hugepages may be reserving 64 MiB of them at this moment.
        let too_much = free_huge_mib() + 128;
        let options = EalOptions { memory: Memory::Automatic, memory_mib: too_much, ..eal_options() };
        let eal = Eal::start(&options).expect("ordinary pages will do");
        assert!(!eal.huge_pages());
        assert_eq!(Pools::new(&eal, size).on_node(None).expect("its pool").available(), 1023);
    });
}

#[test]
fn dpdk_starts_once_and_leaves_no_files() {
    in_own_process("memory::dpdk_starts_once_and_leaves_no_files", || {
        let eal = start_eal();
        assert!(matches!(Eal::start(&eal_options()), Err(EalError::AlreadyStarted)));
        let ours = format!("jetway-test-{}", std::process::id());
        for folder in ["/var/run/dpdk", "/run/dpdk", "/tmp/dpdk", "/dev/hugepages"] {
            let path = std::path::Path::new(folder).join(&ours);
            assert!(!path.exists(), "{} would stay behind after a crash", path.display());
        }
        drop(eal);
        assert!(matches!(Eal::start(&eal_options()), Err(EalError::AlreadyStarted)));
    });
}

#[test]
fn a_device_that_cannot_be_opened_says_why_and_harms_no_other() {
    in_own_process("memory::a_device_that_cannot_be_opened_says_why_and_harms_no_other", || {
        let mut pools = Pools::new(&start_eal(), PoolOptions { buffers: 1023, max_mtu: 1500 });
        let mut open = |device: &str, mtu| {
            let device: Device = device.parse().expect("a device");
            DpdkPort::open(&mut pools, &PortOptions::new(device, 1, mtu))
        };
        let unknown = open("net_nosuch0", 1500).err().expect("no such driver");
        assert!(matches!(unknown, PortError::Refused { .. }), "{unknown}");
        assert!(unknown.to_string().contains("net_nosuch0"), "{unknown}");
        let argument = open("net_null0,nosuch=1", 1500).err().expect("no such argument");
        assert!(argument.to_string().contains("nosuch"), "{argument}");
        let missing = open("net_af_packet0,iface=no-such-0", 1500).err().expect("no such interface");
        assert!(missing.to_string().contains("no-such-0"), "{missing}");
        assert!(matches!(open("net_null0", 9000).err(), Some(PortError::Pool { .. })), "buffers are for 1,500 bytes");
        let good = open("net_null0", 1500).expect("a device that failed before can be opened");
        drop(good);
        drop(open("net_null0", 1500).expect("and opened again after its close"));
    });
}

/// A capture file with one frame of each size.
fn capture(sizes: &[usize]) -> tempfile::NamedTempFile {
    let mut bytes = Vec::new();
    // The header of a libpcap file: magic, version 2.4, zone, accuracy, snap length, Ethernet.
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (number, size) in sizes.iter().enumerate() {
        for word in [0, number as u32, *size as u32, *size as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame(number as u32, *size));
    }
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut file, &bytes).expect("room for it");
    file
}

#[test]
fn a_packet_in_several_segments_is_dropped_and_counted_instead_of_seen_in_part() {
    in_own_process("memory::a_packet_in_several_segments_is_dropped_and_counted_instead_of_seen_in_part", || {
        let file = capture(&[64, 9000, 128, 5000, 1514]);
        let mut rig = Rig::open(&format!("net_pcap0,rx_pcap={}", file.path().display()), 1, 1500);
        let got = rig.receive(3, |_| true);
        assert_eq!(got, [frame(0, 64), frame(2, 128), frame(4, 1514)]);
        assert_eq!(rig.port.statistics().receive_errors, 2);
        assert_eq!(rig.close(), 0, "segments leaked");
    });
}
