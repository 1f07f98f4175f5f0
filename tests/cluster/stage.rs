//! The private server tree of `tests/stage.sh`, and the user that servers run as.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{SUPERUSER, lock, run};

/// A copy of the server with the extension installed in it.
#[derive(Clone, Debug)]
pub struct Stage {
    root: PathBuf,
}

impl Stage {
    /// # Panics
    /// If `IMGVEC_STAGE` is not set or names no stage.
    pub fn from_environment() -> Self {
        let root = std::env::var_os("IMGVEC_STAGE").map(PathBuf::from).unwrap_or_else(|| {
            panic!("IMGVEC_STAGE is not set; run `make test`, or IMGVEC_STAGE=$(tests/stage.sh) cargo test --release")
        });
        Self::at(root)
    }

    /// # Panics
    /// If no stage is there.
    pub fn at(root: PathBuf) -> Self {
        let stage = Self { root };
        let server = stage.program("postgres");
        assert!(server.is_file(), "no stage: {} is missing", server.display());
        stage
    }

    /// A program of the server's installation.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("bin").join(name)
    }

    /// What the installation's `pg_config` answers, such as the directory for `--sharedir`.
    pub fn config(&self, option: &str) -> PathBuf {
        PathBuf::from(run(Command::new(self.program("pg_config")).arg(option)).trim_end())
    }

    /// PostgreSQL's runner of SQL tests, which comes with the server's headers.
    pub fn pg_regress(&self) -> PathBuf {
        let pgxs = self.config("--pgxs");
        pgxs.parent().expect("pgxs.mk lies in a directory").join("../test/regress/pg_regress")
    }

    /// An initialized data directory to copy: made once, as `initdb` takes most of a second.
    pub(super) fn template(&self, user: &ServerUser) -> PathBuf {
        let template = self.root.join(format!("template-{}", user.uid));
        let _guard = lock(&self.root.join("template.lock"));
        if !template.exists() {
            let unfinished = self.root.join(format!("unfinished-{}", user.uid));
            // A run that was killed left it.
            let _ = fs::remove_dir_all(&unfinished);
            user.create_directory(&unfinished);
            run(user
                .command(self.program("initdb"))
                .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
                .args(["--username", SUPERUSER, "--pgdata"])
                .arg(&unfinished));
            fs::rename(&unfinished, &template).expect("a directory can be renamed in its parent");
        }
        template
    }
}

/// The user that servers run as: we, or `postgres` when we are root.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUser {
    uid: u32,
    gid: u32,
    is_other: bool,
}

impl ServerUser {
    pub(super) fn current_or_postgres() -> Self {
        let me = fs::metadata("/proc/self").expect("/proc is mounted");
        if me.uid() != 0 {
            return Self { uid: me.uid(), gid: me.gid(), is_other: false };
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
        let entry = passwd.lines().find_map(|line| {
            let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        let (uid, gid) = entry.expect("root needs a user `postgres` to run servers as; run `make setup`");
        Self { uid, gid, is_other: true }
    }

    /// A command that runs as this user, from a directory that the user can enter.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if self.is_other {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Creates a directory that belongs to this user alone.
    pub(super) fn create_directory(&self, path: &Path) {
        fs::create_dir(path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        self.own(path);
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("the mode of our own directory");
    }

    /// Gives a file or directory tree to this user.
    pub(super) fn own(&self, path: &Path) {
        if !self.is_other {
            return;
        }
        chown(path, Some(self.uid), Some(self.gid)).expect("root can change owners");
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("our own directory can be read");
            entries.for_each(|entry| self.own(&entry.expect("our own directory can be read").path()));
        }
    }
}
