//! This program again, as another process that serves orders, a line each.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// This program again, as another process; it ends when its standard input does.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it, and waits until it is ready.
    pub fn start(arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = BufReader::new(output.ok_or_else(|| io::Error::other("a process without output"))?);
        let mut process = Self { child, input, output };
        match process.line()?.as_str() {
            "ready" => Ok(process),
            other => Err(io::Error::other(format!("`{}` says \"{other}\"", arguments.join(" ")))),
        }
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err(io::Error::other("a process of the measurement has ended")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Gives it an order, and waits for what it says to it.
    pub fn ask(&mut self, question: &str) -> io::Result<String> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{question}")?;
            input.flush()?;
        }
        self.line()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        // How it ended, it has said itself.
        let _ = self.child.wait();
    }
}
