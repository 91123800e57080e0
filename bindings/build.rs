//! Binds the installed DPDK: pkg-config finds it, cc builds the shim, bindgen reads its headers into OUT_DIR.

use std::path::PathBuf;
use std::process::{Command, exit};

/// The libraries whose symbols we or the shim name. Everything else, the drivers above all, is loaded by the
/// EAL from the system's plug-in folder; linking a driver as well would run its constructors twice where the
/// two paths are not one file.
const LIBRARIES: &[&str] = &["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_log"];

/// What we call directly.
const FUNCTIONS: &[&str] = &[
    "shim_.*",
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_hotplug_(add|remove)",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_configure",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_set_link_up",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_allmulticast_enable",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_stats_get",
    "rte_log_set_global_level",
    "rte_mempool_(avail_count|free)",
    "rte_pktmbuf_(free_bulk|pool_create)",
    "rte_socket_count",
    "rte_strerror",
    "rte_thread_(register|unregister)",
    "rte_version",
];

fn main() {
    println!("cargo::rerun-if-changed=shim.h");
    println!("cargo::rerun-if-changed=shim.c");
    let flags = find_dpdk();
    check_libclang();
    build_shim(&flags);
    generate(&flags);
}

/// Stops the build with the one message that says what to install.
fn missing(what: &str) -> ! {
    println!(
        "cargo::error=dpdk-sys cannot be built: {what}. It needs the Debian packages libdpdk-dev (22.11 or newer), \
         libclang-dev, pkg-config and gcc: run `make deps` in Jetway's folder, or \
         `apt-get install libdpdk-dev libclang-dev pkg-config gcc`"
    );
    exit(1)
}

/// Emits how to link, and returns the compiler flags (`-march` and `-include` among them, which only the command
/// gives).
fn find_dpdk() -> Vec<String> {
    let library = pkg_config::Config::new()
        .atleast_version("22.11")
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk")
        .unwrap_or_else(|error| match error {
            pkg_config::Error::Command { .. } => missing("the command pkg-config is missing"),
            _ => missing("pkg-config finds no libdpdk of version 22.11 or newer"),
        });
    for path in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES.iter().filter(|name| library.libs.iter().any(|found| found == *name)) {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    let command = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let flags = Command::new(command).args(["--cflags", "libdpdk"]).output();
    match flags {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
        }
        Ok(_) | Err(_) => missing("`pkg-config --cflags libdpdk` failed"),
    }
}

/// bindgen loads libclang at run time, and panics where there is none.
fn check_libclang() {
    std::panic::set_hook(Box::new(|_| {}));
    let version = std::panic::catch_unwind(bindgen::clang_version);
    drop(std::panic::take_hook());
    if version.is_err() {
        missing("libclang is missing");
    }
}

fn build_shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build.file("shim.c").std("gnu11").opt_level(3).warnings(true).extra_warnings(true);
    for flag in flags {
        // DPDK's own headers are not clean under -Wextra.
        match flag.strip_prefix("-I") {
            Some(folder) => build.flag("-isystem").flag(folder),
            None => build.flag(flag),
        };
    }
    if let Err(error) = build.try_compile("dpdk_sys_shim") {
        missing(&format!("the C compiler failed on shim.c ({})", error.to_string().replace('\n', " ")));
    }
}

fn generate(flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(flags)
        .use_core()
        .layout_tests(false)
        .generate_comments(false)
        .merge_extern_blocks(true)
        .prepend_enum_name(false)
        // A packed struct with a 64-bit field breaks the derived Debug.
        .derive_debug(false)
        .derive_default(true)
        .opaque_type("rte_device|rte_mempool_cache|rte_mempool_memhdr.*|rte_mempool_objhdr.*|rte_mempool_info")
        // lib.rs has its own view of the mbuf, which does not depend on the names bindgen gives to anonymous unions.
        .blocklist_type("rte_mbuf.*")
        .raw_line("use super::rte_mbuf;")
        .opaque_type("rte_mempool")
        .allowlist_type("shim_mbuf_layout|rte_eth_(conf|dev_info|stats|rxconf|txconf|rss_reta_entry64)|rte_ether_addr")
        .allowlist_var("SHIM_.*|RTE_ETH_MQ_RX_(NONE|RSS)|RTE_LOG_.*|RTE_ETH_NAME_MAX_LEN");
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    let bindings = builder.generate().unwrap_or_else(|error| {
        missing(&format!("bindgen failed on DPDK's headers ({})", error.to_string().replace('\n', " ")))
    });
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    bindings.write_to_file(out).expect("OUT_DIR is writable");
}
