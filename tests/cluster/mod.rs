//! A throw-away PostgreSQL server for one test, with the extension installed.
//!
//! ```ignore
//! let cluster = Cluster::new("cancel").conf("statement_timeout = '1s'").start();
//! let mut client = cluster.client();
//! ```
//!
//! The server runs from the private tree that `tests/stage.sh` makes (environment variable
//! `IMGVEC_STAGE`, set by `make test`), as user `postgres` when we are root because PostgreSQL
//! refuses root, and listens only on a Unix socket in a directory of its own. Dropping the
//! `Cluster` stops the server, removes its files, and fails the test if a server process crashed.
//! Killing the test process stops the server too.

#![allow(dead_code, unused_imports, reason = "every test uses its own part of the harness")]

mod process;
mod stage;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

pub use process::{Memory, processor_time, signal};
use stage::ServerUser;
pub use stage::Stage;

const SUPERUSER: &str = "postgres";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of a server that is not yet running.
pub struct ClusterBuilder {
    name: String,
    settings: Vec<String>,
    stage: Option<Stage>,
}

impl ClusterBuilder {
    /// Runs the server from another installation than that of the environment.
    pub fn stage(mut self, stage: Stage) -> Self {
        self.stage = Some(stage);
        self
    }

    /// Adds one line of `postgresql.conf`, such as `work_mem = '1MB'`.
    pub fn conf(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Starts the server and creates the extension in database `postgres`.
    ///
    /// # Panics
    /// If there is no stage, or the server does not come up within a minute; its log is printed.
    pub fn start(self) -> Cluster {
        let cluster = self.start_empty();
        cluster.client().batch_execute("CREATE EXTENSION imgvec").expect("the extension can be created");
        cluster
    }

    /// Starts the server without the extension.
    pub fn start_empty(self) -> Cluster {
        let stage = self.stage.unwrap_or_else(Stage::from_environment);
        let mut cluster = Cluster::prepare(stage, &self.name);
        let template = cluster.stage.template(&cluster.user);
        run(cluster.user.command("cp").arg("-a").arg(&template).arg(cluster.data()));
        cluster.configure(&self.settings);
        cluster.start();
        cluster
    }
}

/// A server, running unless it was stopped or crashed by the test.
pub struct Cluster {
    stage: Stage,
    user: ServerUser,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    running: Option<Running>,
}

/// The postmaster and the shell that stops it when this process dies.
struct Running {
    postmaster: Child,
    watcher: Child,
}

impl Cluster {
    /// A server to be. `name` only makes its directory recognizable.
    #[allow(clippy::new_ret_no_self, reason = "reads as Cluster::new(..).conf(..).start()")]
    pub fn new(name: &str) -> ClusterBuilder {
        let settings = [
            "listen_addresses = ''",
            "fsync = off",
            "max_connections = 60",
            "log_line_prefix = '%m [%p] %q%a '",
            "lc_messages = 'C'",
            "timezone = 'UTC'",
        ];
        ClusterBuilder { name: name.to_owned(), settings: settings.map(str::to_owned).into(), stage: None }
    }

    /// An empty directory for a server; short, as a socket's path has at most 107 bytes.
    fn prepare(stage: Stage, name: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(format!("/tmp/imgvec-{name}-{}-{count}", std::process::id()));
        let user = ServerUser::current_or_postgres();
        user.create_directory(&directory);
        Self { stage, user, directory, environment: Vec::new(), running: None }
    }

    fn configure(&self, settings: &[String]) {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .expect("the server's configuration can be written");
        writeln!(file, "unix_socket_directories = '{}'", self.directory.display())
            .and_then(|()| settings.iter().try_for_each(|line| writeln!(file, "{line}")))
            .expect("the server's configuration can be written");
    }

    /// Appends lines to `postgresql.conf`; they take effect with [`restart`](Self::restart).
    pub fn conf(&self, line: &str) {
        self.configure(&[line.to_owned()]);
    }

    /// Sets a variable of the server's environment; it takes effect with [`restart`](Self::restart).
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The directory that holds the socket, the data directory and the log.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The private server tree this server runs from.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Gives a file or directory tree to the user that the server runs as.
    pub fn give(&self, path: &Path) {
        self.user.own(path);
    }

    /// Any program, run as the user that the server runs as.
    pub fn command_of_server_user(&self, program: impl AsRef<OsStr>) -> Command {
        self.user.command(program)
    }

    /// Everything the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Starts a server that was stopped or crashed, and waits until it accepts connections.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "the server runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .expect("the server's log can be opened");
        let postmaster = self
            .user
            .command(self.stage.program("postgres"))
            .arg("-D")
            .arg(self.data())
            // Rust would add a backtrace to the DETAIL of errors that come from a panic.
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LIB_BACKTRACE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the server's log can be opened"))
            .stderr(log)
            // Control-C in the terminal is for us; the server then sees us disappear.
            .process_group(0)
            .spawn()
            .expect("the server can be started");
        let watcher = self
            .user
            .command("sh")
            .args(["-c", r#"read -r _ || kill -INT "$1""#, "watcher", &postmaster.id().to_string()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell can be started");
        self.running = Some(Running { postmaster, watcher });
        self.wait_until_ready();
    }

    /// Waits until the server accepts connections, for a minute at most.
    pub fn wait_until_ready(&mut self) {
        let begin = Instant::now();
        loop {
            let Err(error) = self.config().connect(NoTls) else { return };
            let postmaster = &mut self.running.as_mut().expect("the server was started").postmaster;
            let exited = postmaster.try_wait().expect("our own child can be waited for");
            if exited.is_some() || begin.elapsed() > START_TIMEOUT {
                panic!("the server does not start ({exited:?}, {error}); its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server with the postmaster's signal for it: INT (fast) or QUIT (immediate).
    fn end(&mut self, signal_name: &str) {
        let Some(mut running) = self.running.take() else { return };
        signal(running.postmaster.id(), signal_name);
        running.postmaster.wait().expect("our own child can be waited for");
        running.dismiss_watcher();
    }

    /// Stops the server as `pg_ctl stop -m fast` does: sessions are ended, data are flushed.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Stops the server and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Kills every process of the server at once, as a power failure would; memory is lost, what
    /// reached the operating system is not. [`start`](Self::start) then recovers.
    pub fn crash(&mut self) {
        let mut running = self.running.take().expect("the server runs");
        let postmaster = running.postmaster.id();
        // A stopped postmaster starts no more children while they are listed. The list may lack some where one ends meanwhile.
        signal(postmaster, "STOP");
        let begin = Instant::now();
        let mut is_over = false;
        while !is_over {
            assert!(begin.elapsed() < START_TIMEOUT, "killed server processes do not disappear");
            if process::is_stopped(postmaster) {
                let children = process::children(postmaster);
                let alive: Vec<u32> =
                    children.into_iter().filter(|&child| process::is_alive(child)).collect();
                alive.iter().for_each(|&child| signal(child, "KILL"));
                is_over = alive.is_empty();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // A new postmaster would refuse to start beside processes that still use the old memory.
        signal(postmaster, "KILL");
        running.postmaster.wait().expect("our own child can be waited for");
        running.dismiss_watcher();
    }

    /// A streaming standby of this server, started.
    pub fn standby(&self, name: &str) -> Self {
        let mut standby = Self::prepare(self.stage.clone(), name);
        run(standby
            .user
            .command(self.stage.program("pg_basebackup"))
            .args(["--checkpoint=fast", "--write-recovery-conf", "--no-sync", "--username", SUPERUSER])
            .arg("--host")
            .arg(&self.directory)
            .arg("--pgdata")
            .arg(standby.data()));
        standby.configure(&[]);
        standby.start();
        standby
    }

    /// Waits until a standby has replayed everything this server has written.
    pub fn wait_for(&self, standby: &Self) {
        let mut writer = self.client();
        // VACUUM leaves the last of its log unflushed; a commit flushes everything before it, but only if its own
        // transaction wrote something.
        writer
            .batch_execute("SELECT pg_logical_emit_message(true, 'imgvec', '')")
            .expect("the primary commits");
        let position: String = writer
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
            .expect("the primary tells its position")
            .get(0);
        let mut client = standby.client();
        let begin = Instant::now();
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        while !client.query_one(&query, &[]).expect("the standby tells its position").get::<_, bool>(0) {
            assert!(begin.elapsed() < START_TIMEOUT, "the standby does not catch up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes a standby a primary.
    pub fn promote(&self) {
        let promoted: bool = self
            .client()
            .query_one("SELECT pg_promote(true, 60)", &[])
            .expect("a standby can be promoted")
            .get(0);
        assert!(promoted, "the standby was not promoted within a minute");
    }

    /// Leaves the server running after this process, and tells its directory.
    pub fn keep(mut self) -> PathBuf {
        if let Some(running) = self.running.take() {
            running.dismiss_watcher();
        }
        let directory = std::mem::take(&mut self.directory);
        std::mem::forget(self);
        directory
    }

    /// How to connect as superuser to database `postgres`.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(&self.directory).user(SUPERUSER).dbname("postgres").application_name("test");
        config
    }

    /// A new session as superuser in database `postgres`.
    pub fn client(&self) -> Client {
        self.client_of(SUPERUSER, "postgres")
    }

    /// A new session as `user` in `database`.
    ///
    /// # Panics
    /// If the server refuses the connection.
    pub fn client_of(&self, user: &str, database: &str) -> Client {
        let connected = self.config().user(user).dbname(database).connect(NoTls);
        connected.unwrap_or_else(|error| panic!("cannot connect: {error}; log:\n{}", self.log()))
    }

    /// As [`command`](Self::command), a program of the server's installation.
    pub fn program(&self, name: &str) -> Command {
        self.command(self.stage.program(name))
    }

    /// Any program, set up to talk to this server as superuser.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("PGHOST", &self.directory)
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", "postgres")
            .env_remove("PGPORT")
            .env_remove("PGOPTIONS");
        command
    }

    /// What `psql` prints for `sql`: unaligned rows without headers.
    ///
    /// # Panics
    /// If a statement fails.
    pub fn psql(&self, sql: &str) -> String {
        let mut command = self.program("psql");
        run(command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    /// Processes that the test killed are no crash: their lines in the log are reworded.
    pub fn forgive_kills(&self) {
        let log = self.log().replace("was terminated by signal 9: Killed", "was killed by the test");
        fs::write(self.directory.join("log"), log).expect("the server's log can be written");
    }

    /// Fails if a server process was ended by a signal or reported damage.
    pub fn assert_no_crash(&self) {
        let log = self.log();
        for sign in ["PANIC:", "was terminated by signal", "was terminated by exception"] {
            assert!(!log.contains(sign), "the server log has {sign:?}:\n{log}");
        }
    }
}

impl Running {
    fn dismiss_watcher(mut self) {
        if let Some(mut input) = self.watcher.stdin.take() {
            // An error means that the watcher is gone already.
            let _ = input.write_all(b"done\n");
        }
        let _ = self.watcher.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end("INT");
        let failed = std::thread::panicking();
        if failed {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("last lines of the server log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        } else {
            self.assert_no_crash();
        }
        // What is left in /tmp harms nobody; a second panic here would hide the first.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Runs a program to its end and returns its standard output.
///
/// # Panics
/// If it cannot be started or fails; with its standard error.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Holds an exclusive lock on a file until dropped; for work that only one process should do.
fn lock(path: &Path) -> File {
    let file = File::create(path).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    file.lock().unwrap_or_else(|error| panic!("cannot lock {}: {error}", path.display()));
    file
}
