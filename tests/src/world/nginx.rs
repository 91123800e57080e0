//! A stock web server that answers with its own name.

use super::{Namespace, Process, World};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// nginx on port 80 of all addresses of a namespace: `/` answers with its name, `/data` with a file of 1 MB.
pub struct Nginx {
    name: String,
    folder: PathBuf,
    process: Process,
}

impl Nginx {
    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(world: &World, namespace: &Namespace, name: &str) -> Self {
        let folder = world.path(&format!("nginx-{name}"));
        std::fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let data: Vec<u8> = (0..1_000_000_u32).map(|position| (position % 251) as u8).collect();
        std::fs::write(folder.join("data"), data).expect("the world's folder takes a file");
        std::fs::write(folder.join("nginx.conf"), configuration(name)).expect("the world's folder takes a file");
        let process = spawn(world, namespace, &folder);
        let mut nginx = Nginx { name: name.to_owned(), folder, process };
        nginx.wait_until_it_listens(namespace);
        nginx
    }

    /// The name that it answers with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kills it as the kernel kills a process that ate all memory: its connections are reset, its port is closed.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(Duration::from_secs(30));
    }

    /// Starts it again after it was killed.
    #[track_caller]
    pub fn restart(&mut self, world: &World, namespace: &Namespace) {
        self.process = spawn(world, namespace, &self.folder);
        self.wait_until_it_listens(namespace);
    }

    /// Requests of `/` that it has answered.
    pub fn answered(&self) -> usize {
        let log = std::fs::read(self.folder.join("access.log")).unwrap_or_default();
        log.iter().filter(|byte| **byte == b'\n').count()
    }

    fn wait_until_it_listens(&mut self, namespace: &Namespace) {
        super::wait_until("nginx listens", Duration::from_secs(60), || {
            assert!(self.process.is_running(), "nginx ended:\n{}", self.process.output());
            namespace.inside(|| std::net::TcpStream::connect("127.0.0.1:80")).is_ok()
        });
    }
}

fn spawn(world: &World, namespace: &Namespace, folder: &std::path::Path) -> Process {
    let folder = folder.to_string_lossy();
    Process::start(world, namespace, "nginx", &["-p", &folder, "-c", &format!("{folder}/nginx.conf"), "-e", "stderr"])
}

/// One process, so that to kill it is to kill the server.
fn configuration(name: &str) -> String {
    format!(
        "daemon off; master_process off; user root; pid nginx.pid; error_log stderr;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         client_max_body_size 100m; keepalive_timeout 600s; keepalive_requests 1000000; default_type text/plain;\n\
         access_log off;\n\
         server {{\n\
         listen 80 backlog=4096; listen [::]:80 backlog=4096;\n\
         location = / {{ access_log access.log; return 200 \"{name}\"; }}\n\
         location = /data {{ root .; }}\n\
         }}\n\
         }}\n"
    )
}
