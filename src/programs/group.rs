//! Control groups (cgroup v2): where this process may make them, each program runs in its own.
//!
//! What is in a group cannot leave it; the system limits its memory and ends it as a whole. Groups are made only
//! below one that systemd delegated to this user (`Delegate=`): all others are the administrator's.

use std::path::{Path, PathBuf};
use std::{io, sync::LazyLock};

use rustix::fs::{Access, access, getxattr};

use crate::family::until_none;

/// Processes and threads of one program.
pub(crate) const MOST_TASKS: usize = 1024;

/// The extended attribute that systemd sets on a delegated group.
const DELEGATED: &str = "user.delegate";

/// The group that this process moves itself into: a group with limits may hold groups or processes, not both.
const OF_THIS_PROCESS: &str = "agrpo";

/// The group below which groups may be made.
#[derive(Debug)]
pub(crate) struct Groups {
    top: PathBuf,
}

impl Groups {
    pub(crate) fn of_this_process() -> Option<&'static Self> {
        static FOUND: LazyLock<Option<Groups>> = LazyLock::new(Groups::find);
        FOUND.as_ref()
    }

    fn find() -> Option<Self> {
        let own = own_group()?;
        if let Some(above) = own.parent().filter(|above| is_delegated(above)) {
            return Some(Self::at(above.to_owned()));
        }
        let is_alone = std::fs::read_to_string(own.join("cgroup.procs"))
            .is_ok_and(|all| all.trim() == std::process::id().to_string());
        if !is_delegated(&own) || !is_alone {
            return None;
        }
        let room = own.join(OF_THIS_PROCESS);
        std::fs::create_dir_all(&room).ok()?;
        std::fs::write(room.join("cgroup.procs"), "0").ok()?;
        Some(Self::at(own))
    }

    pub(crate) fn at(top: PathBuf) -> Self {
        for controller in ["+memory", "+pids"] {
            // A missing controller limits nothing; the group still holds its processes together.
            let _absent = std::fs::write(top.join("cgroup.subtree_control"), controller);
        }
        Self { top }
    }

    pub(crate) fn make(&self, name: &str, memory: u64) -> io::Result<Group> {
        let folder = self.top.join(name);
        std::fs::create_dir(&folder)?;
        let set = |file: &str, value: String| std::fs::write(folder.join(file), value);
        let limits_memory = set("memory.max", memory.to_string()).is_ok();
        // Swapped memory counts, and a group that exceeds its memory is killed as a whole.
        let _absent = set("memory.swap.max", "0".to_owned());
        let _absent = set("memory.oom.group", "1".to_owned());
        let _absent = set("pids.max", MOST_TASKS.to_string());
        Ok(Group { folder, limits_memory })
    }

    pub(crate) fn end(&self, name: &str) {
        let folder = self.top.join(name);
        if folder.is_dir() {
            drop(Group { folder, limits_memory: false });
        }
    }
}

/// The group of one program; dropping the value kills its processes and removes it.
#[derive(Debug)]
pub(crate) struct Group {
    folder: PathBuf,
    pub(crate) limits_memory: bool,
}

impl Group {
    /// Moves a process into the group; processes that it starts later are in it as well.
    pub(crate) fn add(&self, pid: i32) -> io::Result<()> {
        std::fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    pub(crate) fn end(&self) {
        // Kernels before 5.14 lack it; the processes are then found in /proc.
        let _absent = std::fs::write(self.folder.join("cgroup.kill"), "1");
    }

    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let events = std::fs::read_to_string(self.folder.join("memory.events"));
        let mut lines = events.iter().flat_map(|text| text.lines());
        lines.any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        until_none(|| {
            self.end();
            std::fs::remove_dir(&self.folder).is_ok() || !self.folder.exists()
        });
    }
}

fn own_group() -> Option<PathBuf> {
    let all = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = all.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    // `36 35 0:31 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw`: the fifth field is the mount point.
    let mount_point = mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    })?;
    Some(Path::new(mount_point).join(path))
}

/// Whether a group was delegated to this user, which may then make groups below it.
fn is_delegated(group: &Path) -> bool {
    let mut value = [0; 8];
    let length = getxattr(group, DELEGATED, &mut value[..]);
    length.is_ok_and(|length| &value[..length] == b"1")
        && access(group, Access::WRITE_OK).is_ok()
        && access(group.join("cgroup.subtree_control"), Access::WRITE_OK).is_ok()
}
