//! A child process that cannot outlive the test, however the test ends.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::ApiServerError;

/// What an error quotes: the reason a program gives for ending is in its last lines.
const LOG_LINES: usize = 15;

/// Killed and waited for when dropped.
#[derive(Debug)]
pub(super) struct Process {
    program: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `<directory>/<program>.log`, added to what an earlier run
    /// wrote there.
    pub(super) fn spawn(command: &Command, directory: &Path) -> Result<Self, ApiServerError> {
        let path = Path::new(command.get_program());
        let program = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let log = directory.join(format!("{program}.log"));
        let doing = format!("starting {program} with setpriv (util-linux)");

        let open = || File::options().create(true).append(true).open(&log);
        let output = open().map_err(ApiServerError::io(doing.clone()))?;
        let errors = output.try_clone().map_err(ApiServerError::io(doing.clone()))?;

        // setpriv sets PR_SET_PDEATHSIG on itself and becomes the program, under the same process id:
        // what we would otherwise do between fork and exec, which takes unsafe code.
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = spawn_on_lasting_thread(wrapped).map_err(ApiServerError::io(doing))?;
        Ok(Self { program, child, log })
    }

    /// An error when the program has ended.
    pub(super) fn check_running(&mut self) -> Result<(), ApiServerError> {
        let ended =
            self.child.try_wait().map_err(ApiServerError::io(format!("waiting for {}", self.program)))?;
        ended.map_or(Ok(()), |status| {
            Err(ApiServerError::Exited { program: self.program.clone(), status, log: self.end_of_log() })
        })
    }

    /// The error for a program that runs and does not answer.
    pub(super) fn not_ready(&self, waited: Duration, last: &dyn fmt::Display) -> ApiServerError {
        ApiServerError::NotReady {
            program: self.program.clone(),
            waited,
            last: last.to_string(),
            log: self.end_of_log(),
        }
    }

    /// Sends a signal; the program cannot have been replaced by another, because nobody else waits for
    /// it.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), ApiServerError> {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(ApiServerError::io(format!("sending a signal to {}", self.program)))
    }

    /// Stops it from running; answers once every thread of it has really stopped. The signal alone returns while
    /// other threads still answer requests.
    pub(super) fn freeze(&self) -> Result<(), ApiServerError> {
        self.signal(Signal::STOP)?;
        let begun = std::time::Instant::now();
        while !self.all_threads_stopped() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The third field of `/proc/PID/task/TID/stat`, behind the name in parentheses, is `T` (proc(5)).
    fn all_threads_stopped(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return true };
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(unreadable: {error})"));
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already. SIGKILL also ends a frozen one.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Spawn {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

/// The kernel sends the death signal when the *thread* that forked ends, and a test's thread ends before
/// its process. This one ends with the process.
static LASTING_THREAD: LazyLock<Sender<Spawn>> = LazyLock::new(|| {
    let (sender, receiver) = channel::<Spawn>();
    std::thread::spawn(move || {
        for Spawn { mut command, answer } in receiver {
            // Whoever asked has gone: then the child is dropped here and ends with us.
            let _ = answer.send(command.spawn());
        }
    });
    sender
});

fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    let (answer, child) = sync_channel(1);
    LASTING_THREAD
        .send(Spawn { command, answer })
        .map_err(|_| io::Error::other("the spawning thread ended"))?;
    child.recv().map_err(io::Error::other)?
}
