//! Emulated machines: QEMU boots Debian's kernel in software, and a shell in the machine obeys the test.
//!
//! Real NIC drivers need real PCI devices, which no namespace has; and the kernel's own WireGuard needs a kernel that has it.

use super::command::uninterrupted;
use super::{Namespace, Process, World, run, wait_until};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Software emulation on a machine of two busy cores is slow; a limit here is for a hang, not for a measurement.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// The folder with the scripts that make what a machine starts from.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nic");

/// What a machine starts from: the kernel, and a file system with the programs of one role.
pub struct Image {
    kernel: PathBuf,
    initramfs: PathBuf,
}

/// What a start-up file system holds beside busybox.
pub struct Contents<'a> {
    /// Kernel modules to load.
    pub modules: &'a [&'a str],
    /// Programs, by name in PATH or by path.
    pub programs: &'a [&'a str],
    /// DPDK drivers, such as `net_e1000`.
    pub drivers: &'a [&'a str],
}

/// What a machine is like.
pub struct MachinePlan {
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// More kernel arguments.
    pub kernel_arguments: String,
    /// More QEMU arguments: devices.
    pub devices: Vec<String>,
}

/// A machine that is starting.
pub struct Booting(Machine);

/// A running machine.
pub struct Machine {
    shell: UnixStream,
    process: Process,
}

impl Image {
    /// Downloads the kernel if this build folder has none, and builds the file system of `role`.
    #[track_caller]
    pub fn build(world: &World, role: &str, contents: &Contents) -> Self {
        let kernel = cache_folder().join("kernel");
        run(&format!("{SCRIPTS}/kernel.sh"), &[&kernel.to_string_lossy()]);
        let initramfs = world.path(&format!("{role}.cpio"));
        run(
            &format!("{SCRIPTS}/initramfs.sh"),
            &[
                &initramfs.to_string_lossy(),
                &kernel.to_string_lossy(),
                &contents.modules.join(" "),
                &contents.programs.join(" "),
                &contents.drivers.join(" "),
            ],
        );
        Image { kernel: kernel.join("vmlinuz"), initramfs }
    }
}

impl Booting {
    /// Waits until the machine's shell answers.
    #[track_caller]
    pub fn up(self) -> Machine {
        // QEMU holds what is sent until the machine has opened its port.
        let mut machine = self.0;
        machine.run("true", BOOT_LIMIT);
        machine
    }
}

impl Machine {
    /// Starts a machine whose QEMU runs in a namespace.
    #[track_caller]
    pub fn boot(world: &World, namespace: &Namespace, name: &str, image: &Image, plan: &MachinePlan) -> Booting {
        let socket = world.path(&format!("{name}.shell"));
        let mut command = namespace.command("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35", "-nodefaults", "-no-reboot"]);
        command.args(["-display", "none", "-serial", "stdio"]);
        command.args(["-m", &plan.memory.to_string(), "-smp", &plan.cpus.to_string()]);
        command.args(["-chardev", &format!("socket,id=shell,path={},server=on,wait=off", socket.display())]);
        command.args(["-device", "virtio-serial-pci,addr=0x8", "-device", "virtserialport,chardev=shell,name=shell"]);
        command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initramfs);
        command.args(["-append", &format!("console=ttyS0 panic=1 quiet no_timer_check {}", plan.kernel_arguments)]);
        command.args(&plan.devices);
        let mut process = Process::spawn(world, name, command);
        let mut shell = None;
        wait_until("QEMU has made the machine's port", Duration::from_secs(30), || {
            assert!(process.is_running(), "QEMU ended:\n{}", process.output());
            shell = UnixStream::connect(&socket).ok();
            shell.is_some()
        });
        let shell = shell.expect("it was connected");
        shell.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout above zero");
        Booting(Machine { shell, process })
    }

    /// Runs a shell command in the machine and returns what it printed.
    ///
    /// # Panics
    /// If it fails or does not end within `limit`.
    #[track_caller]
    pub fn run(&mut self, command: &str, limit: Duration) -> String {
        self.try_run(command, limit).unwrap_or_else(|error| panic!("in the machine: {command}: {error}"))
    }

    /// Runs a shell command in the machine; the error has its exit status and what it printed.
    pub fn try_run(&mut self, command: &str, limit: Duration) -> Result<String, String> {
        match self.ask(command, limit)? {
            (0, text) => Ok(text),
            (status, text) => Err(format!("exit status {status}\n{text}")),
        }
    }

    /// Writes a file in the machine.
    #[track_caller]
    pub fn write(&mut self, path: &str, text: &str) {
        assert!(!text.contains('\''), "the file goes through a shell's quotes");
        self.run(&format!("umask 077; printf '%s\n' '{text}' > {path}"), Duration::from_secs(30));
    }

    /// Waits until a command succeeds in the machine.
    #[track_caller]
    pub fn wait_for(&mut self, command: &str, limit: Duration) {
        wait_until(&format!("in the machine: {command}"), limit, || self.try_run(command, limit).is_ok());
    }

    /// The QEMU process, whose output is the machine's console.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn ask(&mut self, command: &str, limit: Duration) -> Result<(i32, String), String> {
        let mark = format!("@{:016x}@", rand::random::<u64>());
        // The mark is written in two halves, so that an echo of the command is not taken for its end.
        let (left, right) = mark.split_at(8);
        let line = format!("{{ {command}\n}} 2>&1 </dev/null; printf '%s%s %s\\n' '{left}' '{right}' $?\n");
        self.shell.write_all(line.as_bytes()).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + limit;
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match uninterrupted(|| self.shell.read(&mut buffer)) {
                Ok(0) => return Err("the machine has ended".into()),
                Ok(length) => said.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
            let text = String::from_utf8_lossy(&said).replace('\r', "");
            if let Some((before, after)) = text.split_once(&mark)
                && let Some((status, _)) = after.split_once('\n')
            {
                let status = status.trim().parse().map_err(|error| format!("{error}: {status:?}"))?;
                return Ok((status, before.to_owned()));
            }
            if Instant::now() > deadline {
                return Err(format!("no end after {limit:?}; so far:\n{text}"));
            }
        }
    }
}

/// Where what is downloaded once is kept: beside the build.
fn cache_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // <target>/<profile>/deps/<test>
    let target = test.ancestors().nth(3).unwrap_or(Path::new("."));
    let folder = target.join("nic");
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}
